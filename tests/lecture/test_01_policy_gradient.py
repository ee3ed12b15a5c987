"""C3 and the first quiz: the policy gradient, and what temporal structure does to it.

    ∇J(θ) = E_τ[ R(τ) Σ_t ∇ log π_θ(a_t|s_t) ]           the lecture's first estimator
          = E_τ[ Σ_t ∇ log π_θ(a_t|s_t) Σ_{t'>=t} r_t' ]  with temporal structure

Both have the same mean, the gradient; the second has the smaller variance, since the
rewards before t cannot depend on a_t and only add noise. (R(τ) and G_t are what
reinforce.py calls --weight trajectory and --weight reward-to-go.)

Every expectation here is a sum over all trajectories of a small problem. Returns are
multiples of 1/8, so that the scripts' conversion to float32 loses nothing: what
update() computes is exact to 1e-8.
"""

import numpy as np
import pytest
import torch
from tabular import (
    MDP,
    SoftmaxPolicy,
    Trajectory,
    action_values,
    all_trajectories,
    episodic_mdp,
    estimate,
    estimates,
    exact_args,
    log_policy_gradient,
    make_rollout,
    mean,
    performance,
    performance_gradient,
    report,
    run_update,
    softmax,
    total_variance,
    visits,
)

import reinforce
import vpg_baseline

REWARD_TO_GO = exact_args(reinforce, weight="reward-to-go")
TRAJECTORY = exact_args(reinforce, weight="trajectory")


def problem(seed, layers=3, actions=2, gamma=1.0):
    """A random episodic problem of at most so many steps, and a policy's logits."""
    rng = np.random.default_rng(seed)
    mdp = episodic_mdp(rng, layers, width=2, actions=actions, gamma=gamma)
    return mdp, rng.normal(size=(2 * layers, actions))


def bandit(rewards):
    """One state, one step; action a earns rewards[a]."""
    actions = len(rewards)
    r = np.array([rewards], dtype=float)
    return MDP(np.zeros((1, actions, 1)), r, np.ones(1), 1.0)


def expected_gradient(mdp, logits):
    """E[ĝ] of reinforce.update, over all trajectories."""
    return mean(*estimates(reinforce, REWARD_TO_GO, mdp, logits))


# C3


def test_C3_the_estimate_of_one_trajectory_is_the_sum_that_the_formula_says():
    mdp, logits = problem(0)
    pi = softmax(logits)
    for tau in all_trajectories(mdp)[::6]:
        with_structure, without = np.zeros_like(pi), np.zeros_like(pi)
        for t, (s, a) in enumerate(zip(tau.states, tau.actions)):
            with_structure += log_policy_gradient(pi, s, a) * sum(tau.rewards[t:])
            without += log_policy_gradient(pi, s, a) * sum(tau.rewards)
        rollout = make_rollout([tau], states=6)
        for args, expected in (REWARD_TO_GO, with_structure), (TRAJECTORY, without):
            computed = estimate(reinforce, args, logits, rollout)
            np.testing.assert_allclose(computed, expected, atol=1e-10)


def test_C3_the_estimate_of_m_trajectories_is_the_mean_of_their_estimates():
    mdp, logits = problem(1)
    trajectories = all_trajectories(mdp)[::5]  # some end early, some go all the way
    assert {len(tau.actions) for tau in trajectories} == {1, 2, 3}
    for weight in "reward-to-go", "trajectory":
        one = exact_args(reinforce, weight=weight)
        many = exact_args(reinforce, weight=weight, num_envs=len(trajectories))
        alone = [
            estimate(reinforce, one, logits, make_rollout([tau], 6))
            for tau in trajectories
        ]
        together = estimate(reinforce, many, logits, make_rollout(trajectories, 6))
        np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-10)


@pytest.mark.parametrize("seed", range(2))
def test_C3_both_weights_have_the_gradient_of_J_as_their_mean(seed):
    mdp, logits = problem(seed)
    gradient = performance_gradient(mdp, logits)
    assert np.abs(gradient).max() > 0.1
    for args in REWARD_TO_GO, TRAJECTORY:
        p, g = estimates(reinforce, args, mdp, logits)
        np.testing.assert_allclose(mean(p, g), gradient, atol=1e-8)


def test_C3_temporal_structure_reduces_the_variance(record_property):
    ratios = []
    for seed in range(5):
        mdp, logits = problem(seed)
        p, total_return = estimates(reinforce, TRAJECTORY, mdp, logits)
        _, reward_to_go = estimates(reinforce, REWARD_TO_GO, mdp, logits)
        ratio = total_variance(p, reward_to_go) / total_variance(p, total_return)
        ratios.append(ratio)
    report(
        record_property,
        C3_variance_reward_to_go_over_total_return=round(float(np.mean(ratios)), 3),
        C3_worst_of_5_problems=round(max(ratios), 3),
    )
    assert max(ratios) < 1


def test_C3_past_rewards_times_the_score_average_to_zero():
    # the terms that temporal structure drops: E[∇ log π(a_t|s_t) r_t'] for t' < t
    mdp, logits = problem(4)
    pi = softmax(logits)
    trajectories = all_trajectories(mdp)
    p, total_return = estimates(reinforce, TRAJECTORY, mdp, logits)
    _, reward_to_go = estimates(reinforce, REWARD_TO_GO, mdp, logits)
    dropped = total_return - reward_to_go
    by_hand = np.zeros_like(dropped)
    for i, tau in enumerate(trajectories):
        for t, (s, a) in enumerate(zip(tau.states, tau.actions)):
            by_hand[i] += log_policy_gradient(pi, s, a) * sum(tau.rewards[:t])
    np.testing.assert_allclose(dropped, by_hand, atol=1e-10)
    assert np.abs(dropped).max() > 0.1
    np.testing.assert_allclose(mean(p, dropped), 0, atol=1e-10)


def test_C3_with_a_discount_only_the_factor_gamma_to_the_t_is_missing():
    # R(τ) discounted from 0 on has the exact mean ∇J. G_t is discounted from t on, so
    # the exact estimator would weight step t by γ^t; the scripts leave that out, and
    # their mean is the undiscounted sum over t of E[∇ log π Q^π].
    mdp, logits = problem(2, gamma=0.5)
    pi = softmax(logits)
    p, g = estimates(reinforce, exact_args(reinforce, gamma=0.5), mdp, logits)
    args = exact_args(reinforce, gamma=0.5, weight="trajectory")
    _, exact = estimates(reinforce, args, mdp, logits)
    gradient = performance_gradient(mdp, logits)
    np.testing.assert_allclose(mean(p, exact), gradient, atol=1e-8)
    times_visited = visits(mdp._replace(gamma=1.0), pi)  # without γ^t
    Q, without_factor = action_values(mdp, pi), np.zeros_like(pi)
    for s, a in np.ndindex(*pi.shape):
        score = log_policy_gradient(pi, s, a)
        without_factor += times_visited[s] * pi[s, a] * score * Q[s, a]
    np.testing.assert_allclose(mean(p, g), without_factor, atol=1e-8)
    assert np.abs(without_factor - gradient).max() > 0.01


# C21, quiz 1: select all that are true about policy gradients


@pytest.mark.parametrize("seed", range(3))
def test_C21_quiz_1_statement_1_the_gradient_is_E_of_score_times_Q_is_true(seed):
    mdp, logits = problem(seed, layers=2, actions=3)
    pi = softmax(logits)
    Q, n = action_values(mdp, pi), visits(mdp, pi)
    expectation = np.zeros_like(pi)  # E_π[∇ log π(s, a) Q^π(s, a)], over all steps
    for s, a in np.ndindex(*pi.shape):
        expectation += n[s] * pi[s, a] * log_policy_gradient(pi, s, a) * Q[s, a]
    gradient = performance_gradient(mdp, logits)
    np.testing.assert_allclose(expectation, gradient, atol=1e-8)
    np.testing.assert_allclose(expectation, expected_gradient(mdp, logits), atol=1e-8)


def one_step(script, reward, values=None):
    """Change of log π(a|s) by one SGD step on a trajectory: one action, one reward."""
    tau = Trajectory([0, 1], [1], np.array([reward]), True, 1.0)
    rollout = make_rollout([tau], states=1)
    policy = SoftmaxPolicy(np.array([[0.3, -0.2]]))
    before = policy.distribution(torch.eye(2)[:1]).log_prob(torch.tensor([1])).item()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    run_update(script, exact_args(script), policy, optimizer, rollout, values)
    after = policy.distribution(torch.eye(2)[:1]).log_prob(torch.tensor([1])).item()
    return after - before


def test_C21_quiz_1_statement_2_theta_always_goes_up_the_score_is_false():
    # along ∇ ln π(a_t|s_t) the action taken becomes more likely; it need not
    assert one_step(reinforce, reward=1.0) > 0.01
    assert one_step(reinforce, reward=-1.0) < -0.01
    # with a baseline not even a positive return suffices: it must beat the expected one
    assert one_step(vpg_baseline, reward=1.0, values=np.array([0.5])) > 0.01
    assert one_step(vpg_baseline, reward=1.0, values=np.array([2.0])) < -0.01


@pytest.mark.parametrize("seed", range(5))
def test_C21_quiz_1_statement_3_higher_Q_gains_probability_on_average_is_true(seed):
    # in every state the expected step moves probability so that the mean Q rises
    mdp, logits = problem(seed, layers=2, actions=3)
    pi, Q = softmax(logits), action_values(mdp, softmax(logits))
    stepped = softmax(logits + 1e-3 * expected_gradient(mdp, logits))
    gains = ((stepped - pi) * Q).sum(axis=1)
    assert (gains > 0).all()


def test_C21_quiz_1_statement_3_says_on_average_because_a_single_one_may_lose():
    # the best action is so rare that most of the gain goes to the second best
    logits = np.log([[0.01, 0.9, 0.09]])
    mdp = bandit([1.25, 1.0, -10.0])
    stepped = softmax(logits + 1e-3 * expected_gradient(mdp, logits))
    gained = stepped > softmax(logits)
    assert gained.tolist() == [[False, True, False]]


HILLS = bandit([0.0, 1.0, 0.0, 2.0, 0.0])
CENTRES = np.arange(-2.0, 3.0)  # action a is the likeliest where θ is near CENTRES[a]


class OneParameterPolicy(torch.nn.Module):
    """π_θ(a) ∝ exp(-4 (θ - c_a)²): a policy class that can reach every action."""

    def __init__(self, theta):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def distribution(self, obs):
        logits = -4 * (self.theta - torch.tensor(CENTRES)) ** 2
        return torch.distributions.Categorical(logits=logits.expand(len(obs), -1))

    def probabilities(self):
        with torch.no_grad():
            return self.distribution(torch.zeros(1, 1)).probs.numpy()


def climb(theta, steps=40):
    """Gradient ascent on J, with the exact mean of reinforce.update's gradients."""
    policy = OneParameterPolicy(theta)
    stay = torch.optim.SGD(policy.parameters(), lr=0.0)
    rollouts = [make_rollout([tau], 1) for tau in all_trajectories(HILLS)]
    for _ in range(steps):
        gradient = 0
        for rollout, p in zip(rollouts, policy.probabilities()[0]):
            run_update(reinforce, REWARD_TO_GO, policy, stay, rollout)
            gradient -= p * policy.theta.grad
        with torch.no_grad():
            policy.theta += 0.2 * gradient
    return policy.theta.item(), performance(HILLS, policy.probabilities()), gradient


def test_C21_quiz_1_statement_4_reaches_the_global_optimum_of_the_class_is_false(
    record_property,
):
    low_hill, low, slope = climb(-1.4)
    high_hill, high, _ = climb(0.6)
    report(
        record_property,
        C21_J_where_gradient_ascent_stays=round(low, 3),
        C21_J_of_the_global_optimum=round(high, 3),
    )
    assert low_hill == pytest.approx(-1, abs=0.05)  # ascent has come to rest ...
    assert abs(slope.item()) < 1e-6
    assert high_hill == pytest.approx(1, abs=0.05)
    assert high > 1.8 > 1 > low  # ... on the lower of two hills
