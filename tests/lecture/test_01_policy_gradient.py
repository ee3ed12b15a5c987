"""C3 and the first quiz: the policy gradient, and what temporal structure does to it.

    ∇J(θ) = E_τ[ R(τ) Σ_t ∇ log π_θ(a_t|s_t) ]            the lecture's first estimator
          = E_τ[ Σ_t ∇ log π_θ(a_t|s_t) Σ_{t'>=t} r_t' ]  with temporal structure

Every expectation is a sum over all trajectories of a small problem, whose returns are
multiples of 1/8: exact in the scripts' float32, so that update() is exact to 1e-8.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tabular import Trajectory, bandit, episodic_problem, estimate, estimates, softmax

import reinforce
import vpg_baseline


def score_times_Q(times_visited, pi, Q):
    """E_π[∇ log π(s, a) Q^π(s, a)], summed over all steps."""
    # ∂ log π(a|s) / ∂ θ[s, b] is 1 at b = a, less π(b|s)
    return times_visited[:, None] * pi * (Q - (pi * Q).sum(axis=1, keepdims=True))


def expected_gradient(mdp, logits):
    """E[ĝ] of reinforce.update, over all trajectories."""
    return estimates(reinforce, mdp, logits).mean()


@pytest.mark.parametrize("weight", ["reward-to-go", "trajectory"])
def test_C3_the_estimate_is_the_mean_over_trajectories_that_the_formula_says(weight):
    mdp, logits = episodic_problem(1)
    trajectories = mdp.all_trajectories()[::5]  # some end early, some go all the way
    assert {len(tau.actions) for tau in trajectories} == {1, 2, 3}
    expected = []
    for tau in trajectories:  # a batch of one trajectory
        returns = tau.returns()
        if weight == "trajectory":
            returns = np.full_like(returns, returns[0])
        expected.append(tau.weighted_scores(softmax(logits), returns))
        computed = estimate(reinforce, logits, [tau], weight=weight)
        assert_allclose(computed, expected[-1], atol=1e-10)
    computed = estimate(reinforce, logits, trajectories, weight=weight)
    assert_allclose(computed, np.mean(expected, axis=0), atol=1e-10)


def test_C3_temporal_structure_keeps_the_mean_and_reduces_the_variance(report):
    ratios = []
    for seed in range(4):
        mdp, logits = episodic_problem(seed)
        gradient = mdp.performance_gradient(logits)
        assert np.abs(gradient).max() > 0.1
        total_return = estimates(reinforce, mdp, logits, weight="trajectory")
        reward_to_go = estimates(reinforce, mdp, logits)
        assert_allclose(total_return.mean(), gradient, atol=1e-8)
        assert_allclose(reward_to_go.mean(), gradient, atol=1e-8)
        past = total_return.g - reward_to_go.g  # Σ_t ∇ log π(a_t|s_t) Σ_{t'<t} r_t'
        assert np.abs(past).max() > 0.1  # not nothing, but 0 on average
        assert_allclose(np.tensordot(total_return.p, past, 1), 0, atol=1e-10)
        ratios.append(reward_to_go.variance() / total_return.variance())
    report(C3_variance_reward_to_go_over_total_return=np.mean(ratios))
    assert max(ratios) < 1


def test_C3_with_a_discount_only_the_factor_gamma_to_the_t_is_missing():
    # R(τ) discounted from 0 on has the exact mean ∇J. G_t is discounted from t on, so
    # the exact estimator would weight step t by γ^t. The scripts leave that out, and
    # their mean is the undiscounted sum over t of E[∇ log π Q^π].
    mdp, logits = episodic_problem(2, gamma=0.5)
    pi, gradient = softmax(logits), mdp.performance_gradient(logits)
    exact = estimates(reinforce, mdp, logits, gamma=0.5, weight="trajectory")
    assert_allclose(exact.mean(), gradient, atol=1e-8)
    times_visited = mdp._replace(gamma=1.0).visits(pi)  # without γ^t
    without_factor = score_times_Q(times_visited, pi, mdp.action_values(pi))
    computed = estimates(reinforce, mdp, logits, gamma=0.5).mean()
    assert_allclose(computed, without_factor, atol=1e-8)
    assert np.abs(without_factor - gradient).max() > 0.01


# C21, quiz 1: select all that are true about policy gradients


def test_C21_quiz_1_statement_1_the_gradient_is_E_of_score_times_Q_is_true():
    for seed in range(3):
        mdp, logits = episodic_problem(seed, layers=2, actions=3)
        pi = softmax(logits)
        expectation = score_times_Q(mdp.visits(pi), pi, mdp.action_values(pi))
        assert_allclose(expectation, mdp.performance_gradient(logits), atol=1e-8)
        assert_allclose(expectation, expected_gradient(mdp, logits), atol=1e-8)


def one_step(script, reward, values=None):
    """Change of log π(a|s) by a step along ĝ, for one action and its reward."""
    logits = np.array([[0.3, -0.2]])
    tau = Trajectory([0, 1], [1], np.array([reward]), True)
    stepped = logits + 0.1 * estimate(script, logits, [tau], values)
    return np.log(softmax(stepped) / softmax(logits))[0, 1]


def test_C21_quiz_1_statement_2_theta_always_goes_up_the_score_is_false():
    # along ∇ ln π(a_t|s_t) the action taken becomes more likely; it need not
    assert one_step(reinforce, reward=1.0) > 0.01
    assert one_step(reinforce, reward=-1.0) < -0.01
    # with a baseline a positive return is not enough: it must beat the expected one
    assert one_step(vpg_baseline, reward=1.0, values=np.array([0.5])) > 0.01
    assert one_step(vpg_baseline, reward=1.0, values=np.array([2.0])) < -0.01


def test_C21_quiz_1_statement_3_higher_Q_gains_probability_on_average_is_true():
    # in every state the expected step moves probability so that the mean Q rises
    for seed in range(3):
        mdp, logits = episodic_problem(seed, layers=2, actions=3)
        stepped = softmax(logits + 1e-3 * expected_gradient(mdp, logits))
        pi = softmax(logits)
        assert (((stepped - pi) * mdp.action_values(pi)).sum(axis=1) > 0).all()
    # a single one may lose: the best action is so rare that the second best gains most
    mdp, logits = bandit([1.25, 1.0, -10.0]), np.log([[0.01, 0.9, 0.09]])
    stepped = softmax(logits + 1e-3 * expected_gradient(mdp, logits))
    assert (stepped > softmax(logits)).tolist() == [[False, True, False]]


HILLS = bandit([0.0, 1.0, 0.0, 2.0, 0.0])
CENTRES = np.arange(-2.0, 3.0)  # action a is the likeliest where θ is near CENTRES[a]


def climb(theta):
    """Gradient ascent on J; π_θ(a) ∝ exp(-4 (θ - c_a)²) can reach every action."""
    for _ in range(40):
        logits = -4 * (theta - CENTRES[None]) ** 2
        slopes = -8 * (theta - CENTRES)  # of the logits; the chain rule does the rest
        gradient = (expected_gradient(HILLS, logits) @ slopes).item()
        theta += 0.2 * gradient
    assert abs(gradient) < 1e-6  # ascent has come to rest
    return theta, HILLS.performance(softmax(logits))


def test_C21_quiz_1_statement_4_reaches_the_global_optimum_of_the_class_is_false(
    report,
):
    low_hill, low = climb(-1.4)
    high_hill, high = climb(0.6)
    report(C21_J_where_gradient_ascent_stays=low, C21_J_of_the_global_optimum=high)
    assert low_hill == pytest.approx(-1, abs=0.05)
    assert high_hill == pytest.approx(1, abs=0.05)
    assert high > 1.8 > 1 > low  # the lower of two hills
