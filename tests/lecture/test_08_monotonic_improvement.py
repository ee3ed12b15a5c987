"""C14: maximising L_π(π') - C √(E_{s~d^π} D_KL(π'‖π)[s]) cannot make the policy worse.

    J(π') - J(π) >= L_π(π') - C √(E_{s~d^π} D_KL(π'‖π)[s])          from bound (3)

The right side is 0 at π' = π, so its maximum is at least 0, and so is the improvement,
in any class of policies that contains π. But C, that of test_07, is large when γ is
near 1, and the steps become too small.

Policies have two actions here, and are one number p(s) = π(0|s) per state, or one for
all states. Small random moves search for the maximum; everything else is exact.
"""

import numpy as np
import pytest
from measured import improvement_and_penalty
from tabular import MDP, kl_per_state, random_mdp

GAMMAS = 0.5, 0.8, 0.95


def policy(mdp, p):
    p = np.broadcast_to(p, len(mdp.mu))
    return np.column_stack([p, 1 - p])


def start(seed, gamma):
    """Three states, two actions, and a random policy to begin with."""
    rng = np.random.default_rng(seed)
    return random_mdp(rng, 3, 2, gamma), rng.uniform(0.2, 0.8, size=3)


def maximise(mdp, p, penalised=True):
    """The p' with the largest L - C √KL, or L alone, and this value, by a search.

    A move that helps is followed by longer ones, one that doesn't by shorter ones.
    """
    terms = improvement_and_penalty(mdp, policy(mdp, p))
    rng = np.random.default_rng(0)
    best, best_value, length = p, 0.0, 0.1
    for _ in range(1200):
        move = np.clip(best + length * rng.normal(size=len(p)), 1e-6, 1 - 1e-6)
        L, penalty = terms(policy(mdp, move))
        value = L - penalised * penalty
        if value > best_value:
            best, best_value, length = move, value, 2 * length
        else:
            length = 0.9 * length if length > 1e-12 else 0.1
    return best, best_value


def test_the_search_finds_the_maximum_of_a_fine_grid():
    mdp, p = random_mdp(np.random.default_rng(0), 1, 2, 0.9), np.array([0.4])
    terms = improvement_and_penalty(mdp, policy(mdp, p))
    grid = [terms(policy(mdp, x)) for x in np.linspace(1e-6, 1 - 1e-6, 2001)]
    highest = max(L - penalty for L, penalty in grid)
    assert maximise(mdp, p)[1] == pytest.approx(highest, rel=1e-4) and highest > 0.001


@pytest.mark.parametrize("gamma", GAMMAS)
def test_C14_repeated_maximisation_never_makes_the_policy_worse(gamma):
    mdp, random_p = start(0, gamma)
    for p in random_p, np.array([0.5]):  # among all policies; one p for all states
        J = [mdp.performance(policy(mdp, p))]
        for _ in range(3):
            p, promised = maximise(mdp, p)
            J.append(mdp.performance(policy(mdp, p)))
            assert J[-1] - J[-2] >= promised - 1e-12  # what was promised comes
            assert promised > 0 or len(p) == 1  # some improvement is always in reach
        assert J[-1] > J[0]


def test_C14_the_step_that_is_allowed_is_tiny_when_gamma_is_near_1(report):
    medians = []
    for gamma in GAMMAS:
        kls = []
        for seed in range(3):
            mdp, p = start(seed, gamma)
            old, new = policy(mdp, p), policy(mdp, maximise(mdp, p)[0])
            kls.append(mdp.state_distribution(old) @ kl_per_state(new, old))
        medians.append(float(np.median(kls)))
    report(C14_gammas=GAMMAS, C14_kl_of_first_step=medians)
    assert medians[0] > medians[1] > medians[2]
    assert medians[0] > 50 * medians[2]


def test_C14_without_the_penalty_the_maximum_of_L_can_make_the_policy_worse():
    # State 0 is where one starts, and action 0 there earns 1 and leads to state 1. In
    # state 1 action 0 costs 4; action 1 leads back. The policy is the same in both.
    P = np.zeros((2, 2, 2))
    P[0, 0, 1] = P[0, 1, 0] = P[1, 0, 1] = P[1, 1, 0] = 1
    mdp = MDP(P, np.array([[1.0, 0.0], [-4.0, 0.0]]), np.array([1.0, 0.0]), 0.5)
    p = np.array([0.05])
    greedy, _ = maximise(mdp, p, penalised=False)
    safe, _ = maximise(mdp, p)
    J, greedy_J, safe_J = (mdp.performance(policy(mdp, x)) for x in (p, greedy, safe))
    assert greedy > 0.99 and greedy_J < J - 1
    assert safe_J > J
