"""What both the tests of this folder and benchmarks/figures.py measure.

All but the real runs at the end is exact, or learns by the scripts' own updates.
"""

import copy
import math
from functools import cache
from unittest.mock import patch

import numpy as np
import tabular
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.optim import SGD

import actor_critic
import ppo_clip
import ppo_kl
import vpg_baseline
from common import generalized_advantages, n_step_returns, normalize

# C4: 20 random problems of up to four steps, and a critic V that has learnt half of
# V^π. Expectations are sums over all 340 trajectories of a problem.
GAMMA, STATES = 0.9, 8
N_STEPS = 1, 2, 3, math.inf  # 4 is ∞: no episode is longer
LAMBDAS = 0.0, 0.25, 0.5, 0.75, 1.0


def conditional_moments(rollout, p, advantage):
    """P(s, a), and mean and variance of an Â (T, N) given s_t = s, a_t = a."""
    t, i = np.nonzero(rollout.valid)
    state_action = rollout.obs[t, i].argmax(axis=1), rollout.actions[t, i]
    states = rollout.obs.shape[2] - 1
    weight, first, second = np.zeros((3, states, 2))
    np.add.at(weight, state_action, p[i])
    np.add.at(first, state_action, p[i] * advantage[t, i])
    average = first / weight
    deviation = advantage[t, i] - average[state_action]
    np.add.at(second, state_action, p[i] * deviation**2)
    return weight / weight.sum(), average, second / weight


def all_blends(rollout, V):
    """Â (T, N) by the functions of common.py, for n of N_STEPS and λ of LAMBDAS."""
    values = tabular.values_along(rollout, V)
    data = rollout.rewards, values, rollout.terminated, rollout.done
    blends = {}
    for n in N_STEPS:
        blends["n", n] = n_step_returns(*data, GAMMA, n) - values[:-1]
    for lam in LAMBDAS:
        blends["λ", lam] = generalized_advantages(*data, GAMMA, lam)
    return blends


@cache
def moments_of_all_blends(seed, trust=0.5, noise=0.0):
    """A problem, π, V = trust V^π + noise, and the moments of every blend's Â."""
    rng = np.random.default_rng(seed)
    mdp = tabular.episodic_mdp(rng, layers=4, actions=2, gamma=GAMMA)
    pi = tabular.random_policy(rng, STATES, 2)
    trajectories = mdp.all_trajectories()
    rollout = tabular.make_rollout(trajectories, STATES)
    p = tabular.probabilities(trajectories, pi)
    error = noise * np.random.default_rng(seed).normal(size=STATES)
    V = trust * mdp.state_values(pi) + error
    blends = all_blends(rollout, V).items()
    moments = {name: conditional_moments(rollout, p, x) for name, x in blends}
    return mdp, pi, V, moments


def bias_and_variance(kind, settings, **critic):
    """Squared bias and variance of every n or every λ, as (20 problems, settings) each.

    Averages over the visited (s, a); bias is that of R̂ = Â + V(s) against Q^π(s, a).
    """
    biases, variances = np.empty((2, 20, len(settings)))
    for seed in range(20):
        mdp, pi, V, moments = moments_of_all_blends(seed, **critic)
        for k, setting in enumerate(settings):
            weight, average, variance = moments[kind, setting]
            bias = average + V[:, None] - mdp.action_values(pi)
            biases[seed, k] = (weight * bias**2).sum()
            variances[seed, k] = (weight * variance).sum()
    return biases, variances


def logged_kl(old, new, states=(0,), **kind):
    """D̄_KL as ppo_kl.update logs it when its step leads from logits old to new."""
    steps = len(states)
    walk = tabular.Trajectory([*states, 0], [0] * steps, np.zeros(steps), False)
    _, metrics = tabular.update_at(ppo_kl, old, new, [walk], **kind)
    return metrics["train/kl"]


def sigmoid_logits(theta):
    """Logits of π_θ(1) = σ(θ), π_θ(2) = 1 - σ(θ), for one state."""
    return np.array([[theta, 0.0]])


# C7 and C20: the corridor of Sutton and Barto's example 13.1, whose states look all
# alike: three places in a row and the exit, and in the middle one left and right are
# swapped. Every step costs 1. The policy has one parameter, π_θ(right) = σ(θ).

HORIZON = 50
SLOPE, TOP = -1.5, 0.35  # values of θ
K = 100  # steps on a batch in PPO
PLAIN = "--gamma 1 --max-grad-norm inf --no-normalize-advantages"
WHOLE_BATCH = f"--gae-lambda 1 --epochs {K} --minibatch-size 1000000"
FLAGS = {  # Â = G_t - V(s_t) in all of them
    vpg_baseline: "--critic-epochs 1",
    actor_critic: "--critic-epochs 1 --n-steps inf",
    ppo_kl: WHOLE_BATCH,
    ppo_clip: WHOLE_BATCH,
}


def sigmoid(theta):
    return 1 / (1 + np.exp(-theta))


def J(theta):
    """Expected return of an episode, exactly: minus the probability to be inside."""
    p = sigmoid(theta)
    left, middle, right = 1.0, 0.0, 0.0  # probabilities of the three places
    total = 0.0
    for _ in range(HORIZON):
        total -= left + middle + right
        moved = middle * p + left * (1 - p), left * p + right * (1 - p)
        left, middle, right = *moved, middle * (1 - p)
    return total


def walk_corridor(theta, rng, m=128, scale=1.0):
    """A rollout of m whole trajectories; a step costs 1, or scale."""
    actions = (rng.random((HORIZON, m)) < sigmoid(theta)).astype(int)  # 1 is right
    place = np.zeros(m, dtype=int)
    valid, done = np.zeros((2, HORIZON, m), dtype=bool)
    for t in range(HORIZON):
        valid[t] = place < 3
        right = np.where(place == 1, actions[t] == 0, actions[t] == 1)
        moved = np.maximum(place + np.where(right, 1, -1), 0)
        place = np.where(valid[t], moved, place)
        done[t] = place == 3
    done[-1] = True  # the horizon is the end, as in the lecture's sums
    obs = np.zeros((HORIZON + 1, m, 1), dtype=np.float32)  # always the same state
    rewards = np.full((HORIZON, m), -scale)
    fields = obs, actions, rewards, done, done, valid
    return vpg_baseline.Rollout(*fields, episodes=[], num_steps=int(valid.sum()))


class SigmoidPolicy(nn.Module):
    """π_θ(right) = σ(θ)."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta]))

    def distribution(self, obs):
        logits = torch.cat([torch.zeros(1), self.theta])
        return Categorical(logits=logits.expand(len(obs), 2), validate_args=False)


def learn(script, alpha, seed, iterations, flags="", method=SGD, theta=SLOPE, **batch):
    """θ_0, θ_1, ... by the script's update with step size α; batch: see walk_corridor.

    V becomes the mean of the returns by one step of SGD with step size 0.5.
    """
    flags = f"{PLAIN} {FLAGS[script]} {flags} --total-steps 1e9"
    args = script.parse_args(flags.split())
    policy, critic = SigmoidPolicy(theta), nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
    nn.init.zeros_(critic[0].bias)  # V, one number for all states
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizers = method(policy.parameters(), alpha), SGD(critic.parameters(), 0.5)
    beta = [args.beta] if script is ppo_kl else []
    thetas = [theta]
    for _ in range(iterations):
        rollout = walk_corridor(thetas[-1], rng, **batch)
        args.num_envs = rollout.valid.shape[1]
        metrics = script.update(args, policy, critic, *optimizers, rollout, *beta)
        if script is ppo_kl:
            beta = [ppo_kl.adapt_beta(*beta, metrics["train/kl"], args.target_kl)]
        thetas.append(policy.theta.item())
    return np.array(thetas)


def surrogate(pi, new, A):
    """E_{a~π}[π'/π A^π(s, a)] for each s, by the function that clips, for ε = ∞."""
    ratio = torch.tensor(new / pi)
    terms = ppo_clip.clipped_surrogate(ratio, torch.tensor(A), math.inf)
    return (pi * terms.numpy()).sum(axis=1)


def improvement_and_penalty(mdp, pi):
    """A function of π': L_π(π') and C √(E_{s~d^π} D_KL(π'‖π)[s]), C as in test_07."""
    A, d, gamma = mdp.advantages(pi), mdp.state_distribution(pi), mdp.gamma

    def of(new):
        gain = surrogate(pi, new, A)
        C = np.sqrt(2) * gamma * np.abs(gain).max() / (1 - gamma) ** 2
        kl = max(d @ tabular.kl_per_state(new, pi), 0.0)  # rounding can make it -1e-17
        return d @ gain / (1 - gamma), C * np.sqrt(kl)

    return of


def close_policies(seed, difference=0.15):
    """An MDP with three states, and two policies whose logits differ slightly."""
    rng = np.random.default_rng(seed)
    mdp = tabular.random_mdp(rng, 3, 2, 0.9)
    logits = rng.normal(size=(3, 2))
    close = logits + difference * rng.normal(size=(3, 2))
    return mdp, tabular.softmax(close), tabular.softmax(logits)


def weight_variances(mdp, pi, other, horizon):
    """Variances under π' of two weights, for the horizons 1, 2, ...

    The first is that of the product of all ratios so far. The mean of its square goes,
    in a step from s to s', by the factor Σ_a π'(a|s) (π(a|s)/π'(a|s))² P(s'|s, a).
    The second is that of the last ratio alone. Both weights have mean 1.
    """
    M = np.einsum("sa,sax->sx", pi**2 / other, mdp.P)
    square, at_t, product, single = mdp.mu, mdp.mu, [], []
    for _ in range(horizon):
        single.append(at_t @ (pi**2 / other).sum(axis=1) - 1)
        at_t = at_t @ mdp.transition_matrix(other)
        square = square @ M
        product.append(square.sum() - 1)
    return np.array(product), np.array(single)


# more iterations in a short run than with the defaults
SHORT = "--rollout-steps 128 --epochs 10 --learning-rate 1e-3 --gae-lambda 0.97"


def updates(script, flags, run_dir, iterations=None):
    """args, and for every update of a run: θ_k, θ_{k+1}, its batch, V, its metrics.

    The run is the script's own train(); it is interrupted after so many iterations. V
    has shape (T + 1, N) and is the critic's before the update.
    """
    args = script.parse_args([*flags.split(), "--run-dir", str(run_dir)])
    seen, original = [], script.update

    def watched(args, policy, value_function, *others):
        if len(seen) == iterations:
            raise KeyboardInterrupt
        rollout = others[2]
        with torch.no_grad():
            values = value_function(torch.as_tensor(rollout.obs)).numpy()
        before = copy.deepcopy(policy)
        metrics = original(args, policy, value_function, *others)
        seen.append((before, copy.deepcopy(policy), rollout, values, dict(metrics)))
        return metrics

    with patch.object(script, "update", watched):
        script.train(args)
    return args, seen


def along_the_update(args, before, after, rollout, values, alphas):
    """L_θk, L^CLIP and the KL at θ_k + α (θ_{k+1} - θ_k): three rows."""
    data = rollout.rewards, values, rollout.terminated, rollout.done
    advantages = generalized_advantages(*data, args.gamma, args.gae_lambda)
    advantages = normalize(advantages, rollout.valid)[rollout.valid]
    advantages = torch.as_tensor(advantages).float()
    obs = torch.as_tensor(rollout.obs[:-1][rollout.valid])
    actions = torch.as_tensor(rollout.actions[rollout.valid])
    start = nn.utils.parameters_to_vector(before.parameters())
    end = nn.utils.parameters_to_vector(after.parameters())
    policy, rows = copy.deepcopy(before), []
    with torch.no_grad():
        old = before.distribution(obs)
        for alpha in alphas:
            theta = start + alpha * (end - start)
            nn.utils.vector_to_parameters(theta, policy.parameters())
            new = policy.distribution(obs)
            ratio = (new.log_prob(actions) - old.log_prob(actions)).exp()
            gains = [
                ppo_clip.clipped_surrogate(ratio, advantages, epsilon).mean().item()
                for epsilon in (math.inf, args.clip_epsilon)
            ]
            rows.append((*gains, kl_divergence(old, new).mean().item()))
    return np.array(rows).T
