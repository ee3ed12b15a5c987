"""Small Markov decision processes of which every quantity is computed exactly.

States are numbered 0 ... S-1 and actions 0 ... A-1. Arrays are NumPy, float64:

    P     (S, A, S)  P[s, a, s'] = P(s'|s, a); what a row lacks to 1 ends the episode
    r     (S, A)     the reward of action a in state s
    mu    (S,)       distribution of the first state
    pi    (S, A)     a policy, pi[s, a] = π(a|s)

The number S, one past the last state, stands for the end of an episode. The second half
of this file hands such problems to the scripts: a policy and a value function that are
tables, and a rollout made of given trajectories.
"""

import math
from collections import namedtuple
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

import ppo_kl
import reinforce
import vpg_baseline

Trajectory = namedtuple("Trajectory", "states actions rewards terminated dynamics")


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

    def visits(self, pi):
        """Σ_t γ^t P(s_t = s | π), the solution of n = μ + γ (P^π)ᵀ n."""
        system = np.eye(len(pi)) - self.gamma * self.transition_matrix(pi).T
        return np.linalg.solve(system, self.mu)

    def state_distribution(self, pi):
        """d^π(s) = (1-γ) Σ_t γ^t P(s_t = s | π), for an MDP that never ends."""
        return (1 - self.gamma) * self.visits(pi)

    def performance_gradient(self, logits, step=1e-5):
        """∇_θ J of the softmax policy with these logits θ, by central differences."""
        gradient = np.zeros_like(logits)
        for index in np.ndindex(*logits.shape):
            change = np.zeros_like(logits)
            change[index] = step
            rise = self.performance(softmax(logits + change))
            fall = self.performance(softmax(logits - change))
            gradient[index] = (rise - fall) / (2 * step)
        return gradient

    def all_trajectories(self, horizon=math.inf):
        """Every possible trajectory, cut after horizon steps if it has not ended.

        A trajectory holds its states s_0 ... s_T (s_T = S if it terminated), the
        actions and rewards of its T steps, and in dynamics the factors of its
        probability that are not the policy's, μ(s_0) Π P(s_{t+1}|s_t, a_t).
        """
        end = len(self.r)
        found = []

        def grow(states, actions, dynamics):
            s, t = states[-1], len(actions)
            if s == end or t == horizon:
                rewards = self.r[states[:-1], actions]
                found.append(Trajectory(states, actions, rewards, s == end, dynamics))
                return
            for a, row in enumerate(self.P[s]):
                odds = np.append(row, 1 - row.sum())
                for s_next in np.flatnonzero(odds > 1e-12):
                    follow = states + [int(s_next)], actions + [a]
                    grow(*follow, dynamics * odds[s_next])

        for s in np.flatnonzero(self.mu):
            grow([int(s)], [], self.mu[s])
        return found


def random_mdp(rng, states, actions, gamma):
    """It never ends, and any state can follow any state."""
    P = rng.dirichlet(np.ones(states), size=(states, actions))
    r = rng.normal(size=(states, actions))
    return MDP(P, r, rng.dirichlet(np.ones(states)), gamma)


def episodic_mdp(rng, layers, width, actions, gamma=1.0):
    """Goes from layer to layer; an episode ends after the last layer, or earlier.

    State t * width + i can only be visited at time t, so that V(s) needs no time.
    Rewards are multiples of 1/8: sums of a few of them are exact even in the float32
    that the scripts compute in.
    """
    states = layers * width
    P = np.zeros((states, actions, states))
    for s in range(states - width):  # from the last layer every action ends it
        first = (s // width + 1) * width
        odds = rng.dirichlet(np.ones(width + 1), size=actions)
        P[s, :, first : first + width] = odds[:, :width]  # the rest ends it early
    r = rng.integers(-8, 17, size=(states, actions)) / 8
    mu = np.zeros(states)
    mu[:width] = rng.dirichlet(np.ones(width))
    return MDP(P, r, mu, gamma)


def episodic_problem(seed, layers=3, actions=2, gamma=1.0):
    """A random episodic MDP with two states in a layer, and the logits of a policy."""
    rng = np.random.default_rng(seed)
    mdp = episodic_mdp(rng, layers, width=2, actions=actions, gamma=gamma)
    return mdp, rng.normal(size=(2 * layers, actions))


def bandit(rewards):
    """One state, one step; action a earns rewards[a]."""
    r = np.array([rewards], dtype=float)
    return MDP(np.zeros((1, r.size, 1)), r, np.ones(1), 1.0)


def random_policy(rng, states, actions):
    return rng.dirichlet(np.ones(actions), size=states)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def kl_per_state(p, q):
    """D_KL(p‖q)[s] = Σ_a p(a|s) log(p(a|s) / q(a|s)), as (S,)."""
    return (p * np.log(p / q)).sum(axis=1)


def log_policy_gradient(pi, s, a):
    """∇_θ log π_θ(a|s) of a tabular softmax policy: in row s, 1 at a, less π(·|s)."""
    gradient = np.zeros_like(pi)
    gradient[s] = -pi[s]
    gradient[s, a] += 1
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
    """V(s) for one-hot observations, float64.

    The end of an episode gets the value 7, which is wrong. V is 0 there by definition,
    so code that asks the table for it makes a mistake that shows.
    """

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
    steps, columns = max(len(tau.actions) for tau in trajectories), len(trajectories)
    visited = np.zeros((steps + 1, columns), dtype=int)
    actions = np.zeros((steps, columns), dtype=int)
    rewards = np.full((steps, columns), 99.0)
    terminated = np.ones((steps, columns), dtype=bool)
    done = np.ones((steps, columns), dtype=bool)
    valid = np.zeros((steps, columns), dtype=bool)
    for i, tau in enumerate(trajectories):
        length = len(tau.actions)
        visited[: length + 1, i] = tau.states
        actions[:length, i] = tau.actions
        rewards[:length, i] = tau.rewards
        terminated[:length, i] = done[:length, i] = False
        terminated[length - 1, i] = tau.terminated
        done[length - 1, i] = True
        valid[:length, i] = True
    obs = np.eye(states + 1, dtype=np.float32)[visited]
    fields = actions, rewards, terminated, done, valid
    return reinforce.Rollout(obs, *fields, episodes=[], num_steps=int(valid.sum()))


def values_along(rollout, values):
    """V(s_t) of every state in a rollout, as (T + 1, N)."""
    with torch.no_grad():
        return TableValues(values)(torch.as_tensor(rollout.obs)).numpy()


def exact_args(script, **changes):
    """The script's arguments without anything that changes the plain estimate ĝ."""
    args = script.parse_args([])
    plain = {
        "gamma": 1.0,
        "num_envs": 1,  # m, how many trajectories the sum is divided by
        "max_grad_norm": math.inf,
        "normalize_advantages": False,
        "critic_epochs": 1,
        "epochs": 1,
        "minibatch_size": 10**9,
    }
    vars(args).update({name: x for name, x in plain.items() if hasattr(args, name)})
    assert changes.keys() <= vars(args).keys(), changes
    vars(args).update(changes)
    return args


class MoveTo:
    """An optimiser whose every step puts the parameter at a given place."""

    def __init__(self, parameter, place):
        self.parameter, self.place = parameter, torch.as_tensor(place).detach()

    def zero_grad(self):
        self.parameter.grad = None

    def step(self):
        with torch.no_grad():
            self.parameter.copy_(self.place)


def run_update(script, args, policy, optimizer, rollout, values=None):
    """script.update; V is a table of values, where the script has a V.

    V is re-fitted by a large step, so that an estimate made with the new V would show.
    """
    if script is reinforce:
        return script.update(args, policy, optimizer, rollout)
    critic = TableValues(values)
    critic_optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    beta = [args.beta] if script is ppo_kl else []
    return script.update(
        args, policy, critic, optimizer, critic_optimizer, rollout, *beta
    )


def update_at(script, old, new, rollout, values=None, **changes):
    """ĝ (S, A) of a PPO's update at logits new, and its metrics; π_k has logits old.

    The first of two epochs moves the policy to new, and the second one keeps it there:
    the gradient that remains is that of the second. V is 0 unless values are given.
    """
    values = np.zeros(len(old)) if values is None else values
    policy = SoftmaxPolicy(old)
    optimizer = MoveTo(policy.logits, SoftmaxPolicy(new).logits)
    args = exact_args(script, epochs=2, **changes)
    metrics = run_update(script, args, policy, optimizer, rollout, values)
    return -policy.logits.grad.numpy()[:-1], metrics  # the scripts minimise -objective


def estimate(script, args, logits, rollout, values=None):
    """ĝ (S, A) as script.update computes it on this rollout; no step is taken."""
    policy = SoftmaxPolicy(logits)
    stay = torch.optim.SGD(policy.parameters(), lr=0.0)
    run_update(script, args, policy, stay, rollout, values)
    return -policy.logits.grad.numpy()[:-1]


def estimates(script, args, mdp, logits, values=None):
    """P(τ|π) and the ĝ that script.update computes on τ alone, for every trajectory τ.

    Shapes are (N,) and (N, S, A). ĝ is a sum over the steps of τ; the scripts that
    average over a batch's steps instead are multiplied by their number.
    """
    trajectories = mdp.all_trajectories()
    gradients = []
    for tau in trajectories:
        rollout = make_rollout([tau], len(logits))
        gradient = estimate(script, args, logits, rollout, values)
        averaged = script not in (reinforce, vpg_baseline)
        gradients.append(gradient * len(tau.actions) if averaged else gradient)
    return probabilities(trajectories, softmax(logits)), np.array(gradients)


def mean(weights, x):
    """E[x] over axis 0."""
    return np.tensordot(weights, x, axes=1)


def total_variance(weights, x):
    """Sum of the variances of all components of x, over axis 0."""
    return mean(weights, (x - mean(weights, x)) ** 2).sum()
