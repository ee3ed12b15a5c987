"""The tools of tabular.py, against cases worked out by hand, slow sums and differences.

Everything else in this folder rests on them.
"""

import numpy as np
import pytest
import torch
from tabular import (
    MDP,
    MoveTo,
    SoftmaxPolicy,
    Trajectory,
    bandit,
    episodic_mdp,
    kl_per_state,
    log_policy_gradient,
    make_rollout,
    mean,
    probabilities,
    random_mdp,
    random_policy,
    softmax,
    total_variance,
    values_along,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def corridor(gamma):
    """Two states. Action 0 goes on: 0 → 1 → end. Action 1 stays. Each step costs 1."""
    P = np.zeros((2, 2, 2))
    P[0, 0, 1] = P[0, 1, 0] = P[1, 1, 1] = 1
    return MDP(P, -np.ones((2, 2)), np.array([1.0, 0.0]), gamma)


def test_values_of_a_corridor_are_those_worked_out_by_hand():
    coin = np.full((2, 2), 0.5)  # two steps are needed on average to leave a state
    np.testing.assert_allclose(corridor(1.0).state_values(coin), [-4, -2])
    always_on = np.array([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(corridor(0.5).state_values(always_on), [-1.5, -1])
    q = corridor(0.5).action_values(always_on)
    np.testing.assert_allclose(q, [[-1.5, -1.75], [-1, -1.5]])
    a = corridor(0.5).advantages(always_on)
    np.testing.assert_allclose(a, [[0, -0.25], [0, -0.5]])
    np.testing.assert_allclose(corridor(0.5).performance(always_on), -1.5)
    np.testing.assert_allclose(corridor(1.0).visits(coin), [2, 2])


def test_random_problems_are_made_of_distributions(rng):
    mdp = random_mdp(rng, 4, 3, 0.9)
    assert mdp.P.shape == (4, 3, 4) and mdp.r.shape == (4, 3)
    np.testing.assert_allclose(mdp.P.sum(axis=2), 1)
    np.testing.assert_allclose(mdp.mu.sum(), 1)
    np.testing.assert_allclose(random_policy(rng, 4, 3).sum(axis=1), 1)
    np.testing.assert_allclose(softmax(np.log([[1, 3]])), [[0.25, 0.75]])


def test_an_episodic_problem_goes_from_layer_to_layer_and_may_end_early(rng):
    mdp = episodic_mdp(rng, layers=3, width=2, actions=2)
    assert mdp.mu[:2].sum() == pytest.approx(1) and (mdp.mu[2:] == 0).all()
    for s, _, s_next in np.argwhere(mdp.P):
        assert s_next // 2 == s // 2 + 1
    ends = 1 - mdp.P.sum(axis=2)
    assert (ends[:4] > 0).all() and (ends[:4] < 1).all()
    np.testing.assert_array_equal(ends[4:], 1)
    np.testing.assert_array_equal(mdp.r * 8, np.round(mdp.r * 8))


def test_values_and_visits_equal_their_series(rng):
    mdp, pi = random_mdp(rng, 4, 3, 0.8), random_policy(rng, 4, 3)
    P, r = mdp.transition_matrix(pi), mdp.expected_rewards(pi)
    powers = [0.8**t * np.linalg.matrix_power(P, t) for t in range(200)]
    V, Q, n = mdp.state_values(pi), mdp.action_values(pi), mdp.visits(pi)
    np.testing.assert_allclose(V, sum(powers) @ r, atol=1e-12)
    np.testing.assert_allclose(n, mdp.mu @ sum(powers), atol=1e-12)
    for s, a in np.ndindex(4, 3):
        after = sum(mdp.P[s, a, x] * V[x] for x in range(4))
        assert Q[s, a] == pytest.approx(mdp.r[s, a] + 0.8 * after, abs=1e-12)
    assert mdp.performance(pi) == pytest.approx(n @ r, abs=1e-12)
    np.testing.assert_allclose(mdp.state_distribution(pi).sum(), 1)


def test_trajectories_of_a_corridor_are_those_one_can_list():
    found = corridor(1.0).all_trajectories(horizon=2)
    assert [(tau.states, tau.actions, tau.terminated) for tau in found] == [
        ([0, 1, 2], [0, 0], True),  # state 2 is the end
        ([0, 1, 1], [0, 1], False),
        ([0, 0, 1], [1, 0], False),
        ([0, 0, 0], [1, 1], False),
    ]
    pi = np.array([[0.75, 0.25], [0.5, 0.5]])
    expected = [0.375, 0.375, 0.1875, 0.0625]
    np.testing.assert_allclose(probabilities(found, pi), expected)
    np.testing.assert_array_equal(found[0].rewards, [-1, -1])


def test_trajectory_probabilities_sum_to_1_and_their_returns_average_to_J(rng):
    mdp = episodic_mdp(rng, layers=4, width=2, actions=2, gamma=0.9)
    trajectories, pi = mdp.all_trajectories(), random_policy(rng, 8, 2)
    p = probabilities(trajectories, pi)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    returns = [tau.rewards @ 0.9 ** np.arange(len(tau.rewards)) for tau in trajectories]
    assert p @ returns == pytest.approx(mdp.performance(pi), abs=1e-12)
    cut = random_mdp(rng, 3, 2, 0.9).all_trajectories(horizon=3)
    assert len(cut) == 3 * (2 * 3) ** 3 and not any(tau.terminated for tau in cut)
    p = probabilities(cut, random_policy(rng, 3, 2))
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_the_performance_gradient_is_that_of_a_bandit_worked_out_by_hand():
    # J = Σ_a π_a r_a and ∂J/∂θ_a = π_a (r_a - J)
    problem, logits = bandit([1.0, 2.0, 5.0]), np.log([[0.5, 0.25, 0.25]])
    assert problem.performance(softmax(logits)) == pytest.approx(2.25)
    expected = [[0.5 * -1.25, 0.25 * -0.25, 0.25 * 2.75]]
    gradient = problem.performance_gradient(logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-9)


def test_the_softmax_module_has_the_probabilities_and_gradients_of_the_arrays(rng):
    logits = rng.normal(size=(3, 2))
    policy = SoftmaxPolicy(logits)
    distribution = policy.distribution(torch.eye(4)[:3])
    probs = distribution.probs.detach().numpy()
    np.testing.assert_allclose(probs, softmax(logits), atol=1e-12)
    for s, a in np.ndindex(3, 2):
        policy.zero_grad()
        at_s = policy.distribution(torch.eye(4)[s : s + 1])
        at_s.log_prob(torch.tensor([a])).sum().backward()
        expected = log_policy_gradient(softmax(logits), s, a)
        gradient = policy.logits.grad.numpy()[:3]
        np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_a_rollout_holds_its_trajectories_and_marks_the_rest_as_not_valid():
    ended = Trajectory([1, 2], [1], np.array([0.5]), True, 1.0)  # 2: the end
    cut = Trajectory([0, 0, 1], [1, 0], np.array([-1.0, 3.0]), False, 1.0)
    rollout = make_rollout([ended, cut], states=2)
    assert rollout.obs.shape == (3, 2, 3)
    np.testing.assert_array_equal(rollout.obs.argmax(axis=2), [[1, 0], [2, 0], [0, 1]])
    np.testing.assert_array_equal(rollout.actions[:, 1], [1, 0])
    np.testing.assert_array_equal(rollout.rewards[:, 1], [-1, 3])
    np.testing.assert_array_equal(rollout.valid, [[True, True], [False, True]])
    assert rollout.terminated[0].tolist() == [True, False]
    assert rollout.done[0].tolist() == [True, False]
    assert (rollout.terminated[1, 1], rollout.done[1, 1]) == (False, True)
    assert (rollout.actions[0, 0], rollout.rewards[0, 0]) == (1, 0.5)
    assert rollout.num_steps == 3
    values = values_along(rollout, np.array([10.0, 20.0]))
    np.testing.assert_array_equal(values, [[20, 10], [7, 10], [10, 20]])


def test_mean_variance_and_kl_are_those_worked_out_by_hand():
    weights = np.array([0.25, 0.75])
    x = np.array([[0.0, 2.0], [4.0, 2.0]])
    np.testing.assert_allclose(mean(weights, x), [3, 2])
    assert total_variance(weights, x) == pytest.approx(3)  # 3 and 0
    p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    kl = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    np.testing.assert_allclose(kl_per_state(p, q), [kl])


def test_move_to_puts_the_parameter_where_it_was_told():
    policy = SoftmaxPolicy(np.zeros((1, 2)))
    optimizer = MoveTo(policy.logits, [[1.0, 2.0], [0.0, 0.0]])
    policy.logits.sum().backward()
    optimizer.step()
    assert policy.logits.tolist() == [[1, 2], [0, 0]]
    optimizer.zero_grad()
    assert policy.logits.grad is None
