"""C6 and C12: distance between parameters, and distance between policies.

    D_KL(P‖Q) = Σ_x P(x) log(P(x) / Q(x)):  D_KL(P‖P) = 0,  D_KL(P‖Q) >= 0,
                                            D_KL(P‖Q) ≠ D_KL(Q‖P)
    D_KL(π'‖π)[s] = Σ_a π'(a|s) log(π'(a|s) / π(a|s))

In the lecture's family, π_θ(1) = σ(θ), π_θ(2) = 1 - σ(θ), the same change of θ is a big
change of the policy near θ = 0 and next to none far away from it.

The KL is the one that ppo_kl.update logs after its step, the mean over the rollout's
states of D_KL(π_θk(·|s), π_θ(·|s)): the old policy first. The step is given by MoveTo.
"""

import numpy as np
import pytest
import torch
from measured import logged_kl, sigmoid, sigmoid_logits
from tabular import (
    MoveTo,
    Trajectory,
    exact_args,
    kl_per_state,
    make_rollout,
    run_update,
    softmax,
)
from torch.distributions import Independent, Normal

import ppo_kl

# C6


def test_C6_the_same_step_in_theta_is_a_very_different_step_in_the_policy(report):
    thetas = np.array([0, 2, 4, 6, 8])
    kls = [logged_kl(sigmoid_logits(x), sigmoid_logits(x + 1)) for x in thetas]
    moves = sigmoid(thetas + 1) - sigmoid(thetas)
    report(C6_theta=thetas, C6_kl_of_a_step_of_1=kls, C6_change_of_probability=moves)
    assert (np.diff(kls) < 0).all()
    assert kls[0] > 500 * kls[-1]
    assert moves[0] > 0.2 and moves[-1] < 0.001


def test_C6_the_kl_of_a_small_step_is_half_the_fisher_information_times_its_square():
    for theta in -3.0, 0.0, 1.0, 5.0:
        step, p = 1e-2, sigmoid(theta)
        kl = logged_kl(sigmoid_logits(theta), sigmoid_logits(theta + step))
        assert kl == pytest.approx(0.5 * p * (1 - p) * step**2, rel=0.01)


def test_C6_the_same_step_in_the_policy_is_a_very_different_step_in_theta():
    steps = []
    for theta in 0.0, 6.0:
        low, high = 0.0, 10.0
        while high - low > 1e-6:  # bisection: the KL grows with the step
            step = (low + high) / 2
            kl = logged_kl(sigmoid_logits(theta), sigmoid_logits(theta - step))
            low, high = (step, high) if kl < 0.01 else (low, step)
        steps.append(step)
    assert steps[1] > 5 * steps[0]


def test_C6_a_step_can_be_long_in_theta_and_leave_the_policy_as_it_is():
    logits = np.array([[1.0, -0.5, 0.0]])
    assert logged_kl(logits, logits + 100) == pytest.approx(0, abs=1e-12)


# C12


def random_logits(seed, states=4, actions=3):
    return np.random.default_rng(seed).normal(size=(states, actions))


def test_C12_kl_is_zero_on_itself_positive_otherwise_and_not_symmetric():
    for seed in range(10):
        old, new = random_logits(seed), random_logits(100 + seed)
        assert logged_kl(old, old, states=range(4)) == 0
        forth = logged_kl(old, new, states=range(4))
        back = logged_kl(new, old, states=range(4))
        assert forth > 0.01 and back > 0.01
        assert abs(forth - back) > 0.001


def test_C12_kl_of_policies_is_a_number_for_each_state_averaged_with_the_old_first():
    old, new = random_logits(0), random_logits(100)
    kl = kl_per_state(softmax(old), softmax(new))
    for s in range(4):
        assert logged_kl(old, new, states=[s]) == pytest.approx(kl[s], abs=1e-12)
    # the expectation is over the states visited: state 2 twice as often as state 0
    visited = logged_kl(old, new, states=[2, 0, 2])
    assert visited == pytest.approx((2 * kl[2] + kl[0]) / 3, abs=1e-12)


class GaussianPolicy(torch.nn.Module):
    """The same Gaussian in every state; place holds its mean and log std, (2, A)."""

    def __init__(self, mean, std):
        super().__init__()
        place = torch.tensor(np.array([mean, np.log(std)]))
        self.place = torch.nn.Parameter(place)

    def distribution(self, obs):
        mean, log_std = self.place.expand(len(obs), *self.place.shape).unbind(1)
        return Independent(Normal(mean, log_std.exp()), 1)


def logged_gaussian_kl(old, new):
    """As logged_kl, for a (mean, std) each; mean and std are lists, one per action."""
    rollout = make_rollout([Trajectory([0, 0], [0], np.zeros(1), False)], 1)
    rollout = rollout._replace(actions=np.zeros((1, 1, len(old[0]))))
    policy = GaussianPolicy(*old)
    optimizer = MoveTo(policy.place, GaussianPolicy(*new).place)
    metrics = run_update(ppo_kl, exact_args(ppo_kl), policy, optimizer, rollout)
    return metrics["train/kl"]


def test_C12_kl_of_gaussians_is_the_closed_form_and_the_integral():
    old, new = ([0.5], [1.5]), ([-0.3], [0.8])
    kl = logged_gaussian_kl(old, new)
    (m,), (s,), (m2,), (s2,) = *old, *new
    closed = np.log(s2 / s) + (s**2 + (m - m2) ** 2) / (2 * s2**2) - 0.5
    assert kl == pytest.approx(closed, abs=1e-12)
    x = np.linspace(-15, 15, 30_001)
    log_p = -0.5 * ((x - m) / s) ** 2 - np.log(s)
    log_q = -0.5 * ((x - m2) / s2) ** 2 - np.log(s2)
    p = np.exp(log_p) / np.sqrt(2 * np.pi)
    integral = (p * (log_p - log_q)).sum() * (x[1] - x[0])
    assert kl == pytest.approx(integral, abs=1e-8)
    assert kl != pytest.approx(logged_gaussian_kl(new, old), abs=0.1)
    assert logged_gaussian_kl(old, old) == pytest.approx(0, abs=1e-12)


def test_C12_kl_of_gaussians_with_two_actions_is_the_sum_over_the_actions():
    first = logged_gaussian_kl(([0.5], [1.5]), ([-0.3], [0.8]))
    second = logged_gaussian_kl(([0.0], [0.5]), ([0.2], [0.4]))
    both = logged_gaussian_kl(([0.5, 0.0], [1.5, 0.5]), ([-0.3, 0.2], [0.8, 0.4]))
    assert both == pytest.approx(first + second, abs=1e-12)
