"""C1 and C2: a baseline b(s) does not move the gradient's mean, only its variance.

    ∇J(θ) = E_τ[ Σ_t ∇ log π_θ(a_t|s_t) (G_t - b(s_t)) ]
    since E_τ[ ∇ log π_θ(a_t|s_t) b(s_t) ] = 0 for every function b of the state

The function must be fixed before the batch is collected: a b that was fitted to the
return of a_t depends on a_t. A near optimal choice is the expected return from s_t on,
b(s_t) ≈ V^π(s_t).

The estimates come from vpg_baseline.update, one for each possible trajectory; means and
variances are sums over all of them. Baselines whose values are multiples of 1/8 lose
nothing in the scripts' float32, and with them the mean is exact to 1e-8.
"""

import numpy as np
from tabular import (
    episodic_problem,
    estimate,
    estimates,
    exact_args,
    log_policy_gradient,
    make_rollout,
    mean,
    probabilities,
    softmax,
    total_variance,
)

import reinforce
import vpg_baseline

ARGS = exact_args(vpg_baseline)
B = np.array([1.0, -2.0, 3.0, 0.5, -4.0, 2.5])  # some b(s)


def variance(mdp, logits, baseline):
    """Total variance of the estimate ĝ with this baseline."""
    return total_variance(*estimates(vpg_baseline, ARGS, mdp, logits, baseline))


# C1


def test_C1_score_times_baseline_has_mean_zero_at_every_time_step():
    mdp, logits = episodic_problem(0)
    pi = softmax(logits)
    trajectories = mdp.all_trajectories()
    weights = probabilities(trajectories, pi)
    for t in range(3):
        expectation, size = np.zeros_like(pi), 0.0
        for tau, p in zip(trajectories, weights):
            if t < len(tau.actions):
                s, a = tau.states[t], tau.actions[t]
                term = log_policy_gradient(pi, s, a) * B[s]
                expectation += p * term
                size += p * np.abs(term).max()
        assert size > 0.1  # the terms are not small; they cancel
        np.testing.assert_allclose(expectation, 0, atol=1e-12)


def test_C1_any_function_of_the_state_leaves_the_gradient_unbiased():
    mdp, logits = episodic_problem(0)
    gradient = mdp.performance_gradient(logits)
    baselines = {
        "none": np.zeros(6),
        "constant": np.full(6, 5.0),
        "random": np.random.default_rng(100).integers(-80, 80, size=6) / 8,
        "near V": np.round(8 * mdp.state_values(softmax(logits))) / 8,
    }
    g = {}
    for name, b in baselines.items():
        p, g[name] = estimates(vpg_baseline, ARGS, mdp, logits, b)
        np.testing.assert_allclose(mean(p, g[name]), gradient, atol=1e-8)
    changed = np.abs(g["random"] - g["none"])
    assert changed.max() > 1  # the single estimates do change, and a lot


def test_C1_a_baseline_of_zero_is_reinforce():
    mdp, logits = episodic_problem(3, layers=2)
    _, with_zero = estimates(vpg_baseline, ARGS, mdp, logits, np.zeros(4))
    _, plain = estimates(reinforce, exact_args(reinforce), mdp, logits)
    np.testing.assert_allclose(with_zero, plain, atol=1e-12)


def test_C1_reinforce_subtracts_nothing():
    # A constant more in every return changes every estimate by as many scores. If the
    # mean of the batch, or of a time step, were subtracted, it would change nothing.
    mdp, logits = episodic_problem(3, layers=2)
    pi, trajectories = softmax(logits), mdp.all_trajectories()
    changes = []
    for tau in trajectories:
        final = np.zeros(len(tau.rewards))
        final[-1] = 4.0
        richer = tau._replace(rewards=tau.rewards + final)
        for weight in "reward-to-go", "trajectory":
            args = exact_args(reinforce, weight=weight, num_envs=2)
            poor, rich = (
                estimate(reinforce, args, logits, make_rollout([x, x], 4))
                for x in (tau, richer)
            )
            scores = sum(
                log_policy_gradient(pi, s, a) for s, a in zip(tau.states, tau.actions)
            )
            np.testing.assert_allclose(rich - poor, 4 * scores, atol=1e-10)
        changes.append(rich - poor)
    # the constant is minus a baseline: on average it makes no difference
    expectation = mean(probabilities(trajectories, pi), np.array(changes))
    np.testing.assert_allclose(expectation, 0, atol=1e-10)


def test_C1_each_step_is_compared_with_the_baseline_of_its_own_state():
    # and with the one from before the re-fit, which run_update makes a big one
    mdp, logits = episodic_problem(1)
    pi, trajectories = softmax(logits), mdp.all_trajectories()[::5]
    assert {len(tau.actions) for tau in trajectories} == {1, 2, 3}
    expected = np.zeros((len(trajectories), *pi.shape))
    for g, tau in zip(expected, trajectories):
        for t, (s, a) in enumerate(zip(tau.states, tau.actions)):
            g += log_policy_gradient(pi, s, a) * (sum(tau.rewards[t:]) - B[s])
        computed = estimate(vpg_baseline, ARGS, logits, make_rollout([tau], 6), B)
        np.testing.assert_allclose(computed, g, atol=1e-10)
    # and the estimate of m trajectories is the mean of theirs
    args = exact_args(vpg_baseline, num_envs=len(trajectories))
    computed = estimate(vpg_baseline, args, logits, make_rollout(trajectories, 6), B)
    np.testing.assert_allclose(computed, expected.mean(axis=0), atol=1e-10)


def test_C1_a_baseline_that_has_seen_this_return_is_biased():
    # what would happen if b were fitted to a trajectory before it judges its actions:
    # the perfect fit b(s_t) = G_t leaves no gradient at all
    mdp, logits = episodic_problem(0)
    for tau in mdp.all_trajectories()[::3]:
        b = np.zeros(6)
        for t, s in enumerate(tau.states[:-1]):
            b[s] = sum(tau.rewards[t:])
        computed = estimate(vpg_baseline, ARGS, logits, make_rollout([tau], 6), b)
        np.testing.assert_allclose(computed, 0, atol=1e-12)
    assert np.abs(mdp.performance_gradient(logits)).max() > 0.1


# C2


def variance_ratios(shift):
    """Variance with b = V^π over variance with b = 0, for ten random problems."""
    ratios = []
    for seed in range(10):
        mdp, logits = episodic_problem(seed, layers=2)
        mdp = mdp._replace(r=mdp.r + shift)
        V = mdp.state_values(softmax(logits))
        ratio = variance(mdp, logits, V) / variance(mdp, logits, np.zeros(4))
        ratios.append(ratio)
    return np.array(ratios)


def test_C2_the_expected_return_as_baseline_reduces_the_variance(report):
    # rewards from 0 to 3: all of one sign, as in many tasks, so returns are far from 0
    ratios = variance_ratios(shift=1.0)
    report(C2_variance_with_V_over_without=np.median(ratios))
    assert ratios.max() < 1


def test_C2_where_returns_are_near_zero_anyway_no_baseline_may_be_better(report):
    # V^π is a near optimal baseline, not the optimal one: where returns of both signs
    # happen to suit b = 0, V^π can lose, as it does in a few of these problems
    ratios = variance_ratios(shift=0.0)
    wins = int((ratios < 1).sum())
    report(C2_mixed_signs_problems_of_10_in_which_V_is_better=wins)
    assert np.median(ratios) < 0.5
    assert len(ratios) / 2 < wins < len(ratios)


def test_C2_the_further_from_the_expected_return_the_larger_the_variance():
    mdp, logits = episodic_problem(0, layers=2)
    V = mdp.state_values(softmax(logits))
    offsets = 0, 1, 2, 4
    above = [variance(mdp, logits, V + k) for k in offsets]
    below = [variance(mdp, logits, V - k) for k in offsets]
    assert (np.diff(above) > 0).all() and (np.diff(below) > 0).all()
    # in this problem b = 0 is one of the poor choices
    assert above[0] < variance(mdp, logits, np.zeros(4))


def test_C2_the_best_constant_is_better_than_a_smaller_and_a_larger_one():
    # ĝ(c) = X - c Y with Y the sum of the scores: E|X - c Y|² is least at E[XY] / E[YY]
    mdp, logits = episodic_problem(0, layers=2)
    p, X = estimates(vpg_baseline, ARGS, mdp, logits, np.zeros(4))
    _, at_one = estimates(vpg_baseline, ARGS, mdp, logits, np.ones(4))
    Y = X - at_one
    best = mean(p, X * Y).sum() / mean(p, Y * Y).sum()
    constants = best + np.array([-2, -0.5, 0, 0.5, 2])
    variances = [variance(mdp, logits, np.full(4, c)) for c in constants]
    assert variances[0] > variances[1] > variances[2] < variances[3] < variances[4]


def test_C2_the_best_baseline_is_near_the_expected_return_but_not_equal_to_it():
    # one step: the optimum weights the returns by the score's squared length
    mdp, logits = episodic_problem(5, layers=1)
    pi = softmax(logits)
    lengths = np.array([((np.eye(2) - row) ** 2).sum(axis=1) for row in pi])
    best = (pi * lengths * mdp.r).sum(axis=1) / (pi * lengths).sum(axis=1)
    V = mdp.state_values(pi)
    with_V = variance(mdp, logits, V)
    assert variance(mdp, logits, best) < with_V < variance(mdp, logits, V + 1)
