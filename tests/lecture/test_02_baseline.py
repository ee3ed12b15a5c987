"""C1 and C2: a baseline b(s) does not move the gradient's mean, only its variance.

    ∇J(θ) = E_τ[ Σ_t ∇ log π_θ(a_t|s_t) (G_t - b(s_t)) ]
    since E_τ[ ∇ log π_θ(a_t|s_t) b(s_t) ] = 0 for every function b of the state

Such a b is fixed before the batch is collected. A near optimal one is b(s) ≈ V^π(s).
Baselines in multiples of 1/8 are exact in the scripts' float32.
"""

import numpy as np
from numpy.testing import assert_allclose
from tabular import episodic_problem, estimate, estimates, softmax

import reinforce
import vpg_baseline

B = np.array([1.0, -2.0, 3.0, 0.5, -4.0, 2.5])  # some b(s)


def variance(mdp, logits, baseline):
    """Total variance of the estimate ĝ with this baseline, a number or one a state."""
    values = np.broadcast_to(baseline, len(logits))
    return estimates(vpg_baseline, mdp, logits, values).variance()


def test_C1_any_function_of_the_state_leaves_the_gradient_unbiased():
    mdp, logits = episodic_problem(0)
    gradient = mdp.performance_gradient(logits)
    baselines = {
        "none": np.zeros(6),
        "constant": np.full(6, 5.0),
        "random": np.random.default_rng(100).integers(-80, 80, size=6) / 8,
        "near V": np.round(8 * mdp.state_values(softmax(logits))) / 8,
    }
    found = {}
    for name, b in baselines.items():
        found[name] = estimates(vpg_baseline, mdp, logits, b)
        assert_allclose(found[name].mean(), gradient, atol=1e-8)
    plain = estimates(reinforce, mdp, logits)  # REINFORCE subtracts nothing
    assert_allclose(found["none"].g, plain.g, atol=1e-12)
    # E[∇ log π b(s)] = 0: the single estimates do change, and a lot, but not the mean
    changes = found["random"].g - found["none"].g
    assert np.abs(changes).max() > 1
    assert_allclose(np.tensordot(plain.p, changes, 1), 0, atol=1e-10)


def test_C1_a_baseline_that_has_seen_this_return_is_biased():
    # what would happen if b were fitted to a trajectory before it judges its actions:
    # the perfect fit b(s_t) = G_t leaves no gradient at all
    mdp, logits = episodic_problem(0)
    for tau in mdp.all_trajectories()[::3]:
        b = np.zeros(6)
        b[tau.states[:-1]] = tau.returns()
        computed = estimate(vpg_baseline, logits, [tau], b)
        assert_allclose(computed, 0, atol=1e-12)
    assert np.abs(mdp.performance_gradient(logits)).max() > 0.1


def test_C2_the_expected_return_as_baseline_reduces_the_variance(report):
    # V^π is a near optimal baseline, not the optimal one. Rewards of one sign, as in
    # many tasks, make returns far from 0. Where returns of both signs happen to suit
    # b = 0, V^π can lose, as it does in a few problems.
    one_sign, both_signs = [], []
    for seed in range(10):
        mdp, logits = episodic_problem(seed, layers=2)
        for shift, ratios in (1, one_sign), (0, both_signs):
            shifted = mdp._replace(r=mdp.r + shift)
            V = shifted.state_values(softmax(logits))
            without = variance(shifted, logits, 0.0)
            ratios.append(variance(shifted, logits, V) / without)
    wins = int(np.less(both_signs, 1).sum())
    report(C2_variance_with_V_over_without=np.median(one_sign))
    report(C2_mixed_signs_problems_of_10_in_which_V_is_better=wins)
    assert max(one_sign) < 1
    assert np.median(both_signs) < 0.5 and 5 < wins < 10


def test_C2_the_further_from_the_best_baseline_the_larger_the_variance():
    mdp, logits = episodic_problem(0, layers=2)
    V = mdp.state_values(softmax(logits))
    # with a constant ĝ(c) = X - c Y, Y the sum of the scores; E|X - c Y|² is least at
    p, X = estimates(vpg_baseline, mdp, logits, np.zeros(4))
    Y = X - estimates(vpg_baseline, mdp, logits, np.ones(4)).g
    c = (p @ (X * Y).sum(axis=(1, 2))) / (p @ (Y * Y).sum(axis=(1, 2)))
    for best in V, c:
        for sign in 1, -1:
            baselines = [best + sign * distance for distance in (0, 1, 2, 4)]
            variances = [variance(mdp, logits, b) for b in baselines]
            assert (np.diff(variances) > 0).all()
