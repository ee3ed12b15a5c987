"""The tools of tabular.py, against cases worked out by hand.

Everything else in this folder rests on them, and adds to this: V, Q and d are compared
with sums over trajectories and series (C5, C9), and what update() makes of a rollout
with the formula (C1, C3, C4).
"""

import numpy as np
import tabular
from numpy.testing import assert_allclose, assert_array_equal


def corridor(gamma):
    """Two states. Action 0 goes on: 0 → 1 → end. Action 1 stays. Each step costs 1."""
    P = np.zeros((2, 2, 2))
    P[0, 0, 1] = P[0, 1, 0] = P[1, 1, 1] = 1
    return tabular.MDP(P, -np.ones((2, 2)), np.array([1.0, 0.0]), gamma)


def test_values_of_a_corridor_are_those_worked_out_by_hand():
    coin = np.full((2, 2), 0.5)  # two steps are needed on average to leave a state
    assert_allclose(corridor(1.0).state_values(coin), [-4, -2])
    assert_allclose(corridor(1.0).visits(coin), [2, 2])
    always_on = np.array([[1.0, 0.0], [1.0, 0.0]])
    mdp = corridor(0.5)
    assert_allclose(mdp.state_values(always_on), [-1.5, -1])
    assert_allclose(mdp.action_values(always_on), [[-1.5, -1.75], [-1, -1.5]])
    assert_allclose(mdp.advantages(always_on), [[0, -0.25], [0, -0.5]])
    assert_allclose(mdp.performance(always_on), -1.5)


def test_trajectories_of_a_corridor_are_those_one_can_list():
    found = corridor(1.0).all_trajectories(horizon=2)
    assert [(tau.states, tau.actions, tau.terminated) for tau in found] == [
        ([0, 1, 2], [0, 0], True),  # state 2 is the end
        ([0, 1, 1], [0, 1], False),
        ([0, 0, 1], [1, 0], False),
        ([0, 0, 0], [1, 1], False),
    ]
    assert_array_equal(found[0].rewards, [-1, -1])
    pi = np.array([[0.75, 0.25], [0.5, 0.5]])
    expected = [0.375, 0.375, 0.1875, 0.0625]
    assert_allclose(tabular.probabilities(found, pi), expected)


def test_a_rollout_holds_its_trajectories_and_marks_the_rest_as_not_valid():
    ended = tabular.Trajectory([1, 2], [1], np.array([0.5]), True)  # 2: the end
    cut = tabular.Trajectory([0, 0, 1], [1, 0], np.array([-1.0, 3.0]), False)
    rollout = tabular.make_rollout([ended, cut], states=2)
    assert_array_equal(rollout.obs.argmax(axis=2), [[1, 0], [2, 0], [0, 1]])
    assert_array_equal(rollout.actions, [[1, 1], [0, 0]])
    assert_array_equal(rollout.rewards, [[0.5, -1], [99, 3]])
    assert_array_equal(rollout.valid, [[True, True], [False, True]])
    assert_array_equal(rollout.terminated, [[True, False], [True, False]])
    assert_array_equal(rollout.done, [[True, False], [True, True]])
    values = tabular.values_along(rollout, np.array([10.0, 20.0]))
    assert_array_equal(values, [[20, 10], [7, 10], [10, 20]])


def test_mean_and_variance_of_estimates_are_those_worked_out_by_hand():
    x = np.array([[0.0, 2.0], [4.0, 2.0]])
    found = tabular.Estimates(np.array([0.25, 0.75]), x)
    assert_allclose(found.mean(), [3, 2])
    assert_allclose(found.variance(), 3)  # 3 and 0
