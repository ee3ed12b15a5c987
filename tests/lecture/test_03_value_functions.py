"""C5: the value functions, and the advantage that they make.

Q^π(s, a) = E_π[r_0 + γ r_1 + γ² r_2 + ... | s_0 = s, a_0 = a]
V^π(s)    = E_π[r_0 + γ r_1 + γ² r_2 + ... | s_0 = s] = E_{a~π}[Q^π(s, a)]
A^π(s, a) = Q^π(s, a) - V^π(s),   so that E_{a~π}[A^π(s, a)] = 0
"""

import numpy as np
import pytest
import tabular
from numpy.testing import assert_allclose

import common


@pytest.mark.parametrize("seed", range(5))
def test_C5_V_is_the_mean_of_Q_and_the_advantage_averages_to_zero(seed):
    rng = np.random.default_rng(seed)
    mdp, pi = tabular.random_mdp(rng, 5, 3, 0.95), tabular.random_policy(rng, 5, 3)
    V, Q, A = mdp.state_values(pi), mdp.action_values(pi), mdp.advantages(pi)
    assert_allclose((pi * Q).sum(axis=1), V, atol=1e-10)
    assert_allclose((pi * A).sum(axis=1), 0, atol=1e-10)
    assert (A.max(axis=1) > 0.01).all()  # some action is better than the average


@pytest.mark.parametrize("seed", range(5))
def test_C5_returns_average_to_V_given_the_state_and_to_Q_given_the_action_too(seed):
    # G_t as rewards_to_go computes it, weighted by the probability of its trajectory
    mdp, logits = tabular.episodic_problem(seed, layers=4, gamma=0.75)
    pi, trajectories = tabular.softmax(logits), mdp.all_trajectories()
    V, Q = mdp.state_values(pi), mdp.action_values(pi)
    rollout = tabular.make_rollout(trajectories, 8)
    p = tabular.probabilities(trajectories, pi)
    returns = common.rewards_to_go(rollout.rewards, rollout.done, 0.75)
    states, actions = rollout.obs[:-1].argmax(axis=2), rollout.actions
    for s, a in np.ndindex(8, 2):
        t, i = np.nonzero(rollout.valid & (states == s))
        assert np.average(returns[t, i], weights=p[i]) == pytest.approx(V[s], abs=1e-10)
        t, i = np.nonzero(rollout.valid & (states == s) & (actions == a))
        average = np.average(returns[t, i], weights=p[i])
        assert average == pytest.approx(Q[s, a], abs=1e-10)
