"""C15: importance sampling, and what it does to whole trajectories.

    E_{x~P}[f(x)] = E_{x~Q}[ P(x)/Q(x) f(x) ] ≈ 1/|D| Σ_{x∈D} P(x)/Q(x) f(x),  D ~ Q
    var(μ̂_Q) = 1/N ( E_{x~P}[ P(x)/Q(x) f(x)² ] - E_{x~P}[f(x)]² )
    P(τ_t|θ) / P(τ_t|θ') = Π_{t'<=t} π_θ(a_t'|s_t') / π_θ'(a_t'|s_t')

The last one, a product of many ratios, explodes or vanishes with t even for policies
that differ only slightly. The surrogate's weight is a single ratio and doesn't.
"""

import itertools
import math

import numpy as np
import pytest
from measured import close_policies, weight_variances
from numpy.testing import assert_allclose
from tabular import Trajectory, episodic_problem, probabilities, softmax, update_at

import ppo_kl

each_seed = pytest.mark.parametrize("seed", range(3))


@each_seed
def test_C15_an_estimate_from_N_samples_has_the_mean_and_variance_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    (P, Q), f = rng.dirichlet(np.ones(5), size=2), rng.normal(size=5)
    assert abs(Q @ f - P @ f) > 0.01  # without the weights it is another number
    for N in 1, 2, 3:
        mean = square = 0.0
        for D in itertools.product(range(5), repeat=N):  # every possible data set
            D = list(D)
            probability = Q[D].prod()
            estimate = (P[D] / Q[D] * f[D]).sum() / N
            mean += probability * estimate
            square += probability * estimate**2
        formula = (P @ (P / Q * f**2) - (P @ f) ** 2) / N
        assert mean == pytest.approx(P @ f, abs=1e-10)
        assert square - mean**2 == pytest.approx(formula, abs=1e-10)


@each_seed
def test_C15_data_of_another_policy_gives_the_policy_gradient_exactly(seed):
    # ∇J(θ) = E_{τ~θ'}[Σ_t P(τ_t|θ)/P(τ_t|θ') γ^t ∇ log π_θ(a_t|s_t) A^θ(s_t, a_t)]
    mdp, logits = episodic_problem(seed, gamma=0.75)
    pi, other = softmax(logits), softmax(episodic_problem(100 + seed)[1])
    A, trajectories = mdp.advantages(pi), mdp.all_trajectories()
    g = np.zeros_like(pi)
    for tau, probability in zip(trajectories, probabilities(trajectories, other)):
        visited = tau.states[:-1], tau.actions
        weights = np.cumprod(pi[visited] / other[visited])
        weights *= 0.75 ** np.arange(len(weights)) * A[visited]
        g += probability * tau.weighted_scores(pi, weights)
    assert_allclose(g, mdp.performance_gradient(logits), atol=1e-8)


def test_C15_the_variance_of_whole_trajectories_weights_grows_exponentially(report):
    mdp, pi, other = close_policies(0)
    horizons = np.array([1, 10, 100, 200, 500, 1000])
    variance, single = weight_variances(mdp, pi, other, 1000)
    # the same by enumeration, as long as that is possible
    for T in 1, 2, 3:
        trajectories = mdp.all_trajectories(horizon=T)
        p, q = probabilities(trajectories, pi), probabilities(trajectories, other)
        ratios = [(pi / other)[x.states[:-1], x.actions] for x in trajectories]
        ratios = np.array(ratios)  # the dynamics cancel
        assert_allclose(p / q, ratios.prod(axis=1), atol=1e-10)
        assert q @ (p / q) == pytest.approx(1, abs=1e-12)
        by_enumeration = q @ (p / q - 1) ** 2
        assert variance[T - 1] == pytest.approx(by_enumeration, abs=1e-10)
        by_enumeration = q @ (ratios[:, -1] - 1) ** 2
        assert single[T - 1] == pytest.approx(by_enumeration, abs=1e-10)
    report(C15_largest_difference_of_a_probability=np.abs(pi - other).max())
    report(C15_horizons=horizons, C15_variance_of_product=variance[horizons - 1])
    report(C15_variance_of_single_ratio=single[horizons - 1])
    growth = (variance[501:] + 1) / (variance[500:-1] + 1)
    assert growth.min() > 1.01  # exponential: by the same factor at every step
    assert_allclose(growth, growth[-1], rtol=1e-6)
    # that of one ratio is bounded, by the worst state
    worst = (pi**2 / other).sum(axis=1).max() - 1
    assert single.max() <= worst < 0.1
    assert variance[-1] > 10_000 * single.max()


def test_C15_the_weights_of_most_trajectories_vanish():
    # one state: π' tosses a fair coin, π one with 0.6, and the weight after T steps is
    # 1.2 to the number of heads times 0.8 to the number of tails; E[w] = 1 for every T
    shares = []
    for T in 10, 200, 1000:
        heads = np.arange(T + 1)
        probability = np.array([math.comb(T, h) / 2**T for h in heads])
        log_weight = heads * np.log(1.2) + (T - heads) * np.log(0.8)
        assert probability @ np.exp(log_weight) == pytest.approx(1, abs=1e-8)
        shares.append(probability[log_weight < np.log(0.01)].sum())
    assert shares[0] < 0.01 and shares[1] > 0.1 and shares[2] > 0.99


def test_C15_the_weight_in_the_surrogate_is_the_ratio_of_one_step():
    # 50 steps with an advantage of 1 each; the objective that ppo_kl.update logs after
    # moving to π' is the mean of the single ratios, whatever came before in the batch
    old, new = np.array([[0.0, 0.0]]), np.array([[0.5, 0.0]])
    actions = [t % 3 % 2 for t in range(50)]
    walk = Trajectory([0] * 51, actions, np.ones(50), False)
    plain = {"beta": 0.0, "gae_lambda": 0.0}  # Â = δ = r, as V = 0
    _, metrics = update_at(ppo_kl, old, new, [walk], **plain)
    ratio = softmax(new)[0] / softmax(old)[0]
    assert -metrics["train/policy_loss"] == pytest.approx(ratio[actions].mean())
    product = ratio[actions].prod()
    assert abs(np.log(product)) > 1  # the product would be far from 1
