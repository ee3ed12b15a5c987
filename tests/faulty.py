"""Environments that are faulty, or odd in ways that real ones are.

They are registered on import. A process that has this folder on its PYTHONPATH finds
them as faulty:Faulty-v0 and so on.
"""

import multiprocessing
import os
import random
import time
from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class FaultyEnv(gym.Env):
    """Twenty steps an episode; from step `at` of its life on, `fault` happens.

    fault is one of: none, raises (step fails), dies (its process ends), interrupts (as
    Ctrl-C does), slow=0.02 (seconds a step), reward=1e30 (or another number),
    observation=nan (or another), constant (observations), never_ends (so, too),
    one_step (episodes), no_rewards.

    returns holds those of all episodes that have ended in this process.
    """

    returns = []

    LENGTH = 20

    def __init__(self, fault="none", at=0, continuous=False):
        name, _, value = fault.partition("=")
        self.fault, self.value, self.at = name, float(value or 0), at
        self.observation_space = spaces.Box(-1, 1, (3,), np.float64)
        box = spaces.Box(-2, 2, (1,), np.float32)
        self.action_space = box if continuous else spaces.Discrete(2)
        self.life = 0

    def observation(self):
        if self.fault == "observation" and self.life >= self.at:
            return np.full(3, self.value)
        if self.fault in ("constant", "never_ends"):
            return np.full(3, 0.5)
        return self.np_random.uniform(-1, 1, 3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.total = 0, 0.0
        return self.observation(), {}

    def step(self, action):
        self.life += 1
        self.time += 1
        reward = float(np.sum(action))
        if self.life >= self.at:
            if self.fault == "raises":
                reward = {"wheel": 1.0}["pole"]  # the line that a traceback must show
            if self.fault == "dies":
                assert multiprocessing.parent_process(), "not in a process of its own"
                os._exit(9)
            if self.fault == "interrupts":
                raise KeyboardInterrupt
            if self.fault == "slow":
                time.sleep(self.value)
            if self.fault == "reward":
                reward = self.value
        if self.fault == "no_rewards":
            reward = 0.0
        self.total += reward
        length = {"one_step": 1, "never_ends": np.inf}.get(self.fault, self.LENGTH)
        terminated = self.time >= length
        if terminated:
            self.returns.append(self.total)
        return self.observation(), reward, terminated, False, {}


class OwnEpisodeKey(FaultyEnv):
    """Its info has an "episode" of its own, which is a number."""

    def step(self, action):
        *result, info = super().step(action)
        return *result, {"episode": 7}


class OneInstance(FaultyEnv):
    """A simulator that can be opened once at a time."""

    opened = 0

    def __init__(self):
        super().__init__()
        assert OneInstance.opened == 0, "the simulator is open already"
        OneInstance.opened += 1

    def close(self):
        OneInstance.opened -= 1


class GlobalRandom(FaultyEnv):
    """Draws from Python's and NumPy's global random numbers, and from its own."""

    def observation(self):
        return np.array([random.random(), np.random.random(), self.np_random.random()])


class Spaces(FaultyEnv):
    """Random observations from one space, and actions of another."""

    def __init__(self, observation_space=None, action_space=None):
        super().__init__()
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space

    def observation(self):
        return self.observation_space.sample()


class Words(gym.Space):
    """A space that Gymnasium knows nothing of, as MiniGrid's missions are."""

    def __repr__(self):
        return "Words()"

    def sample(self, mask=None, probability=None):
        return "go to the door"

    def contains(self, x):
        return isinstance(x, str)


SPACES = {  # name: observations, actions; None stands for FaultyEnv's
    "MultiDiscrete": (None, spaces.MultiDiscrete([2, 3])),
    "MultiBinary": (None, spaces.MultiBinary(3)),
    "IntegerBox": (None, spaces.Box(0, 5, (2,), np.int64)),
    "Words": (spaces.Dict(direction=spaces.Discrete(4), mission=Words()), None),
    "Sequence": (spaces.Sequence(spaces.Discrete(3)), None),
}


def recorded():
    return gym.wrappers.RecordEpisodeStatistics(FaultyEnv())


def fails_without_a_word():
    raise gym.error.Error


def vectorized(num_envs, mode="NextStep", **kwargs):
    """A vector version of its own, as some environments have."""
    copies = [partial(FaultyEnv, **kwargs)] * num_envs
    mode = gym.vector.AutoresetMode(mode)
    return gym.vector.SyncVectorEnv(copies, autoreset_mode=mode)


def register(name, entry_point, **options):
    gym.register(f"{name}-v0", entry_point, disable_env_checker=True, **options)


register("Faulty", FaultyEnv)
register("OwnEpisodeKey", OwnEpisodeKey)
register("Recorded", recorded)
register("OneInstance", OneInstance)
register("GlobalRandom", GlobalRandom)
register("Wordless", fails_without_a_word)
register("Vectorized", FaultyEnv, vector_entry_point=vectorized)
for name, (observation_space, action_space) in SPACES.items():
    named = {"observation_space": observation_space, "action_space": action_space}
    register(name, Spaces, kwargs=named)
