"""Problems whose solution is known, for all five scripts from start to end.

The environments show what the right action is, and training must find it.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from support import WHOLE, every_script, short_args

import actor_critic

LENGTH = 8  # steps in an episode of an identity environment


class Identity(gym.Env):
    """Each observation is drawn at random; the right action is to repeat it.

    Discrete actions earn 1 if they are right; where they begin at k, the right one is
    the observation + k. Box actions lose their distance from the observation.
    """

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        if isinstance(self.action_space, Discrete):
            self.shown = self.np_random.integers(4)
        else:
            self.shown = self.np_random.uniform(10, 14, 2).astype(np.float32)
        return self.shown

    def step(self, action):
        assert self.action_space.contains(action), action
        if isinstance(self.action_space, Discrete):
            reward = float(action == self.shown + self.action_space.start)
        else:
            reward = -float(np.abs(action - self.shown).mean())
        self.steps += 1
        return self.observe(), reward, self.steps == LENGTH, False, {}


gym.register("DiscreteIdentity-v0", lambda: Identity(Discrete(4), Discrete(4, start=5)))
gym.register("BoxIdentity-v0", lambda: Identity(Box(10, 14, (2,)), Box(10, 14, (2,))))

# A linear policy is enough, and large steps make it quick. The Box is far from 0, where
# policies begin: actions must be stretched to its bounds. Mean rewards: the best policy
# gets 1 and 0, random actions 1/4 and -4/3, the worst of ten seeds 1 and -0.44.
PROBLEMS = {  # γ, steps, mean reward to reach
    "DiscreteIdentity-v0": (0.9, 2048, 0.95),
    "BoxIdentity-v0": (0.0, 3072, -0.7),
}


@every_script
@pytest.mark.parametrize("env", PROBLEMS)
def test_training_finds_the_action_that_the_observation_shows(script, env, tmp_path):
    gamma, steps, goal = PROBLEMS[env]
    changes = {"env": env, "gamma": gamma, "total_steps": steps, "num_envs": 32}
    changes |= {"learning_rate": 0.1, "hidden_sizes": [], "max_episode_steps": None}
    changes |= {"rollout_steps": 8, "epochs": 4, "minibatch_size": 64}
    args = short_args(script, tmp_path, **changes)
    if script is actor_critic:
        args.rollout_steps = 2
    if script in WHOLE:
        args.num_envs, args.total_steps = 16, steps * 3 // 2
    script.train(args)
    returns = script.evaluate(args, tmp_path / "checkpoint.pt")
    assert returns.mean() / LENGTH > goal
