"""C8 to C11: how the performance of one policy follows from data of another.

    J(π') - J(π) = E_{τ~π'}[ Σ_t γ^t A^π(s_t, a_t) ]                              (1)
                 = 1/(1-γ) E_{s~d^π', a~π'}[ A^π(s, a) ]                          (2)
                 = 1/(1-γ) E_{s~d^π', a~π}[ π'(a|s)/π(a|s) A^π(s, a) ]
    L_π(π')      = 1/(1-γ) E_{s~d^π,  a~π}[ π'(a|s)/π(a|s) A^π(s, a) ]
                 = E_{τ~π}[ Σ_t γ^t π'(a_t|s_t)/π(a_t|s_t) A^π(s_t, a_t) ]
    |J(π') - (J(π) + L_π(π'))| <= C √( E_{s~d^π}[ D_KL(π'‖π)[s] ] )               (3)

with d^π(s) = (1-γ) Σ_t γ^t P(s_t = s|π). The lecture leaves C open. By Achiam et al.
2017 with Pinsker's inequality, C = √2 γ max_s |E_{a~π'}[A^π(s, a)]| / (1-γ)².
"""

import math

import numpy as np
import pytest
import tabular
from measured import improvement_and_penalty, surrogate
from tabular import episodic_problem, probabilities, random_mdp, random_policy, softmax

import common
import ppo_clip
import ppo_kl

SEEDS = range(10)
each_seed = pytest.mark.parametrize("seed", SEEDS)
BARE = [(ppo_kl, {"beta": 0.0}), (ppo_clip, {"clip_epsilon": math.inf})]


def two_policies(seed):
    """A random MDP that never ends, two policies π, π', and J(π') - J(π)."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, 4, 3, 0.9)
    pi, new = random_policy(rng, 4, 3), random_policy(rng, 4, 3)
    return mdp, pi, new, mdp.performance(new) - mdp.performance(pi)


def discounted_sum(mdp, pi, f, steps=400):
    """E_{τ~π}[Σ_t γ^t f(s_t)] as the sum that it says, cut where γ^t is below 1e-18."""
    P, at_t, total = mdp.transition_matrix(pi), mdp.mu, 0.0
    for t in range(steps):
        total += mdp.gamma**t * at_t @ f
        at_t = at_t @ P
    return total


def L(mdp, pi, new):
    """L_π(π') in its first form."""
    return improvement_and_penalty(mdp, pi)(new)[0]


@each_seed
def test_C9_d_is_a_distribution_and_discounted_sums_are_expectations_under_it(seed):
    mdp, pi, *_ = two_policies(seed)
    d = mdp.state_distribution(pi)
    assert (d >= 0).all()
    assert d.sum() == pytest.approx(1, abs=1e-12)
    for s in range(4):  # its definition
        series = (1 - mdp.gamma) * discounted_sum(mdp, pi, np.eye(4)[s])
        assert d[s] == pytest.approx(series, abs=1e-10)
    f = np.random.default_rng(seed).normal(size=4)
    expectation = d @ f / (1 - mdp.gamma)
    assert discounted_sum(mdp, pi, f) == pytest.approx(expectation, abs=1e-8)
    reward = d @ mdp.expected_rewards(pi) / (1 - mdp.gamma)
    assert mdp.performance(pi) == pytest.approx(reward, abs=1e-8)


@each_seed
def test_C8_the_performance_difference_lemma_holds_in_both_forms(seed):
    mdp, pi, new, difference = two_policies(seed)
    A = (new * mdp.advantages(pi)).sum(axis=1)  # E_{a~π'}[A^π(s, a)] for each s
    form_1 = discounted_sum(mdp, new, A)
    form_2 = mdp.state_distribution(new) @ A / (1 - mdp.gamma)
    assert abs(difference) > 1e-3
    assert form_1 == pytest.approx(difference, abs=1e-8)
    assert form_2 == pytest.approx(difference, abs=1e-8)


def test_C8_the_lemma_holds_summed_over_all_trajectories():
    # with V = V^π, λ = 1 makes Σ_t γ^t δ_t, and the lemma is a telescoping sum
    for seed in range(5):
        mdp, logits = episodic_problem(seed, layers=4, gamma=0.75)
        pi, new = softmax(logits), softmax(-logits)
        difference = mdp.performance(new) - mdp.performance(pi)
        trajectories, A = mdp.all_trajectories(), mdp.advantages(pi)
        p = probabilities(trajectories, new)
        gains = [A[tau.states[:-1], tau.actions] for tau in trajectories]
        sums = [gain @ 0.75 ** np.arange(len(gain)) for gain in gains]
        assert p @ sums == pytest.approx(difference, abs=1e-10)
        rollout = tabular.make_rollout(trajectories, 8)
        returns = common.rewards_to_go(rollout.rewards, rollout.done, 0.75)[0]
        assert p @ returns == pytest.approx(mdp.performance(new), abs=1e-10)
        values = tabular.values_along(rollout, mdp.state_values(pi))
        data = rollout.rewards, values, rollout.terminated, rollout.done
        estimated = common.generalized_advantages(*data, 0.75, 1.0)[0]
        assert p @ estimated == pytest.approx(difference, abs=1e-10)


@each_seed
def test_C10_L_is_the_difference_with_actions_rewritten_and_states_of_the_old(seed):
    mdp, pi, new, difference = two_policies(seed)
    inside = surrogate(pi, new, mdp.advantages(pi))
    rewritten = mdp.state_distribution(new) @ inside / (1 - mdp.gamma)
    assert rewritten == pytest.approx(difference, abs=1e-8)  # with s ~ d^π' it is exact
    # the second form of L, and L at the old policy
    assert discounted_sum(mdp, pi, inside) == pytest.approx(L(mdp, pi, new), abs=1e-8)
    assert L(mdp, pi, pi) == pytest.approx(0, abs=1e-10)
    assert abs(L(mdp, pi, new) - difference) > 1e-3  # with s ~ d^π it is not


@pytest.mark.parametrize("script, bare", BARE)
def test_C10_the_objective_of_both_PPOs_is_L(script, bare):
    # update() logs its objective at the new policy; with β = 0 or ε = ∞ it is the mean
    # over the steps of r_t Â_t. γ = 1, Â with V^π and λ = 1; float32 rounds Â: 1e-6.
    mdp, old = episodic_problem(1)
    new = np.random.default_rng(1).normal(size=(6, 2))
    V, trajectories = mdp.state_values(softmax(old)), mdp.all_trajectories()
    flags, total = {"gae_lambda": 1.0, **bare}, 0.0
    for tau, p in zip(trajectories, probabilities(trajectories, softmax(old))):
        _, metrics = tabular.update_at(script, old, new, [tau], V, **flags)
        total += p * len(tau.actions) * -metrics["train/policy_loss"]
    ratio_times_A = (softmax(new) * mdp.advantages(softmax(old))).sum(axis=1)
    expected = mdp.visits(softmax(old)) @ ratio_times_A
    assert abs(expected) > 0.1
    assert total == pytest.approx(expected, abs=1e-6)


def error_and_bound(mdp, pi, new):
    """Both sides of (3)."""
    L, bound = improvement_and_penalty(mdp, pi)(new)
    return abs(mdp.performance(new) - mdp.performance(pi) - L), bound


def test_C11_the_bound_holds_for_hundreds_of_problems_and_pairs(report):
    # small and large problems, γ from 0 to 0.99, policies from very close to far apart
    shares = []
    for seed in range(600):
        rng = np.random.default_rng(seed)
        states, actions = rng.integers(1, 8), rng.integers(2, 6)
        mdp = random_mdp(rng, states, actions, rng.choice([0.0, 0.3, 0.6, 0.9, 0.99]))
        pi, other = (random_policy(rng, states, actions) for _ in range(2))
        step = 10 ** rng.uniform(-3, 0)
        error, bound = error_and_bound(mdp, pi, (1 - step) * pi + step * other)
        assert error <= bound + 1e-9, seed
        if mdp.gamma > 0 and states > 1:  # else both sides are 0
            shares.append(error / bound)
    report(C11_pairs=len(shares))
    report(C11_largest_error_as_a_share_of_the_bound=max(shares))
    assert max(shares) > 0.01  # no bound that holds by being absurdly large


def test_C11_the_error_vanishes_with_the_square_of_the_step(report):
    steps, rows = [1.0, 0.1, 0.01, 0.001], []
    for seed in SEEDS:
        mdp, pi, other, _ = two_policies(seed)
        mixtures = [(1 - step) * pi + step * other for step in steps]
        rows.append([error_and_bound(mdp, pi, new)[0] for new in mixtures])
        # L itself goes with the first power, so close by the approximation is good
        assert L(mdp, pi, mixtures[2]) == pytest.approx(L(mdp, pi, other) / 100)
    errors = np.array(rows)
    report(C11_mean_error_at_steps_1_01_001_0001=errors.mean(axis=0))
    ratios = errors[:, 1:3] / errors[:, 2:4]
    assert (ratios > 50).all() and (ratios < 200).all()  # a tenth of the step: 1/100
