"""C1 and C2: a baseline b(s) does not move the gradient's mean, only its variance.

    ∇J(θ) = E_τ[ Σ_t ∇ log π_θ(a_t|s_t) (G_t - b(s_t)) ]   for any b whatever,
    since E_τ[ ∇ log π_θ(a_t|s_t) b(s_t) ] = 0

A near optimal choice is the expected return from s_t on, b(s_t) ≈ V^π(s_t).

The estimates come from vpg_baseline.update, one for each possible trajectory; means and
variances are sums over all of them. Baselines whose values are multiples of 1/8 lose
nothing in the scripts' float32, and with them the mean is exact to 1e-8.
"""

from itertools import product

import numpy as np
import pytest
from tabular import (
    all_trajectories,
    episodic_mdp,
    estimate,
    estimates,
    exact_args,
    log_policy_gradient,
    make_rollout,
    mean,
    performance_gradient,
    probabilities,
    report,
    softmax,
    state_values,
    total_variance,
)

import common
import reinforce
import vpg_baseline

ARGS = exact_args(vpg_baseline)


def problem(seed, layers=3):
    """A random episodic problem of at most so many steps, and a policy's logits."""
    rng = np.random.default_rng(seed)
    mdp = episodic_mdp(rng, layers, width=2, actions=2)
    return mdp, rng.normal(size=(2 * layers, 2))


def variance(mdp, logits, baseline):
    """Total variance of the estimate ĝ with this baseline."""
    return total_variance(*estimates(vpg_baseline, ARGS, mdp, logits, baseline))


# C1


def test_C1_score_times_baseline_has_mean_zero_at_every_time_step():
    mdp, logits = problem(0)
    pi = softmax(logits)
    trajectories = all_trajectories(mdp)
    weights = probabilities(trajectories, pi)
    b = np.random.default_rng(1).normal(size=6) * 10
    for t in range(3):
        expectation, size = np.zeros_like(pi), 0.0
        for tau, p in zip(trajectories, weights):
            if t < len(tau.actions):
                s, a = tau.states[t], tau.actions[t]
                term = log_policy_gradient(pi, s, a) * b[s]
                expectation += p * term
                size += p * np.abs(term).max()
        assert size > 0.1  # the terms are not small; they cancel
        np.testing.assert_allclose(expectation, 0, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_C1_any_baseline_leaves_the_gradient_unbiased(seed):
    mdp, logits = problem(seed)
    gradient = performance_gradient(mdp, logits)
    rng = np.random.default_rng(100 + seed)
    baselines = {
        "none": np.zeros(6),
        "constant": np.full(6, 5.0),
        "random": rng.integers(-80, 80, size=6) / 8,
        "near V": np.round(8 * state_values(mdp, softmax(logits))) / 8,
    }
    estimates_with = {}
    for name, b in baselines.items():
        p, g = estimates(vpg_baseline, ARGS, mdp, logits, b)
        np.testing.assert_allclose(mean(p, g), gradient, atol=1e-8, err_msg=name)
        estimates_with[name] = g
    changed = np.abs(estimates_with["random"] - estimates_with["none"])
    assert changed.max() > 1  # the single estimates do change, and a lot


def test_C1_a_baseline_of_zero_is_reinforce():
    mdp, logits = problem(3)
    _, with_zero = estimates(vpg_baseline, ARGS, mdp, logits, np.zeros(6))
    _, plain = estimates(reinforce, exact_args(reinforce), mdp, logits)
    np.testing.assert_allclose(with_zero, plain, atol=1e-12)


def test_C1_each_step_is_compared_with_the_baseline_of_its_own_state():
    # and with the one from before the re-fit (exact_args makes the re-fit a big one)
    mdp, logits = problem(4)
    pi, b = softmax(logits), np.array([1.0, -2.0, 3.0, 0.5, -4.0, 2.5])
    for tau in all_trajectories(mdp)[::3]:
        expected = np.zeros_like(pi)
        for t, (s, a) in enumerate(zip(tau.states, tau.actions)):
            score = log_policy_gradient(pi, s, a)
            expected += score * (sum(tau.rewards[t:]) - b[s])
        computed = estimate(vpg_baseline, ARGS, logits, make_rollout([tau], 6), b)
        np.testing.assert_allclose(computed, expected, atol=1e-10)


def test_C1_the_estimate_of_m_trajectories_is_the_mean_of_their_estimates():
    mdp, logits = problem(1)
    b = np.array([1.0, -2.0, 3.0, 0.5, -4.0, 2.5])
    trajectories = all_trajectories(mdp)[::5]
    assert {len(tau.actions) for tau in trajectories} == {1, 2, 3}
    many = exact_args(vpg_baseline, num_envs=len(trajectories))
    alone = [
        estimate(vpg_baseline, ARGS, logits, make_rollout([tau], 6), b)
        for tau in trajectories
    ]
    together = estimate(vpg_baseline, many, logits, make_rollout(trajectories, 6), b)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-10)


def test_C1_the_mean_at_each_step_shortens_the_gradient_and_does_not_turn_it(
    monkeypatch,
):
    # The mean over m trajectories at t has a share of 1/m of the return that it is to
    # judge; the others are independent of this action. So ĝ is 1 - 1/m times as long.
    monkeypatch.setattr(common, "normalize", lambda x, valid: x)  # not scaled as well
    mdp, logits = problem(2, layers=2)
    mdp.P[:2] /= mdp.P[:2].sum(-1, keepdims=True)  # none ends before its second step
    trajectories = all_trajectories(mdp)
    weights = probabilities(trajectories, softmax(logits))
    gradient, size = 0.0, 0.0
    for (one, p), (other, q) in product(zip(trajectories, weights), repeat=2):
        args = exact_args(reinforce, num_envs=2, normalize_advantages=True)
        both = estimate(reinforce, args, logits, make_rollout([one, other], 4))
        gradient, size = gradient + p * q * both, size + p * q * np.abs(both).max()
    assert size > 0.1
    expected = performance_gradient(mdp, logits) * (1 - 1 / 2)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_C1_a_baseline_that_has_seen_this_return_is_biased():
    # what would happen if b were fitted to a trajectory before it judges its actions:
    # the perfect fit b(s_t) = G_t leaves no gradient at all
    mdp, logits = problem(0)
    for tau in all_trajectories(mdp)[::3]:
        b = np.zeros(6)
        for t, s in enumerate(tau.states[:-1]):
            b[s] = sum(tau.rewards[t:])
        computed = estimate(vpg_baseline, ARGS, logits, make_rollout([tau], 6), b)
        np.testing.assert_allclose(computed, 0, atol=1e-12)
    assert np.abs(performance_gradient(mdp, logits)).max() > 0.1


# C2


def variance_ratios(shift):
    """Variance with b = V^π over variance with b = 0, for 15 random problems."""
    ratios = []
    for seed in range(15):
        mdp, logits = problem(seed, layers=2)
        mdp = mdp._replace(r=mdp.r + shift)
        V = state_values(mdp, softmax(logits))
        ratio = variance(mdp, logits, V) / variance(mdp, logits, np.zeros(4))
        ratios.append(ratio)
    return np.array(ratios)


def test_C2_the_expected_return_as_baseline_reduces_the_variance(record_property):
    # rewards from 0 to 3, as in most tasks of one sign: returns are far from 0
    ratios = variance_ratios(shift=1.0)
    report(
        record_property,
        C2_variance_with_V_over_without=round(float(np.median(ratios)), 3),
        C2_worst_of_15_problems=round(ratios.max(), 3),
    )
    assert ratios.max() < 1


def test_C2_where_returns_are_near_zero_anyway_no_baseline_may_be_better(
    record_property,
):
    # V^π is a near optimal baseline, not the optimal one: where returns of both signs
    # happen to suit b = 0, V^π can lose, as it does in a few of these problems
    ratios = variance_ratios(shift=0.0)
    wins = int((ratios < 1).sum())
    report(
        record_property,
        C2_mixed_signs_variance_with_V_over_without=round(float(np.median(ratios)), 3),
        C2_mixed_signs_problems_of_15_in_which_V_is_better=int(wins),
    )
    assert np.median(ratios) < 0.5
    assert len(ratios) / 2 < wins < len(ratios)


def test_C2_the_further_from_the_expected_return_the_larger_the_variance(
    record_property,
):
    mdp, logits = problem(0, layers=2)
    V = state_values(mdp, softmax(logits))
    offsets = 0, 1, 2, 4
    above = [variance(mdp, logits, V + k) for k in offsets]
    below = [variance(mdp, logits, V - k) for k in offsets]
    figures = np.round(above, 2).tolist()
    report(record_property, C2_variance_at_V_plus_0_1_2_4=figures)
    assert above == sorted(above) and below == sorted(below)
    assert above[0] < above[1] and below[0] < below[1]
    # in this problem b = 0 is one of the poor choices
    assert above[0] < variance(mdp, logits, np.zeros(4))


def test_C2_the_best_constant_is_better_than_a_smaller_and_a_larger_one(
    record_property,
):
    # ĝ(c) = X - c Y with Y the sum of the scores: E|X - c Y|² is least at E[XY] / E[YY]
    mdp, logits = problem(0, layers=2)
    p, X = estimates(vpg_baseline, ARGS, mdp, logits, np.zeros(4))
    _, at_one = estimates(vpg_baseline, ARGS, mdp, logits, np.ones(4))
    Y = X - at_one
    best = mean(p, X * Y).sum() / mean(p, Y * Y).sum()
    constants = best + np.array([-2, -0.5, 0, 0.5, 2])
    variances = [variance(mdp, logits, np.full(4, c)) for c in constants]
    report(
        record_property,
        C2_best_constant=round(best, 3),
        C2_variance_at_best_constant=round(variances[2], 3),
        C2_variance_half_below_and_half_above=np.round(variances[1:4:2], 3).tolist(),
    )
    assert variances[0] > variances[1] > variances[2] < variances[3] < variances[4]


def test_C2_the_best_baseline_is_near_the_expected_return_but_not_equal_to_it():
    # one step: the optimum weights the returns by the score's squared length
    mdp, logits = problem(5, layers=1)
    p, _ = estimates(vpg_baseline, ARGS, mdp, logits, np.zeros(2))
    assert len(p) == 4  # two first states, two actions
    V = state_values(mdp, softmax(logits))
    with_V = variance(mdp, logits, V)
    exact_best = np.empty(2)
    for s in range(2):
        pi = softmax(logits)[s]
        lengths = ((np.eye(2) - pi) ** 2).sum(axis=1)
        exact_best[s] = (pi * lengths * mdp.r[s]).sum() / (pi * lengths).sum()
    assert variance(mdp, logits, exact_best) < with_V < variance(mdp, logits, V + 1)
