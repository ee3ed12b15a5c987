"""C3 and the first quiz: the policy gradient, and what temporal structure does to it.

    ∇J(θ) = E_τ[ R(τ) Σ_t ∇ log π_θ(a_t|s_t) ]            the lecture's first estimator
          = E_τ[ Σ_t ∇ log π_θ(a_t|s_t) Σ_{t'>=t} r_t' ]  with temporal structure

Both have the same mean, the gradient. The second has the smaller variance: the rewards
before t do not depend on a_t and only add noise. reinforce.py calls R(τ) and G_t
--weight trajectory and --weight reward-to-go.

Every expectation here is a sum over all trajectories of a small problem. Returns are
multiples of 1/8, so that nothing is lost when the scripts convert them to float32: what
update() computes is exact to 1e-8.
"""

import numpy as np
import pytest
import torch
from tabular import (
    SoftmaxPolicy,
    Trajectory,
    bandit,
    episodic_problem,
    estimate,
    estimates,
    exact_args,
    log_policy_gradient,
    make_rollout,
    mean,
    run_update,
    softmax,
    total_variance,
)

import reinforce
import vpg_baseline

REWARD_TO_GO = exact_args(reinforce, weight="reward-to-go")
TRAJECTORY = exact_args(reinforce, weight="trajectory")


def expected_gradient(mdp, logits):
    """E[ĝ] of reinforce.update, over all trajectories."""
    return mean(*estimates(reinforce, REWARD_TO_GO, mdp, logits))


def formula(tau, pi, weight):
    """Σ_t ∇ log π(a_t|s_t) times G_t or R(τ), written out."""
    total = np.zeros_like(pi)
    for t, (s, a) in enumerate(zip(tau.states, tau.actions)):
        first = t if weight == "reward-to-go" else 0
        total += log_policy_gradient(pi, s, a) * sum(tau.rewards[first:])
    return total


# C3


@pytest.mark.parametrize("weight", ["reward-to-go", "trajectory"])
def test_C3_the_estimate_is_the_mean_over_trajectories_that_the_formula_says(weight):
    mdp, logits = episodic_problem(1)
    trajectories = mdp.all_trajectories()[::5]  # some end early, some go all the way
    assert {len(tau.actions) for tau in trajectories} == {1, 2, 3}
    expected = [formula(tau, softmax(logits), weight) for tau in trajectories]
    for tau, g in zip(trajectories, expected):  # a batch of one trajectory
        args = exact_args(reinforce, weight=weight)
        computed = estimate(reinforce, args, logits, make_rollout([tau], 6))
        np.testing.assert_allclose(computed, g, atol=1e-10)
    args = exact_args(reinforce, weight=weight, num_envs=len(trajectories))
    computed = estimate(reinforce, args, logits, make_rollout(trajectories, 6))
    np.testing.assert_allclose(computed, np.mean(expected, axis=0), atol=1e-10)


@pytest.mark.parametrize("weight", ["reward-to-go", "trajectory"])
def test_C3_a_batch_in_which_every_trajectory_earns_the_same_still_gives_a_gradient(
    weight,
):
    # with any baseline inside, be it the mean at each t or that of the batch, ĝ were 0
    logits, equal = np.array([[0.5, -0.5], [0.25, 0.0]]), np.array([0.5, 1.0])
    trajectories = [
        Trajectory([0, 1, 2], actions, equal, True, 1.0)
        for actions in ([0, 1], [0, 0], [1, 0], [0, 0])
    ]
    args = exact_args(reinforce, weight=weight, num_envs=4)
    computed = estimate(reinforce, args, logits, make_rollout(trajectories, 2))
    by_hand = [formula(tau, softmax(logits), weight) for tau in trajectories]
    np.testing.assert_allclose(computed, np.mean(by_hand, axis=0), atol=1e-10)
    assert np.abs(computed).max(axis=1).min() > 0.01


def test_C3_temporal_structure_keeps_the_mean_and_reduces_the_variance(report):
    ratios = []
    for seed in range(4):
        mdp, logits = episodic_problem(seed)
        gradient = mdp.performance_gradient(logits)
        assert np.abs(gradient).max() > 0.1
        p, total_return = estimates(reinforce, TRAJECTORY, mdp, logits)
        _, reward_to_go = estimates(reinforce, REWARD_TO_GO, mdp, logits)
        np.testing.assert_allclose(mean(p, total_return), gradient, atol=1e-8)
        np.testing.assert_allclose(mean(p, reward_to_go), gradient, atol=1e-8)
        ratio = total_variance(p, reward_to_go) / total_variance(p, total_return)
        ratios.append(ratio)
    report(C3_variance_reward_to_go_over_total_return=np.mean(ratios))
    assert max(ratios) < 1


def test_C3_past_rewards_times_the_score_average_to_zero():
    # the terms that temporal structure drops: E[∇ log π(a_t|s_t) r_t'] for t' < t
    mdp, logits = episodic_problem(4)
    p, total_return = estimates(reinforce, TRAJECTORY, mdp, logits)
    _, reward_to_go = estimates(reinforce, REWARD_TO_GO, mdp, logits)
    dropped = total_return - reward_to_go
    assert np.abs(dropped).max() > 0.1
    np.testing.assert_allclose(mean(p, dropped), 0, atol=1e-10)


def test_C3_with_a_discount_only_the_factor_gamma_to_the_t_is_missing():
    # R(τ) discounted from 0 on has the exact mean ∇J. G_t is discounted from t on, so
    # the exact estimator would weight step t by γ^t. The scripts leave that out, and
    # their mean is the undiscounted sum over t of E[∇ log π Q^π].
    mdp, logits = episodic_problem(2, gamma=0.5)
    pi = softmax(logits)
    p, g = estimates(reinforce, exact_args(reinforce, gamma=0.5), mdp, logits)
    args = exact_args(reinforce, gamma=0.5, weight="trajectory")
    _, exact = estimates(reinforce, args, mdp, logits)
    gradient = mdp.performance_gradient(logits)
    np.testing.assert_allclose(mean(p, exact), gradient, atol=1e-8)
    times_visited = mdp._replace(gamma=1.0).visits(pi)  # without γ^t
    Q, without_factor = mdp.action_values(pi), np.zeros_like(pi)
    for s, a in np.ndindex(*pi.shape):
        score = log_policy_gradient(pi, s, a)
        without_factor += times_visited[s] * pi[s, a] * score * Q[s, a]
    np.testing.assert_allclose(mean(p, g), without_factor, atol=1e-8)
    assert np.abs(without_factor - gradient).max() > 0.01


# C21, quiz 1: select all that are true about policy gradients


def test_C21_quiz_1_statement_1_the_gradient_is_E_of_score_times_Q_is_true():
    for seed in range(3):
        mdp, logits = episodic_problem(seed, layers=2, actions=3)
        pi = softmax(logits)
        Q, n = mdp.action_values(pi), mdp.visits(pi)
        expectation = np.zeros_like(pi)  # E_π[∇ log π(s, a) Q^π(s, a)], over all steps
        for s, a in np.ndindex(*pi.shape):
            expectation += n[s] * pi[s, a] * log_policy_gradient(pi, s, a) * Q[s, a]
        gradient, g = mdp.performance_gradient(logits), expected_gradient(mdp, logits)
        np.testing.assert_allclose(expectation, gradient, atol=1e-8)
        np.testing.assert_allclose(expectation, g, atol=1e-8)


def one_step(script, reward, values=None):
    """Change of log π(a|s) by one SGD step on a trajectory: one action, one reward."""
    tau = Trajectory([0, 1], [1], np.array([reward]), True, 1.0)
    policy = SoftmaxPolicy(np.array([[0.3, -0.2]]))

    def log_prob():
        distribution = policy.distribution(torch.eye(2)[:1])
        return distribution.log_prob(torch.tensor([1])).item()

    before = log_prob()
    optimizer, rollout = (
        torch.optim.SGD(policy.parameters(), 0.1),
        make_rollout([tau], 1),
    )
    run_update(script, exact_args(script), policy, optimizer, rollout, values)
    return log_prob() - before


def test_C21_quiz_1_statement_2_theta_always_goes_up_the_score_is_false():
    # along ∇ ln π(a_t|s_t) the action taken becomes more likely; it need not
    assert one_step(reinforce, reward=1.0) > 0.01
    assert one_step(reinforce, reward=-1.0) < -0.01
    # with a baseline a positive return is not enough: it must beat the expected one
    assert one_step(vpg_baseline, reward=1.0, values=np.array([0.5])) > 0.01
    assert one_step(vpg_baseline, reward=1.0, values=np.array([2.0])) < -0.01


def test_C21_quiz_1_statement_3_higher_Q_gains_probability_on_average_is_true():
    # in every state the expected step moves probability so that the mean Q rises
    for seed in range(5):
        mdp, logits = episodic_problem(seed, layers=2, actions=3)
        pi, Q = softmax(logits), mdp.action_values(softmax(logits))
        stepped = softmax(logits + 1e-3 * expected_gradient(mdp, logits))
        assert (((stepped - pi) * Q).sum(axis=1) > 0).all()


def test_C21_quiz_1_statement_3_says_on_average_because_a_single_one_may_lose():
    # the best action is so rare that most of the gain goes to the second best
    logits = np.log([[0.01, 0.9, 0.09]])
    mdp = bandit([1.25, 1.0, -10.0])
    stepped = softmax(logits + 1e-3 * expected_gradient(mdp, logits))
    assert (stepped > softmax(logits)).tolist() == [[False, True, False]]


HILLS = bandit([0.0, 1.0, 0.0, 2.0, 0.0])
CENTRES = np.arange(-2.0, 3.0)  # action a is the likeliest where θ is near CENTRES[a]


def climb(theta, steps=40):
    """Gradient ascent on J; π_θ(a) ∝ exp(-4 (θ - c_a)²) can reach every action."""
    for _ in range(steps):
        logits = -4 * (theta - CENTRES[None]) ** 2
        slopes = -8 * (theta - CENTRES)  # of the logits; the chain rule does the rest
        gradient = (expected_gradient(HILLS, logits) @ slopes).item()
        theta += 0.2 * gradient
    return theta, HILLS.performance(softmax(logits)), gradient


def test_C21_quiz_1_statement_4_reaches_the_global_optimum_of_the_class_is_false(
    report,
):
    low_hill, low, slope = climb(-1.4)
    high_hill, high, _ = climb(0.6)
    report(C21_J_where_gradient_ascent_stays=low, C21_J_of_the_global_optimum=high)
    assert low_hill == pytest.approx(-1, abs=0.05)  # ascent has come to rest ...
    assert abs(slope) < 1e-6
    assert high_hill == pytest.approx(1, abs=0.05)
    assert high > 1.8 > 1 > low  # ... on the lower of two hills
