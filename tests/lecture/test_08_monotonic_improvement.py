"""C14: maximising L_π(π') - C √(E_{s~d^π} D_KL(π'‖π)[s]) cannot make the policy worse.

    J(π') - J(π) >= L_π(π') - C √(E_{s~d^π} D_KL(π'‖π)[s])          from bound (3)

The right side is 0 at π' = π, so its maximum is at least 0, and so is the improvement.
This holds in any class of policies that contains π. The lecture also names the catch:
C is large when γ is near 1, and the steps become too small.

C is that of test_07. Policies have two actions here, and are one number per state,
p(s) = π(0|s). Small random moves search for the maximum; everything else is exact.
"""

import numpy as np
import pytest
from measured import improvement_and_penalty
from tabular import MDP, kl_per_state, random_mdp

GAMMAS = 0.5, 0.8, 0.95


def policy(p):
    return np.column_stack([p, 1 - p])


def start(seed, gamma):
    """Three states, two actions, and a random policy to begin with."""
    rng = np.random.default_rng(seed)
    return random_mdp(rng, 3, 2, gamma), rng.uniform(0.2, 0.8, size=3)


def right_side(mdp, p, penalised=True):
    """L_π(π') - C √KL, or L_π(π') alone, as a function of π' for π = policy(p)."""
    terms = improvement_and_penalty(mdp, policy(p))

    def value(new_p):
        L, penalty = terms(policy(new_p))
        return L - penalised * penalty

    return value


def maximise(value, p, seed=0, tries=1200):
    """The best policy that a random search from p finds: moves that help are kept.

    A move that helps is followed by longer ones, one that doesn't by shorter ones.
    """
    rng = np.random.default_rng(seed)
    best, best_value, length = p, value(p), 0.1
    for _ in range(tries):
        move = best + length * rng.normal(size=len(p))
        move = np.clip(move, 1e-6, 1 - 1e-6)
        move_value = value(move)
        if move_value > best_value:
            best, best_value, length = move, move_value, 2 * length
        else:
            length = 0.9 * length if length > 1e-12 else 0.1
    return best, best_value


def test_the_search_finds_a_maximum_that_is_known():
    peak = np.array([0.3, 0.9, 0.5])
    best, value = maximise(lambda p: -np.abs(p - peak).sum(), np.full(3, 0.5))
    np.testing.assert_allclose(best, peak, atol=1e-3)
    # one state: L and ε_A grow with |p' - p|, and the best p' is found on a fine grid
    mdp, p = random_mdp(np.random.default_rng(0), 1, 2, 0.9), np.array([0.4])
    right = right_side(mdp, p)
    grid = max(right(np.array([x])) for x in np.linspace(1e-6, 1 - 1e-6, 2001))
    assert maximise(right, p)[1] == pytest.approx(grid, rel=1e-4) and grid > 0.001


@pytest.mark.parametrize("gamma", GAMMAS)
def test_C14_repeated_maximisation_never_makes_the_policy_worse(gamma):
    for seed in range(2):
        mdp, p = start(seed, gamma)
        J = [mdp.performance(policy(p))]
        for k in range(5):
            p, promised = maximise(right_side(mdp, p), p, seed=k)
            J.append(mdp.performance(policy(p)))
            assert promised > 0  # some improvement is always in reach,
            assert J[-1] - J[-2] >= promised - 1e-12  # and what was promised comes
        assert J[-1] > J[0]


def test_C14_the_right_side_is_zero_at_the_old_policy_and_below_the_improvement():
    for seed in range(20):
        mdp, p = start(seed, 0.7)
        value, J = right_side(mdp, p), mdp.performance(policy(p))
        assert value(p) == pytest.approx(0, abs=1e-12)
        for new_p in np.random.default_rng(seed).uniform(0.01, 0.99, size=(20, 3)):
            assert value(new_p) <= mdp.performance(policy(new_p)) - J + 1e-12


def test_C14_the_step_that_is_allowed_is_tiny_when_gamma_is_near_1(report):
    medians = []
    for gamma in GAMMAS:
        kls = []
        for seed in range(3):
            mdp, p = start(seed, gamma)
            new_p, _ = maximise(right_side(mdp, p), p)
            d = mdp.state_distribution(policy(p))
            kls.append(d @ kl_per_state(policy(new_p), policy(p)))
        medians.append(float(np.median(kls)))
    report(C14_gammas=GAMMAS, C14_kl_of_first_step=medians)
    assert medians[0] > medians[1] > medians[2]
    assert medians[0] > 50 * medians[2]


def test_C14_with_one_constant_for_all_policies_no_step_is_left_from_gamma_half_on():
    # L <= √2 max|A| √KL / (1-γ), by Pinsker; with γ >= 1/2 the penalty is no smaller
    def value(mdp, p, new_p):
        """L - C √KL with ε = max |A^π|, which no π' can exceed."""
        L, penalty = improvement_and_penalty(mdp, policy(p))(policy(new_p))
        A = mdp.advantages(policy(p))
        epsilon = np.abs((policy(new_p) * A).sum(axis=1)).max()
        return L - penalty * np.abs(A).max() / epsilon

    for seed in range(3):
        mdp, p = start(seed, 0.5)
        for new_p in np.random.default_rng(seed).uniform(0.01, 0.99, size=(100, 3)):
            assert value(mdp, p, new_p) < 0
            assert value(mdp, p, p + 1e-3 * (new_p - p)) < 0


# A restricted class of policies: the same p in every state.


def best_of_class(mdp, p, penalised=True):
    """The p for all states together that maximises the right side, and its J."""
    everywhere = np.ones(len(mdp.mu))
    value = right_side(mdp, p * everywhere, penalised)
    new_p, _ = maximise(lambda x: value(x * everywhere), p)
    return new_p, mdp.performance(policy(new_p * everywhere))


def test_C14_holds_in_a_restricted_class_of_policies_too():
    for seed in range(5):
        mdp, p = random_mdp(np.random.default_rng(seed), 3, 2, 0.5), np.array([0.5])
        J = mdp.performance(policy(p * np.ones(3)))
        for _ in range(3):
            p, new_J = best_of_class(mdp, p)
            assert new_J >= J - 1e-12
            J = new_J


def test_C14_without_the_penalty_the_maximum_of_L_can_make_the_policy_worse():
    # State 0 is where one starts, and action 0 there earns 1 and leads to state 1. In
    # state 1 action 0 costs 4; action 1 leads back. The policy is the same in both.
    P = np.zeros((2, 2, 2))
    P[0, 0, 1] = P[0, 1, 0] = P[1, 0, 1] = P[1, 1, 0] = 1
    mdp = MDP(P, np.array([[1.0, 0.0], [-4.0, 0.0]]), np.array([1.0, 0.0]), 0.5)
    p = np.array([0.05])
    J = mdp.performance(policy(p * np.ones(2)))
    greedy_p, greedy_J = best_of_class(mdp, p, penalised=False)
    safe_p, safe_J = best_of_class(mdp, p)
    assert greedy_p > 0.99 and greedy_J < J - 1
    assert safe_J > J
