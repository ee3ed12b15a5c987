"""C5: the value functions, and the advantage that they make.

Q^π(s, a) = E_π[r_0 + γ r_1 + γ² r_2 + ... | s_0 = s, a_0 = a]
V^π(s)    = E_π[r_0 + γ r_1 + γ² r_2 + ... | s_0 = s] = E_{a~π}[Q^π(s, a)]
A^π(s, a) = Q^π(s, a) - V^π(s),   so that E_{a~π}[A^π(s, a)] = 0
"""

import numpy as np
import pytest
from tabular import (
    episodic_mdp,
    make_rollout,
    probabilities,
    random_mdp,
    random_policy,
)

import common


@pytest.fixture(params=range(5))
def rng(request):
    return np.random.default_rng(request.param)


def test_C5_V_is_the_mean_of_Q_and_the_advantage_averages_to_zero(rng):
    mdp, pi = random_mdp(rng, 5, 3, 0.95), random_policy(rng, 5, 3)
    V, Q, A = mdp.state_values(pi), mdp.action_values(pi), mdp.advantages(pi)
    np.testing.assert_allclose((pi * Q).sum(axis=1), V, atol=1e-10)
    np.testing.assert_allclose(A, Q - V[:, None], atol=1e-12)
    np.testing.assert_allclose((pi * A).sum(axis=1), 0, atol=1e-10)
    assert (A.max(axis=1) > 0.01).all()  # some action is better than the average


def test_C5_returns_average_to_V_given_the_state_and_to_Q_given_the_action_too(rng):
    # G_t as rewards_to_go computes it, weighted by the probability of its trajectory
    mdp = episodic_mdp(rng, layers=4, width=2, actions=2, gamma=0.75)
    pi = random_policy(rng, 8, 2)
    V, Q = mdp.state_values(pi), mdp.action_values(pi)
    trajectories = mdp.all_trajectories()
    rollout, p = make_rollout(trajectories, 8), probabilities(trajectories, pi)
    returns = common.rewards_to_go(rollout.rewards, rollout.done, 0.75)
    states, actions = rollout.obs[:-1].argmax(axis=2), rollout.actions
    for s in range(8):
        t, i = np.nonzero(rollout.valid & (states == s))
        assert np.average(returns[t, i], weights=p[i]) == pytest.approx(V[s], abs=1e-10)
        for a in range(2):
            t, i = np.nonzero(rollout.valid & (states == s) & (actions == a))
            average = np.average(returns[t, i], weights=p[i])
            assert average == pytest.approx(Q[s, a], abs=1e-10)
