"""C6 and C12: distance between parameters, and distance between policies.

    D_KL(π'‖π)[s] = Σ_a π'(a|s) log(π'(a|s) / π(a|s))

In the lecture's family, π_θ(1) = σ(θ), π_θ(2) = 1 - σ(θ), the same change of θ is a big
change of the policy near θ = 0 and next to none far away from it. The KL is the one
that ppo_kl.update logs after its step, E_s[D_KL(π_θk(·|s), π_θ(·|s))]: the old first.
"""

import numpy as np
import pytest
import tabular
from measured import logged_kl, sigmoid, sigmoid_logits
from tabular import kl_per_state, softmax
from torch.distributions import Independent, Normal


def test_C6_the_same_step_in_theta_is_a_very_different_step_in_the_policy(report):
    thetas = np.array([0, 2, 4, 6, 8])
    kls = [logged_kl(sigmoid_logits(x), sigmoid_logits(x + 1)) for x in thetas]
    moves = sigmoid(thetas + 1) - sigmoid(thetas)
    report(C6_theta=thetas, C6_kl_of_a_step_of_1=kls, C6_change_of_probability=moves)
    assert (np.diff(kls) < 0).all()
    assert kls[0] > 500 * kls[-1]
    assert moves[0] > 0.2 and moves[-1] < 0.001
    # a long step can even leave the policy as it is
    logits = np.array([[1.0, -0.5, 0.0]])
    assert logged_kl(logits, logits + 100) == pytest.approx(0, abs=1e-12)


def test_C6_the_kl_of_a_small_step_is_half_the_fisher_information_times_its_square():
    for theta in -3.0, 0.0, 1.0, 5.0:
        step, p = 1e-2, sigmoid(theta)
        kl = logged_kl(sigmoid_logits(theta), sigmoid_logits(theta + step))
        assert kl == pytest.approx(0.5 * p * (1 - p) * step**2, rel=0.01)


def test_C12_kl_is_zero_on_itself_positive_otherwise_and_not_symmetric():
    for seed in range(10):
        old, new = np.random.default_rng(seed).normal(size=(2, 4, 3))
        assert logged_kl(old, old, states=range(4)) == 0
        forth = logged_kl(old, new, states=range(4))
        back = logged_kl(new, old, states=range(4))
        assert forth > 0.01 and back > 0.01
        assert abs(forth - back) > 0.001


def test_C12_kl_of_policies_is_a_number_for_each_state_averaged_with_the_old_first():
    old, new = np.random.default_rng(0).normal(size=(2, 4, 3))
    kl = kl_per_state(softmax(old), softmax(new))
    for s in range(4):
        assert logged_kl(old, new, states=[s]) == pytest.approx(kl[s], abs=1e-12)
    # the expectation is over the states visited: state 2 twice as often as state 0
    visited = logged_kl(old, new, states=[2, 0, 2])
    assert visited == pytest.approx((2 * kl[2] + kl[0]) / 3, abs=1e-12)


class GaussianPolicy(tabular.SoftmaxPolicy):
    """The table holds means and logarithms of standard deviations."""

    def distribution(self, obs):
        mean, log_std = (obs.double() @ self.logits).chunk(2, dim=1)
        return Independent(Normal(mean, log_std.exp()), 1)


def gaussian_kl(old, new):
    """logged_kl for arrays [mean, std], (2, A), in one state."""
    tables = [np.array([[*mean, *np.log(std)]]) for mean, std in (old, new)]
    return logged_kl(*tables, kind=GaussianPolicy)


def test_C12_kl_of_gaussians_is_the_closed_form_and_the_integral():
    old = np.array([[0.5, 0.0], [1.5, 0.5]])  # means and standard deviations
    new = np.array([[-0.3, 0.2], [0.8, 0.4]])
    (m, s), (m2, s2) = old, new
    closed = np.log(s2 / s) + (s**2 + (m - m2) ** 2) / (2 * s2**2) - 0.5
    x = np.linspace(-15, 15, 30_001)[:, None]
    log_p = -0.5 * ((x - m) / s) ** 2 - np.log(s)
    log_q = -0.5 * ((x - m2) / s2) ** 2 - np.log(s2)
    p = np.exp(log_p) / np.sqrt(2 * np.pi)
    integral = (p * (log_p - log_q)).sum(axis=0) * (x[1] - x[0])
    np.testing.assert_allclose(closed, integral, atol=1e-8)
    kl = gaussian_kl(old, new)  # the sum over the two actions
    assert kl == pytest.approx(closed.sum(), abs=1e-12)
    assert kl != pytest.approx(gaussian_kl(new, old), abs=0.1)
    assert gaussian_kl(old, old) == pytest.approx(0, abs=1e-12)
