"""What many tests need: short runs, their log read back, rollouts, odd environments."""

import itertools
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

ROOT = Path(__file__).parents[1]
SCRIPTS = [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]
WHOLE = [reinforce, vpg_baseline]  # these collect whole trajectories,
PARTIAL = [actor_critic, ppo_kl, ppo_clip]  # these a number of steps
WITH_V = [vpg_baseline, actor_critic, ppo_kl, ppo_clip]
PPOS = [ppo_kl, ppo_clip]


def each(scripts):
    """Parametrizes a test over scripts, with their names as ids."""
    return pytest.mark.parametrize("script", scripts, ids=lambda s: s.__name__)


every_script = each(SCRIPTS)

# ----------------------------------------------------------------------- short runs


def short_flags(script, run_dir):
    """A run of a few iterations, each of two copies of CartPole-v1."""
    flags = "--num-envs 2 --max-episode-steps 40 --total-steps 500"
    if script in PARTIAL:
        flags += " --rollout-steps 50"
    if script in PPOS:
        flags += " --epochs 3 --minibatch-size 32"
    return [*flags.split(), "--hidden-sizes", "16", "--run-dir", str(run_dir)]


def short_args(script, run_dir, **changes):
    """The arguments of a short run, with changes where the script has such a flag."""
    args = vars(script.parse_args(short_flags(script, run_dir)))
    assert changes.keys() <= ALL_ARGS
    args.update({name: changes[name] for name in changes if name in args})
    return SimpleNamespace(**args)


ALL_ARGS = {name for script in SCRIPTS for name in vars(script.parse_args([]))}


def watch(monkeypatch, module, name):
    """A list into which go what module.name is given and returns, call by call."""
    original, calls = getattr(module, name), []

    def watched(*given, **named):
        result = original(*given, **named)
        calls.append((given, result))
        return result

    monkeypatch.setattr(module, name, watched)
    return calls


def train_and_watch(script, args):
    """The rollouts that update() learnt from in a run, and what train() returned."""
    with pytest.MonkeyPatch.context() as patch:
        calls = watch(patch, script, "update")
        result = script.train(args)
    parts = [part for given, _ in calls for part in given]
    return [part for part in parts if isinstance(part, script.Rollout)], result


def train_n_iterations(script, args, n, error=KeyboardInterrupt):
    """train(), ended by the error as soon as n iterations are logged."""
    log, left = script.log, [n]

    def log_then_fail(*given):
        log(*given)
        left[0] -= 1
        if left[0] == 0:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "log", log_then_fail)
        return script.train(args)


def scalars(run_dir):
    """{name: [(step, value), ...]} of a run's folder, as TensorBoard reads it."""
    accumulator = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    names = accumulator.Tags()["scalars"]
    return {
        name: [(e.step, e.value) for e in accumulator.Scalars(name)] for name in names
    }


def values(run_dir, name):
    """One scalar's values, in their order."""
    return [value for _, value in scalars(run_dir)[name]]


def checkpoint(run_dir):
    return torch.load(Path(run_dir, "checkpoint.pt"), weights_only=True)


def assert_equal(one, other):
    """Bit for bit, through nested dictionaries and lists, with tensors in them."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            assert_equal(left, right)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        assert one == other


# --------------------------------------------------------------- update() on its own

OBSERVATION, ACTIONS = 3, 3  # sizes, in the rollouts below
ACTION_SPACES = {"discrete": spaces.Discrete(ACTIONS), "box": spaces.Box(-1, 1, (2,))}
each_action_space = pytest.mark.parametrize("space", ACTION_SPACES)


def spaces_of(action_space, observation=OBSERVATION):
    """What Policy and ValueFunction want to know about the environments."""
    return SimpleNamespace(
        single_observation_space=spaces.Box(-1, 1, (observation,)),
        single_action_space=action_space,
    )


def networks(script, space="discrete", seed=0):
    """The script's Policy and ValueFunction in double precision, at random weights.

    REINFORCE, which has no V, gets that of the others; its update() leaves it alone.
    """
    envs = spaces_of(ACTION_SPACES[space])
    kind = getattr(script, "ValueFunction", actor_critic.ValueFunction)

    class DoublePolicy(script.Policy):
        def distribution(self, obs):
            return super().distribution(obs.double())

    class DoubleValueFunction(kind):
        def forward(self, obs):
            return super().forward(obs.double())

    policy = DoublePolicy(envs, [5], 1.0).double()
    value_function = DoubleValueFunction(envs, [5]).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*policy.parameters(), *value_function.parameters()]:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.5 * noise)
    return policy, value_function


def plain_args(script, rollout, **changes):
    """The script's flags, with everything off that would alter the plain gradient."""
    args = script.parse_args([])
    plain = {
        "num_envs": rollout.valid.shape[1],
        "gamma": 0.9,
        "max_grad_norm": math.inf,
        "normalize_advantages": False,
        "entropy_coefficient": 0.0,
        "critic_epochs": 1,
        "epochs": 1,
        "minibatch_size": rollout.valid.size,
    }
    vars(args).update(plain | changes)
    return args


def call_update(script, args, policy, critic, optimizer, critic_optimizer, rollout):
    """update() with as many of these arguments as this script's one takes."""
    if script is reinforce:
        return script.update(args, policy, optimizer, rollout)
    last = [args.beta] if script is ppo_kl else []
    networks = args, policy, critic, optimizer, critic_optimizer
    return script.update(*networks, rollout, *last)


def make_rollout(script, obs, actions, rewards, terminated, done, valid):
    obs, rewards = np.asarray(obs, np.float32), np.asarray(rewards, np.float64)
    flags = [np.asarray(flag, dtype=bool) for flag in (terminated, done, valid)]
    return script.Rollout(obs, np.asarray(actions), rewards, *flags, [], 0)


def random_rollout(script, space="discrete", seed=0, T=9, N=3):
    """Random rows with episodes of random length; rows that are not valid hold garbage.

    For the scripts that take whole trajectories, a column's first episode is valid. For
    the others, the row after an end is a reset row, and then the next episode begins.
    """
    rng = np.random.default_rng(seed)
    obs, rewards = rng.normal(size=(T + 1, N, OBSERVATION)), rng.normal(size=(T, N))
    if space == "discrete":
        actions = rng.integers(ACTIONS, size=(T, N))
    else:
        actions = rng.normal(size=(T, N, 2)).astype(np.float32)
    terminated, truncated = rng.random((2, T, N)) < 0.15
    done = terminated | truncated
    valid = np.ones((T, N), dtype=bool)
    if script in WHOLE:
        done[-1] = True
        valid[1:] = np.cumsum(done, axis=0)[:-1] == 0
        T = valid.any(axis=1).sum()  # the longest trajectory's length
        obs, actions, rewards = obs[: T + 1], actions[:T], rewards[:T]
        terminated, done, valid = terminated[:T], done[:T], valid[:T]
    else:
        valid[0, 0] = False  # the rollout before ended with an end here
        for t, i in itertools.product(range(T), range(N)):
            if t > 0:
                valid[t, i] = not (done[t - 1, i] and valid[t - 1, i])
        terminated, done = terminated & valid, done & valid
    rewards[~valid] = 1000.0
    return make_rollout(script, obs, actions, rewards, terminated, done, valid)


def all_values(critic, rollout):
    """V(s_t) of all rows, (T + 1, N), as it is now."""
    return critic(torch.as_tensor(rollout.obs)).detach().numpy()


# For each row, from the definitions or the formulas for Gaussians.


def slow_kl(old, new):
    """KL(old‖new)."""
    if isinstance(old, torch.distributions.Categorical):
        return (old.probs * (old.probs / new.probs).log()).sum(-1)
    (m, s), (n, t) = ((d.base_dist.loc, d.base_dist.scale) for d in (old, new))
    return (torch.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(-1)


def slow_entropy(distribution):
    """-Σ p log p, or the sum of ½ log(2πe σ²)."""
    if isinstance(distribution, torch.distributions.Categorical):
        p = distribution.probs
        return -(p * p.log()).sum(-1)
    variance = distribution.base_dist.scale**2
    return (0.5 * torch.log(2 * math.pi * math.e * variance)).sum(-1)


# The lecture's sums, term by term. v holds V(s_t), (T + 1, N); all give {(t, i): ...}
# for the valid rows. Only the rows of one episode are looked at.


def slow_n_step_return(rollout, v, t, i, gamma, n):
    """(R̂_t^(n), the number of rewards in it): up to n rewards, an end or the border."""
    total, k = 0.0, 0
    while True:
        total += gamma**k * rollout.rewards[t + k, i]
        k += 1
        if rollout.terminated[t + k - 1, i]:
            return total, k
        if k == n or rollout.done[t + k - 1, i] or t + k == len(rollout.rewards):
            return total + gamma**k * v[t + k, i], k


def slow_targets(rollout, v, gamma, n=math.inf, lam=None):
    """R̂_t: with n rewards; or, given λ, of all n, weighted by (1-λ) λ^{n-1}."""
    targets = {}
    for t, i in np.argwhere(rollout.valid).tolist():
        if lam is None:
            targets[t, i], _ = slow_n_step_return(rollout, v, t, i, gamma, n)
            continue
        longest, K = slow_n_step_return(rollout, v, t, i, gamma, math.inf)
        targets[t, i] = lam ** (K - 1) * longest  # what is left for all n >= K
        for n in range(1, K):
            n_step, _ = slow_n_step_return(rollout, v, t, i, gamma, n)
            targets[t, i] += (1 - lam) * lam ** (n - 1) * n_step
    return targets


def slow_rewards_to_go(rollout, gamma, weight="reward-to-go"):
    """G_t of whole trajectories, or R(τ) at every t of each."""
    weights = {}
    for t, i in np.argwhere(rollout.valid).tolist():
        start = t if weight == "reward-to-go" else 0
        rewards = rollout.rewards[start : rollout.valid[:, i].sum(), i]
        weights[t, i] = sum(gamma**k * reward for k, reward in enumerate(rewards))
    return weights


# ------------------------------------------------------------------ odd environments

COPIES = []  # the CountingEnvs and SpaceEnvs made since the list was last cleared


class CountingEnv(gym.Env):
    """Episodes of random length; the observation is (episode, step), both from 0 on.

    About half of the episodes end by terminated, the others by truncated. The diary
    holds one line for each step: (episode, step, action, reward, terminated, truncated,
    observation that it led to); ended holds each episode's (return, length).
    """

    def __init__(self, longest):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.longest, self.closed = longest, False
        self.episode, self.diary, self.ended = -1, [], []
        COPIES.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.number = self.episode + 1, 0
        self.length = self.np_random.integers(1, self.longest, endpoint=True)
        self.ends_by_terminated = self.np_random.random() < 0.5
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        assert len(self.diary) < 20_000, "a loop that does not end"
        line = self.episode, self.number, int(action)
        reward = 1.0 + self.number
        self.number += 1
        done = self.number == self.length
        terminated = bool(done and self.ends_by_terminated)
        truncated = bool(done and not self.ends_by_terminated)
        if done:  # 1 + 2 + ... + length
            self.ended.append((self.length * (self.length + 1) / 2, self.length))
        result = (self.episode, self.number)
        self.diary.append((*line, reward, terminated, truncated, result))
        return np.array(result, np.float32), reward, terminated, truncated, {}

    def close(self):
        self.closed = True


class SpaceEnv(gym.Env):
    """Spaces of any kind; it notes the actions that come in and what it shows."""

    def __init__(self, observation_space, action_space, length):
        self.observation_space, self.action_space = observation_space, action_space
        self.length, self.received, self.shown = length, [], []
        COPIES.append(self)

    def show(self):
        self.shown.append(self.observation_space.sample())
        return self.shown[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.number = 0
        return self.show(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        self.received.append(action)
        self.number += 1
        return self.show(), 1.0, self.number == self.length, False, {}


def register_space_env(observation_space, action_space, length=5):
    """Space-v0 is from now on an environment with these spaces."""
    gym.registry.pop("Space-v0", None)
    entry_point = partial(SpaceEnv, observation_space, action_space, length)
    gym.register("Space-v0", entry_point, disable_env_checker=True)


gym.register("Counting-v0", CountingEnv, kwargs={"longest": 9})
gym.register("Endless-v0", CountingEnv, kwargs={"longest": 10**9})
