"""C13, C16 and the third quiz: the objectives of the two PPOs.

    r_t(θ)   = π_θ(a_t|s_t) / π_θk(a_t|s_t)
    L_θk     = E_{τ~π_k}[ Σ_t r_t(θ) Â_t ],  less β_k D̄_KL(θ‖θ_k) in ppo_kl.py
    L^CLIP   = E_{τ~π_k}[ Σ_t min(r_t(θ) Â_t, clip(r_t(θ), 1-ε, 1+ε) Â_t) ]

At θ = θ_k the gradient of both is the policy gradient. Away from θ_k, where update_at
looks, a term of L^CLIP is flat in r where r has left 1 ± ε as Â asks for, only there.
"""

import numpy as np
import pytest
import tabular
import torch
from numpy.testing import assert_allclose
from tabular import Trajectory, softmax, update_at

import ppo_clip
import ppo_kl

EPSILON = 0.2


# From here on λ = 0 and V = 0: Â_t is the reward r_t, exact in float32.
TD = {"gae_lambda": 0.0, "epochs": 2}


def example(seed, distance=1.0):
    """Logits of π_k and of π, and random steps that do not end an episode."""
    rng = np.random.default_rng(seed)
    old = rng.normal(size=(3, 2))
    new = old + distance * rng.normal(size=(3, 2))
    states = rng.integers(3, size=41).tolist()
    actions = rng.integers(2, size=40).tolist()
    return old, new, Trajectory(states, actions, rng.integers(-16, 17, 40) / 8, False)


@pytest.mark.parametrize("script", [ppo_kl, ppo_clip])
def test_C13_at_theta_k_the_ratio_is_1_and_the_objective_the_mean_advantage(script):
    old, _, tau = example(0)
    flags = {} if script is ppo_clip else {"beta": 1e4}
    gradient, metrics = update_at(script, old, old, [tau], **flags, **TD)
    objective = -metrics["train/policy_loss"]
    assert objective == pytest.approx(tau.rewards.mean(), abs=1e-12)
    assert metrics["train/kl"] == 0
    assert metrics.get("train/clip_fraction", 0) == 0
    # the penalty has no gradient, however large β is
    expected = tau.weighted_scores(softmax(old), tau.rewards / len(tau.rewards))
    assert_allclose(gradient, expected, atol=1e-8)


@pytest.mark.parametrize("beta", [0.0, 0.5, 10.0])
def test_C13_away_from_theta_k_the_penalty_pulls_back(beta):
    # against finite differences of mean(r_t Â_t) - β D̄_KL, written out
    old, new, tau = example(1)
    s, a = tau.states[:-1], tau.actions

    def objective(logits):
        ratio = softmax(logits)[s, a] / softmax(old)[s, a]
        kl = tabular.kl_per_state(softmax(old), softmax(logits))[s].mean()
        return (ratio * tau.rewards).mean() - beta * kl

    gradient, metrics = update_at(ppo_kl, old, new, [tau], beta=beta, **TD)
    expected = tabular.central_differences(objective, new)
    assert_allclose(gradient, expected, atol=1e-8)
    assert -metrics["train/policy_loss"] == pytest.approx(objective(new), abs=1e-12)


FIGURE = [  # sign of A, r, value of the term for |A| = 1, its slope
    # A > 0: the line r up to 1 + ε, then flat
    (+1, 0.0, 0.0, 1),
    (+1, 0.79, 0.79, 1),  # below 1 - ε: not flat, so that a mistake can be made good
    (+1, 1.19, 1.19, 1),
    (+1, 1.21, 1.2, 0),
    (+1, 2.0, 1.2, 0),
    # A < 0: flat up to 1 - ε, then the line -r
    (-1, 0.0, -0.8, 0),
    (-1, 0.79, -0.8, 0),
    (-1, 0.81, -0.81, -1),
    (-1, 1.21, -1.21, -1),  # above 1 + ε: not flat
    (-1, 2.0, -2.0, -1),
    (0, 1.5, 0.0, 0),  # A = 0: flat everywhere
]


def term(ratio, advantage, epsilon=EPSILON):
    """Value and slope with respect to r of one term of L^CLIP."""
    r = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor(advantage, dtype=torch.float64)
    value = ppo_clip.clipped_surrogate(r, advantage, epsilon)
    value.backward()
    return value.item(), r.grad.item()


@pytest.mark.parametrize(("sign", "ratio", "value", "slope"), FIGURE)
def test_C16_the_clip_figure_piece_by_piece(sign, ratio, value, slope):
    for size in 1.0, 0.3, 7.0:
        expected = pytest.approx((size * value, size * slope), abs=1e-12)
        assert term(ratio, sign * size) == expected


@pytest.mark.parametrize("seed", range(3))
def test_C16_the_gradient_of_update_comes_only_from_steps_that_are_not_flat(seed):
    old, new, tau = example(seed, distance=0.7)
    A, visited = tau.rewards, (tau.states[:-1], tau.actions)
    r = softmax(new)[visited] / softmax(old)[visited]
    outside = np.abs(r - 1) > EPSILON
    flat = ((A > 0) & (r > 1 + EPSILON)) | ((A < 0) & (r < 1 - EPSILON))
    assert 0 < flat.sum() < outside.sum()  # all three kinds of step occur
    weights = np.where(flat, 0.0, r * A) / len(A)
    gradient, metrics = update_at(ppo_clip, old, new, [tau], clip_epsilon=EPSILON, **TD)
    expected = tau.weighted_scores(softmax(new), weights)
    assert_allclose(gradient, expected, atol=1e-10)
    assert metrics["train/clip_fraction"] == pytest.approx(outside.mean(), abs=1e-6)


# C21, quiz 3, on figure 1 of Schulman et al. 2017: the left graph rises, and is flat
# beyond 1 + ε; the right one is flat up to 1 - ε, and then falls.
LEFT_GRAPH, RIGHT_GRAPH = [1, 1, 0], [0, -1, -1]


def graph(advantage, epsilon):
    """Signs of the slope of L^CLIP in r: left of 1 - ε, between, right of 1 + ε."""
    left, inside, right = 1 - epsilon - 0.01, 1.0, 1 + epsilon + 0.01
    return [np.sign(term(r, advantage, epsilon)[1]) for r in (left, inside, right)]


def test_C21_quiz_3_the_left_graph_is_A_positive_and_the_right_A_negative_is_true():
    assert graph(+1.0, EPSILON) == LEFT_GRAPH
    assert graph(-1.0, EPSILON) == RIGHT_GRAPH


def test_C21_quiz_3_the_right_graph_is_A_positive_and_the_left_A_negative_is_false():
    assert graph(+1.0, EPSILON) != RIGHT_GRAPH
    assert graph(-1.0, EPSILON) != LEFT_GRAPH


def test_C21_quiz_3_it_depends_on_the_value_of_epsilon_is_false():
    for epsilon in 0.02, 0.1, 0.2, 0.3, 0.5, 0.9, 0.98:
        assert graph(+1.0, epsilon) == LEFT_GRAPH
        assert graph(-1.0, epsilon) == RIGHT_GRAPH
