"""C4 and the second quiz: bias and variance of the blends between TD and Monte Carlo.

    R̂_t^(1) = r_t + γ V(s_{t+1}),  R̂_t^(2) = r_t + γ r_{t+1} + γ² V(s_{t+2}),  ...
    R̂_t^(∞) = r_t + γ r_{t+1} + γ² r_{t+2} + ...,    Â_t^(n) = R̂_t^(n) - V(s_t)

Â^(1) has low variance and high bias, Â^(∞) high variance and low bias. λ sweeps between
the same ends.

Bias here is that of R̂^(n) against Q^π(s_t, a_t). The V(s_t) that Â^(n) subtracts is a
baseline: it adds V^π(s_t) - V(s_t) to the mean of Â^(n) for every n and every action
alike, and by C1 that doesn't bias the gradient, however wrong V is.

The figures are of 20 random problems of up to four steps, with a critic V that has
learnt half of V^π. Expectations are sums over all 340 trajectories of a problem.
"""

import math
from functools import cache

import numpy as np
import pytest
from tabular import (
    action_values,
    advantages,
    all_trajectories,
    episodic_mdp,
    estimate,
    estimates,
    exact_args,
    log_policy_gradient,
    make_rollout,
    mean,
    performance_gradient,
    probabilities,
    random_mdp,
    random_policy,
    report,
    softmax,
    state_values,
    total_variance,
    values_along,
)

import actor_critic
import common

GAMMA, STATES = 0.9, 8
N_STEPS = 1, 2, 3, math.inf  # 4 is ∞: no episode is longer
LAMBDAS = 0.0, 0.25, 0.5, 0.75, 1.0


def problem(seed):
    rng = np.random.default_rng(seed)
    mdp = episodic_mdp(rng, layers=4, width=2, actions=2, gamma=GAMMA)
    return mdp, random_policy(rng, STATES, 2)


def conditional_moments(trajectories, pi, advantage):
    """P(s, a), and mean and variance of an Â (T, N) given s_t = s, a_t = a."""
    rollout, p = make_rollout(trajectories, len(pi)), probabilities(trajectories, pi)
    t, i = np.nonzero(rollout.valid)
    state_action = rollout.obs[t, i].argmax(axis=1), rollout.actions[t, i]
    weight, first, second = np.zeros((3, *pi.shape))
    np.add.at(weight, state_action, p[i])
    np.add.at(first, state_action, p[i] * advantage[t, i])
    average = first / weight
    deviation = advantage[t, i] - average[state_action]
    np.add.at(second, state_action, p[i] * deviation**2)
    return weight / weight.sum(), average, second / weight


def all_blends(trajectories, V):
    """Â (T, N) by the functions of common.py, for n of N_STEPS and λ of LAMBDAS."""
    rollout, values = make_rollout(trajectories, len(V)), values_along(trajectories, V)
    data = rollout.rewards, values, rollout.terminated, rollout.done
    blends = {}
    for n in N_STEPS:
        blends["n", n] = common.n_step_returns(*data, GAMMA, n) - values[:-1]
    for lam in LAMBDAS:
        blends["λ", lam] = common.generalized_advantages(*data, GAMMA, lam)
    return blends


@cache
def moments_of_all_blends(seed, trust=0.5, noise=0.0):
    """The moments of Â, for n of N_STEPS and λ of LAMBDAS; V = trust V^π + noise."""
    mdp, pi = problem(seed)
    V = trust * state_values(mdp, pi)
    V = V + noise * np.random.default_rng(seed).normal(size=STATES)
    trajectories = all_trajectories(mdp)
    moments = {
        name: conditional_moments(trajectories, pi, blend)
        for name, blend in all_blends(trajectories, V).items()
    }
    return mdp, pi, V, moments


def squared_bias_and_variance(seed, kind, settings, **critic):
    """Both, averaged over the visited (s, a), for every n or every λ of settings."""
    mdp, pi, V, moments = moments_of_all_blends(seed, **critic)
    rows = []
    for setting in settings:
        weight, average, variance = moments[kind, setting]
        bias = average + V[:, None] - action_values(mdp, pi)
        rows.append([(weight * bias**2).sum(), (weight * variance).sum()])
    return np.array(rows).T


def all_problems(kind, settings, **critic):
    """Squared bias and variance as (20 problems, settings) each."""
    rows = [
        squared_bias_and_variance(seed, kind, settings, **critic) for seed in range(20)
    ]
    return np.array(rows).transpose(1, 0, 2)


# C4


@pytest.mark.parametrize("seed", range(3))
def test_C4_with_the_true_V_every_blend_is_unbiased(seed):
    mdp, pi, _, moments = moments_of_all_blends(seed, trust=1.0)
    for name, (_, average, _) in moments.items():
        expected = advantages(mdp, pi)
        np.testing.assert_allclose(average, expected, atol=1e-10, err_msg=name)


def test_C4_with_the_true_V_a_time_limit_does_not_bias_any_blend():
    # trajectories that are cut, not ended: V of the state reached stands for the rest
    rng = np.random.default_rng(0)
    mdp, pi = random_mdp(rng, 3, 2, GAMMA), random_policy(rng, 3, 2)
    trajectories = all_trajectories(mdp, horizon=3)
    for name, blend in all_blends(trajectories, state_values(mdp, pi)).items():
        _, average, _ = conditional_moments(trajectories, pi, blend)
        expected = advantages(mdp, pi)
        np.testing.assert_allclose(average, expected, atol=1e-10, err_msg=name)


def test_C4_with_a_wrong_V_bias_falls_with_n_and_variance_rises(record_property):
    bias, variance = all_problems("n", N_STEPS)
    report(
        record_property,
        C4_n_steps=N_STEPS,
        C4_squared_bias_by_n=np.round(bias.mean(axis=0), 4).tolist(),
        C4_variance_by_n=np.round(variance.mean(axis=0), 4).tolist(),
    )
    assert (np.diff(bias, axis=1) < 0).all()  # in every problem, at every step of n
    assert (np.diff(variance.mean(axis=0)) > 0).all()  # on average at every step of n,
    assert (variance[:, 0] < variance[:, -1]).all()  # between the ends in every problem
    np.testing.assert_allclose(bias[:, -1], 0, atol=1e-20)


def test_C4_with_a_wrong_V_bias_falls_with_lambda_and_variance_rises(record_property):
    bias, variance = all_problems("λ", LAMBDAS)
    report(
        record_property,
        C4_lambdas=LAMBDAS,
        C4_squared_bias_by_lambda=np.round(bias.mean(axis=0), 4).tolist(),
        C4_variance_by_lambda=np.round(variance.mean(axis=0), 4).tolist(),
    )
    assert (np.diff(bias, axis=1) < 0).all()
    assert (np.diff(variance, axis=1) > 0).all()
    np.testing.assert_allclose(bias[:, -1], 0, atol=1e-20)


def test_C4_the_ends_of_the_two_sweeps_are_the_same():
    _, _, _, moments = moments_of_all_blends(0)
    for n, lam in (1, 0.0), (math.inf, 1.0):
        for of_n, of_lambda in zip(moments["n", n], moments["λ", lam]):
            np.testing.assert_allclose(of_n, of_lambda, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_C4_the_bias_is_the_critics_error_n_steps_on_discounted(seed):
    # E[R̂^(n) | s, a] - Q^π(s, a) = γ^n E[V(s_n) - V^π(s_n) | s, a], by matrix powers
    mdp, pi, V, moments = moments_of_all_blends(seed, noise=1.0)
    error = V - state_values(mdp, pi)
    for n in N_STEPS[:3]:
        _, average, _ = moments["n", n]
        bias = average + V[:, None] - action_values(mdp, pi)
        ahead = error
        for _ in range(n - 1):
            ahead = np.einsum("sa,sax,x->s", pi, mdp.P, ahead)
        np.testing.assert_allclose(bias, GAMMA**n * mdp.P @ ahead, atol=1e-10)


def test_C4_of_the_plain_advantage_only_a_baseline_is_left_at_infinity():
    mdp, pi, V, moments = moments_of_all_blends(0)
    _, average, _ = moments["n", math.inf]
    wrong_by = average - advantages(mdp, pi)
    same_for_all_actions = np.repeat((state_values(mdp, pi) - V)[:, None], 2, axis=1)
    np.testing.assert_allclose(wrong_by, same_for_all_actions, atol=1e-10)
    assert np.abs(wrong_by).max() > 0.1


def test_C4_the_critic_must_be_calmer_than_the_returns_for_its_variance_to_be_low(
    record_property,
):
    # the limit of the claim: a critic that is mostly noise makes TD the noisier one
    _, variance = all_problems("n", N_STEPS, noise=3.0)
    td, monte_carlo = variance.mean(axis=0)[[0, -1]]
    report(
        record_property,
        C4_variance_of_TD_with_a_very_noisy_critic=round(td, 3),
        C4_variance_of_monte_carlo_with_it=round(monte_carlo, 3),
    )
    assert td > monte_carlo


@pytest.mark.parametrize("n", [1, 2, math.inf])
def test_C4_the_actor_critics_estimate_is_the_mean_score_times_the_advantage(n):
    # written out for one trajectory at a time; V in multiples of 1/8 and γ = 1/2
    rng = np.random.default_rng(0)
    mdp = episodic_mdp(rng, layers=3, width=2, actions=2, gamma=0.5)
    logits, V = rng.normal(size=(6, 2)), rng.integers(-8, 9, size=6) / 8
    args = exact_args(actor_critic, gamma=0.5, n_steps=n)
    for tau in all_trajectories(mdp)[::6]:
        expected, T = np.zeros((6, 2)), len(tau.actions)
        for t, (s, a) in enumerate(zip(tau.states, tau.actions)):
            last = min(t + n, T)  # the first time that is not summed
            target = sum(0.5 ** (k - t) * tau.rewards[k] for k in range(t, last))
            if last < T:  # else the episode is over
                target += 0.5**n * V[tau.states[last]]
            score = log_policy_gradient(softmax(logits), s, a)
            expected += score * (target - V[s]) / T
        computed = estimate(actor_critic, args, logits, make_rollout([tau], 6), V)
        np.testing.assert_allclose(computed, expected, atol=1e-10)


def test_C4_the_actor_critics_gradient_has_the_same_bias_and_variance(record_property):
    # ĝ from actor_critic.update, for every trajectory; V in multiples of 1/8 and γ = 1,
    # so that its mean at n = ∞ is the exact gradient of J
    biases, variances = [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        mdp = episodic_mdp(rng, layers=3, width=2, actions=2)
        logits = rng.normal(size=(6, 2))
        V = np.round(4 * state_values(mdp, softmax(logits))) / 8  # about a half
        gradient = performance_gradient(mdp, logits)
        row = []
        for n in 1, 2, math.inf:
            args = exact_args(actor_critic, n_steps=n)
            p, g = estimates(actor_critic, args, mdp, logits, V)
            bias = np.linalg.norm(mean(p, g) - gradient)
            row.append((bias, total_variance(p, g)))
        bias, variance = zip(*row)
        assert bias[0] > bias[1] > bias[2]
        assert bias[2] < 1e-8
        assert variance[0] < variance[2]
        biases.append(bias)
        variances.append(variance)
    report(
        record_property,
        C4_bias_of_gradient_by_n_1_2_inf=np.round(np.mean(biases, 0), 4).tolist(),
        C4_variance_of_gradient_by_n_1_2_inf=np.round(
            np.mean(variances, 0), 4
        ).tolist(),
    )


def test_C4_lambda_1_makes_the_actor_critics_gradient_unbiased_and_0_does_not():
    rng = np.random.default_rng(1)
    mdp = episodic_mdp(rng, layers=3, width=2, actions=2)
    logits = rng.normal(size=(6, 2))
    V = rng.integers(-8, 9, size=6) / 8
    gradient = performance_gradient(mdp, logits)
    biases = []
    for lam in 0.0, 1.0:
        args = exact_args(actor_critic, gae_lambda=lam)
        biases.append(mean(*estimates(actor_critic, args, mdp, logits, V)) - gradient)
    assert np.abs(biases[0]).max() > 0.01
    np.testing.assert_allclose(biases[1], 0, atol=1e-8)


# C21, quiz 2: select all that are true. "High" and "low" compare the two.


@pytest.fixture(scope="module")
def td_and_monte_carlo():
    """Squared bias and variance of Â^(1) and of Â^(∞), averaged over the problems."""
    bias, variance = all_problems("n", [1, math.inf])
    (bias_1, bias_inf), (variance_1, variance_inf) = bias.mean(0), variance.mean(0)
    return bias_1, bias_inf, variance_1, variance_inf


def test_C21_quiz_2_A1_has_low_variance_and_low_bias_is_false(td_and_monte_carlo):
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo
    assert variance_1 < 0.5 * variance_inf  # low variance, yes
    assert bias_1 > 0.01 > bias_inf  # but not low bias


def test_C21_quiz_2_A1_has_high_variance_and_low_bias_is_false(td_and_monte_carlo):
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo
    assert not variance_1 > variance_inf
    assert not bias_1 < bias_inf


def test_C21_quiz_2_Ainf_has_low_variance_and_high_bias_is_false(td_and_monte_carlo):
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo
    assert not variance_inf < variance_1
    assert not bias_inf > bias_1


def test_C21_quiz_2_Ainf_has_high_variance_and_low_bias_is_true(td_and_monte_carlo):
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo
    assert variance_inf > 2 * variance_1
    assert bias_inf < 1e-20 < bias_1
