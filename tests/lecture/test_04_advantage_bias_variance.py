"""C4 and the second quiz: bias and variance of the blends between TD and Monte Carlo.

    R̂_t^(1) = r_t + γ V(s_{t+1}),  R̂_t^(2) = r_t + γ r_{t+1} + γ² V(s_{t+2}),  ...
    R̂_t^(∞) = r_t + γ r_{t+1} + γ² r_{t+2} + ...,    Â_t^(n) = R̂_t^(n) - V(s_t)

Bias is that of R̂^(n) against Q^π(s_t, a_t): the V(s_t) that Â^(n) subtracts is only a
baseline (C1), however wrong V is. The problems, and a critic that has learnt half of
V^π, are those of measured.py; their episodes end within the batch.
"""

import math

import measured
import numpy as np
import pytest
import tabular
from measured import GAMMA, N_STEPS, all_blends, bias_and_variance
from numpy.testing import assert_allclose, assert_array_equal
from tabular import episodic_problem, estimate, softmax

import actor_critic


def ahead(mdp, pi, f, steps):
    """E[f(s_n) | s_0 = s, a_0 = a] for n = steps."""
    for _ in range(steps - 1):
        f = np.einsum("sa,sax,x->s", pi, mdp.P, f)
    return mdp.P @ f


def test_C4_where_a_trajectory_is_cut_every_sum_bootstraps_even_the_infinite_one():
    # three steps of a problem that never ends, as at a time limit or a batch's border
    rng = np.random.default_rng(0)
    mdp, pi = tabular.random_mdp(rng, 3, 2, GAMMA), tabular.random_policy(rng, 3, 2)
    trajectories, V = mdp.all_trajectories(horizon=3), mdp.state_values(pi)
    rollout = tabular.make_rollout(trajectories, 3)
    p = tabular.probabilities(trajectories, pi)
    for name, blend in all_blends(rollout, V).items():  # the true V: no bias
        _, average, _ = measured.conditional_moments(rollout, p, blend)
        assert_allclose(average, mdp.advantages(pi), atol=1e-10, err_msg=name)
    wrong = V + rng.normal(size=3)  # R̂_0^(∞) has the error of V(s_3), times γ³
    blends = all_blends(rollout, wrong)
    first = rollout._replace(valid=np.arange(3)[:, None] == np.zeros(len(p)))
    _, average, _ = measured.conditional_moments(first, p, blends["n", math.inf])
    error = GAMMA**3 * ahead(mdp, pi, wrong - V, 3)
    target = average + wrong[:, None]
    assert_allclose(target, mdp.action_values(pi) + error, atol=1e-10)
    # at the batch's border there is no end to be seen, and the sums are the same
    border = rollout._replace(done=np.zeros_like(rollout.done))
    for name, blend in all_blends(border, wrong).items():
        assert_array_equal(blend, blends[name])


@pytest.mark.parametrize("kind, settings", [("n", N_STEPS), ("λ", measured.LAMBDAS)])
def test_C4_with_a_wrong_V_bias_falls_and_variance_rises(kind, settings, report):
    bias, variance = bias_and_variance(kind, settings)
    name = "n" if kind == "n" else "lambda"
    report(**{f"C4_squared_bias_by_{name}": bias.mean(axis=0)})
    report(**{f"C4_variance_by_{name}": variance.mean(axis=0)})
    assert (np.diff(bias, axis=1) < 0).all()  # in every problem, at every step
    assert (np.diff(variance.mean(axis=0)) > 0).all()  # on average at every step,
    assert (variance[:, 0] < variance[:, -1]).all()  # between the ends in every problem
    assert_allclose(bias[:, -1], 0, atol=1e-20)  # V(s_t) is only a baseline


def test_C4_the_bias_is_the_error_of_the_critic_n_steps_ahead_discounted():
    # E[R̂^(n) | s, a] - Q^π(s, a) = γ^n E[V(s_n) - V^π(s_n) | s, a]
    for seed in range(3):
        mdp, pi, V, moments = measured.moments_of_all_blends(seed, noise=1.0)
        for n in N_STEPS[:3]:
            _, average, _ = moments["n", n]
            bias = average + V[:, None] - mdp.action_values(pi)
            error = ahead(mdp, pi, V - mdp.state_values(pi), n)
            assert_allclose(bias, GAMMA**n * error, atol=1e-10)
        *_, moments = measured.moments_of_all_blends(seed, trust=1.0)
        for name, (_, average, _) in moments.items():  # the true V: no bias
            assert_allclose(average, mdp.advantages(pi), atol=1e-10, err_msg=name)


SETTINGS = [("n_steps", 1, 1), ("n_steps", 2, 2), ("n_steps", math.inf, math.inf)]
SETTINGS += [("gae_lambda", 0.0, 1), ("gae_lambda", 1.0, math.inf)]


@pytest.mark.parametrize("flag, value, n", SETTINGS)
def test_C4_the_estimate_is_the_mean_of_score_times_advantage(flag, value, n):
    kind = {"advantage": "gae" if flag == "gae_lambda" else "n-step", flag: value}
    # written out for one trajectory at a time; V in multiples of 1/8 and γ = 1/2
    mdp, logits = episodic_problem(0, gamma=0.5)
    V = np.random.default_rng(0).integers(-8, 9, size=6) / 8
    for tau in mdp.all_trajectories()[::6]:
        advantages, T = np.zeros(len(tau.actions)), len(tau.actions)
        for t in range(T):
            last = min(t + n, T)  # the first time that is not summed
            target = sum(0.5 ** (k - t) * tau.rewards[k] for k in range(t, last))
            if last < T:  # else the episode is over
                target += 0.5**n * V[tau.states[last]]
            advantages[t] = target - V[tau.states[t]]
        expected = tau.weighted_scores(softmax(logits), advantages / T)
        computed = estimate(actor_critic, logits, [tau], V, gamma=0.5, **kind)
        assert_allclose(computed, expected, atol=1e-10)


# C21, quiz 2: select all that are true. "High" and "low" compare the two.


def td_and_monte_carlo():
    """Squared bias and variance of Â^(1) and of Â^(∞), averaged over the problems."""
    bias, variance = bias_and_variance("n", [1, math.inf])
    return *bias.mean(axis=0), *variance.mean(axis=0)


def test_C21_quiz_2_A1_has_low_variance_and_low_bias_is_false():
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo()
    assert variance_1 < 0.5 * variance_inf  # low variance, yes
    assert bias_1 > 0.01 > bias_inf  # but not low bias


def test_C21_quiz_2_A1_has_high_variance_and_low_bias_is_false():
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo()
    assert not variance_1 > variance_inf
    assert not bias_1 < bias_inf


def test_C21_quiz_2_Ainf_has_low_variance_and_high_bias_is_false():
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo()
    assert not variance_inf < variance_1
    assert not bias_inf > bias_1


def test_C21_quiz_2_Ainf_has_high_variance_and_low_bias_is_true():
    bias_1, bias_inf, variance_1, variance_inf = td_and_monte_carlo()
    assert variance_inf > 2 * variance_1
    assert bias_inf < 1e-20 < bias_1
