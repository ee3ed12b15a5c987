"""Environments that misbehave, for the tests in this folder.

They register themselves as Faulty-v0, so that a process finds them as faulty:Faulty-v0
with this folder on PYTHONPATH.
"""

import os

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH = 20  # of an episode


class FaultyEnv(gym.Env):
    """Twenty steps an episode; at step `at` of its life, and after it, `fault` happens.

    fault is one of: none, raises (step fails), dies (its process ends), reward=1e30 (or
    another number), observation=nan (or another), constant (observations), never_ends,
    one_step (episodes), no_rewards, outside (of its observation space).
    """

    def __init__(self, fault="none", at=0, continuous=False):
        name, _, value = fault.partition("=")
        self.fault, self.value, self.at = name, float(value or 0), at
        self.observation_space = spaces.Box(-1, 1, (3,), np.float64)
        if name == "outside":
            self.observation_space = spaces.Discrete(3)
        box = spaces.Box(-2, 2, (1,), np.float32)
        self.action_space = box if continuous else spaces.Discrete(2)
        self.life = 0

    def observation(self):
        faulty = self.life >= self.at
        if self.fault == "outside":
            return 7 if faulty else 1
        if self.fault == "observation" and faulty:
            return np.full(3, self.value)
        if self.fault == "constant":
            return np.full(3, 0.5)
        return self.np_random.uniform(-1, 1, 3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observation(), {}

    def step(self, action):
        self.life += 1
        self.time += 1
        faulty = self.life >= self.at
        if self.fault == "raises" and faulty:
            raise ZeroDivisionError("the pole has no length")
        if self.fault == "dies" and faulty:
            os._exit(9)
        reward = float(np.sum(action))
        if self.fault == "reward" and faulty:
            reward = self.value
        if self.fault == "no_rewards":
            reward = 0.0
        length = {"one_step": 1, "never_ends": np.inf}.get(self.fault, LENGTH)
        return self.observation(), reward, self.time >= length, False, {}


gym.register("Faulty-v0", FaultyEnv, disable_env_checker=True)
