"""Small Markov decision processes of which every quantity is computed exactly.

Arrays are NumPy, float64; states are 0 ... S-1, and S is the end of an episode:

    P     (S, A, S)  P[s, a, s'] = P(s'|s, a); what a row lacks to 1 ends the episode
    r     (S, A)     the reward of action a in state s
    mu    (S,)       distribution of the first state
    pi    (S, A)     a policy, pi[s, a] = π(a|s)

The second half hands such problems to the scripts, as tables and as rollouts.
"""

import math
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

import ppo_kl
import reinforce
import vpg_baseline


class MDP(NamedTuple):
    """A problem, and what is true of a policy pi in it."""

    P: np.ndarray
    r: np.ndarray
    mu: np.ndarray
    gamma: float

    def transition_matrix(self, pi):
        """P^π(s'|s) = Σ_a π(a|s) P(s'|s, a), as (S, S)."""
        return np.einsum("sa,sax->sx", pi, self.P)

    def expected_rewards(self, pi):
        """r^π(s) = Σ_a π(a|s) r(s, a)."""
        return (pi * self.r).sum(axis=1)

    def state_values(self, pi):
        """V^π, the solution of V = r^π + γ P^π V."""
        system = np.eye(len(pi)) - self.gamma * self.transition_matrix(pi)
        return np.linalg.solve(system, self.expected_rewards(pi))

    def action_values(self, pi):
        """Q^π(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V^π(s')."""
        return self.r + self.gamma * self.P @ self.state_values(pi)

    def advantages(self, pi):
        """A^π(s, a) = Q^π(s, a) - V^π(s)."""
        return self.action_values(pi) - self.state_values(pi)[:, None]

    def performance(self, pi):
        """J(π) = E_{s_0~μ}[V^π(s_0)]."""
        return self.mu @ self.state_values(pi)

    def performance_gradient(self, logits):
        """∇_θ J of the softmax policy with these logits θ, by central differences."""
        return central_differences(lambda x: self.performance(softmax(x)), logits)

    def visits(self, pi):
        """Σ_t γ^t P(s_t = s | π), the solution of n = μ + γ (P^π)ᵀ n."""
        system = np.eye(len(pi)) - self.gamma * self.transition_matrix(pi).T
        return np.linalg.solve(system, self.mu)

    def state_distribution(self, pi):
        """d^π(s) = (1-γ) Σ_t γ^t P(s_t = s | π), for an MDP that never ends."""
        return (1 - self.gamma) * self.visits(pi)

    def all_trajectories(self, horizon=math.inf):
        """Every possible trajectory, cut after horizon steps if it has not ended."""
        found = []

        def grow(states, actions, dynamics):
            s, ended = states[-1], states[-1] == len(self.r)
            if ended or len(actions) == horizon:
                rewards = self.r[states[:-1], actions]
                found.append(Trajectory(states, actions, rewards, ended, dynamics))
                return
            for a, row in enumerate(self.P[s]):
                odds = np.append(row, 1 - row.sum())
                for s_next in np.flatnonzero(odds > 1e-12):
                    follow = states + [int(s_next)], actions + [a]
                    grow(*follow, dynamics * odds[s_next])

        for s in np.flatnonzero(self.mu):
            grow([int(s)], [], self.mu[s])
        return found


class Trajectory(NamedTuple):
    """T steps, to the end of the episode or cut."""

    states: list  # s_0 ... s_T; s_T = S if it terminated
    actions: list
    rewards: np.ndarray
    terminated: bool
    dynamics: float = 1.0  # μ(s_0) Π P(s_{t+1}|s_t, a_t)

    def returns(self):
        """G_t at every step, without a discount."""
        return np.cumsum(self.rewards[::-1])[::-1]

    def weighted_scores(self, pi, weights):
        """Σ_t ∇ log π_θ(a_t|s_t) weights[t] for a tabular softmax policy, as (S, A)."""
        total = np.zeros_like(pi)
        for s, a, weight in zip(self.states, self.actions, weights):
            total[s] -= weight * pi[s]  # ∇ log π(a|s): in row s, 1 at a, less π(·|s)
            total[s, a] += weight
        return total


def random_mdp(rng, states, actions, gamma):
    """It never ends, and any state can follow any state."""
    P = rng.dirichlet(np.ones(states), size=(states, actions))
    r = rng.normal(size=(states, actions))
    return MDP(P, r, rng.dirichlet(np.ones(states)), gamma)


def random_policy(rng, states, actions):
    return rng.dirichlet(np.ones(actions), size=states)


def episodic_mdp(rng, layers, actions, gamma):
    """Goes from layer to layer; an episode ends after the last layer, or earlier.

    States 2 t and 2 t + 1 can only be visited at time t, so that V(s) needs no time.
    Rewards are multiples of 1/8, and sums of a few of them are exact in float32.
    """
    states = 2 * layers
    P = np.zeros((states, actions, states))
    for s in range(states - 2):  # from the last layer every action ends it
        first = (s // 2 + 1) * 2
        odds = rng.dirichlet(np.ones(3), size=actions)
        P[s, :, first : first + 2] = odds[:, :2]  # the rest ends it early
    r = rng.integers(-8, 17, size=(states, actions)) / 8
    mu = np.zeros(states)
    mu[:2] = rng.dirichlet(np.ones(2))
    return MDP(P, r, mu, gamma)


def episodic_problem(seed, layers=3, actions=2, gamma=1.0):
    """A random episodic MDP, and the logits of a policy."""
    rng = np.random.default_rng(seed)
    mdp = episodic_mdp(rng, layers, actions, gamma)
    return mdp, rng.normal(size=mdp.r.shape)


def bandit(rewards):
    """One state, one step; action a earns rewards[a]."""
    r = np.array([rewards], dtype=float)
    return MDP(np.zeros((1, r.size, 1)), r, np.ones(1), 1.0)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def kl_per_state(p, q):
    """D_KL(p‖q)[s] = Σ_a p(a|s) log(p(a|s) / q(a|s)), as (S,)."""
    return (p * np.log(p / q)).sum(axis=1)


def central_differences(f, x, step=1e-5):
    """The gradient of f at the array x."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        change = np.zeros_like(x)
        change[index] = step
        gradient[index] = (f(x + change) - f(x - change)) / (2 * step)
    return gradient


def probabilities(trajectories, pi):
    """P(τ|π) of each trajectory."""
    return np.array(
        [tau.dynamics * pi[tau.states[:-1], tau.actions].prod() for tau in trajectories]
    )


# From here on: the same problems in the form that the scripts take.


class SoftmaxPolicy(nn.Module):
    """π_θ(a|s) = softmax(θ[s])[a] for one-hot observations; θ is a table, float64."""

    def __init__(self, logits):
        super().__init__()
        end = np.zeros_like(logits[:1])  # the end of an episode needs a row, too
        self.logits = nn.Parameter(torch.tensor(np.concatenate([logits, end])))

    def distribution(self, obs):
        return Categorical(logits=obs.double() @ self.logits, validate_args=False)


class TableValues(nn.Module):
    """V(s) for one-hot observations, float64; at the end, where V is 0, a wrong 7."""

    def __init__(self, values):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(np.append(values, 7.0)))

    def forward(self, obs):
        return obs.double() @ self.table


def make_rollout(trajectories, states):
    """One column for each trajectory, as a script's collect function would return it.

    The rows after the end of a shorter trajectory are not valid, and they are garbage:
    state 0 with a reward of 99 at every step.
    """
    lengths = np.array([len(tau.actions) for tau in trajectories])
    shape = lengths.max(), len(lengths)
    t = np.arange(lengths.max())[:, None]
    valid, done = t < lengths, t >= lengths - 1
    ends = [tau.terminated for tau in trajectories]
    terminated = np.where(t == lengths - 1, ends, done)
    visited = np.zeros((shape[0] + 1, shape[1]), dtype=int)
    actions = np.zeros(shape, dtype=int)
    rewards = np.full(shape, 99.0)
    for i, tau in enumerate(trajectories):
        visited[: lengths[i] + 1, i] = tau.states
        actions[: lengths[i], i] = tau.actions
        rewards[: lengths[i], i] = tau.rewards
    obs = np.eye(states + 1, dtype=np.float32)[visited]
    fields = actions, rewards, terminated, done, valid
    return reinforce.Rollout(obs, *fields, episodes=[], num_steps=int(valid.sum()))


def values_along(rollout, values):
    """V(s_t) of every state in a rollout, as (T + 1, N)."""
    with torch.no_grad():
        return TableValues(values)(torch.as_tensor(rollout.obs)).numpy()


@cache
def default_flags(script):
    return vars(script.parse_args([]))


def exact_args(script, **changes):
    """The script's flags without anything that changes the plain estimate ĝ."""
    flags = default_flags(script)
    assert changes.keys() <= flags.keys(), changes
    plain = {
        "gamma": 1.0,
        "num_envs": 1,  # m, how many trajectories the sum is divided by
        "max_grad_norm": math.inf,
        "normalize_advantages": False,
        "critic_epochs": 1,
        "epochs": 1,
        "minibatch_size": 10**9,
    }
    plain = {name: value for name, value in plain.items() if name in flags}
    return SimpleNamespace(**flags | plain | changes)


def run_update(script, args, policy, optimizer, rollout, values=None):
    """script.update; V is a table of values, where the script has a V, else 0.

    V is re-fitted by a large step, so that an estimate made with the new V would show.
    """
    if script is reinforce:
        return script.update(args, policy, optimizer, rollout)
    states = rollout.obs.shape[2] - 1
    critic = TableValues(np.zeros(states) if values is None else values)
    optimizers = optimizer, torch.optim.SGD(critic.parameters(), lr=1.0)
    beta = [args.beta] if script is ppo_kl else []
    return script.update(args, policy, critic, *optimizers, rollout, *beta)


class MoveTo:
    """An optimiser whose every step puts the parameter at a given place."""

    def __init__(self, parameter, place):
        self.parameter, self.place = parameter, torch.as_tensor(place).detach()

    def zero_grad(self):
        self.parameter.grad = None

    def step(self):
        with torch.no_grad():
            self.parameter.copy_(self.place)


def update_at(script, old, new, trajectories, values=None, kind=SoftmaxPolicy, **flags):
    """ĝ (S, A) of the last epoch of script.update, and its metrics; π_k has logits old.

    The first step moves the policy to new, where a second epoch finds and leaves it.
    """
    policy = kind(old)
    optimizer = MoveTo(policy.logits, kind(new).logits)
    args = exact_args(script, num_envs=len(trajectories), **flags)
    rollout = make_rollout(trajectories, len(old))
    metrics = run_update(script, args, policy, optimizer, rollout, values)
    return -policy.logits.grad.numpy()[:-1], metrics  # the scripts minimise -objective


def estimate(script, logits, trajectories, values=None, **flags):
    """ĝ (S, A) as script.update computes it on this batch; the policy does not move."""
    return update_at(script, logits, logits, trajectories, values, **flags)[0]


class Estimates(NamedTuple):
    """Probabilities p (N,) of all trajectories, and an estimate g (N, S, A) of each."""

    p: np.ndarray
    g: np.ndarray

    def mean(self):
        return np.tensordot(self.p, self.g, axes=1)

    def variance(self):
        """The sum of the variances of all components."""
        return np.tensordot(self.p, (self.g - self.mean()) ** 2, axes=1).sum()


def estimates(script, mdp, logits, values=None, **flags):
    """The ĝ that script.update computes on τ alone, for every trajectory τ.

    It is a sum over the steps of τ; that of the scripts that average over a batch's
    steps instead is multiplied by their number.
    """
    averaged = script not in (reinforce, vpg_baseline)
    trajectories = mdp.all_trajectories()
    gradients = []
    for tau in trajectories:
        gradient = estimate(script, logits, [tau], values, **flags)
        gradients.append(gradient * len(tau.actions) if averaged else gradient)
    return Estimates(probabilities(trajectories, softmax(logits)), np.array(gradients))
