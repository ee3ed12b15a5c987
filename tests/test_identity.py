"""Problems whose solution is known, for all five scripts from start to end.

The environments show what the right action is, and training must find it.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from support import PPOS, WHOLE, every_script

import actor_critic

LENGTH = 8  # steps in an episode of an identity environment


class Identity(gym.Env):
    """Each observation is drawn at random; the right action is to repeat it.

    Discrete actions earn 1 if they are right; where they begin at k, the right one is
    the observation + k. Box actions lose their distance from the observation.
    """

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        self.discrete = isinstance(action_space, Discrete)

    def observe(self):
        space = self.observation_space
        if self.discrete:
            self.shown = self.np_random.integers(space.n)
        else:
            self.shown = self.np_random.uniform(space.low, space.high).astype("float32")
        return self.shown

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        if self.discrete:
            reward = float(action == self.shown + self.action_space.start)
        else:
            reward = -float(np.abs(action - self.shown).mean())
        self.steps += 1
        return self.observe(), reward, self.steps == LENGTH, False, {}


gym.register("DiscreteIdentity-v0", lambda: Identity(Discrete(4), Discrete(4, start=5)))
gym.register("BoxIdentity-v0", lambda: Identity(Box(10, 14, (2,)), Box(10, 14, (2,))))

# A linear policy is enough, and large steps make it quick. No action has consequences:
# γ = 0.9 and γ = 0 have the same solution, and γ = 0 less noise. The Box is far from 0,
# where policies begin: actions must be stretched to its bounds.
# (flags, mean reward of random actions, mean reward to reach); perfect are 1 and 0. The
# distance of two random points of an interval is a third of its length.
PROBLEMS = {
    "DiscreteIdentity-v0": ("--total-steps 3072 --gamma 0.9", 1 / 4, 0.95),
    "BoxIdentity-v0": ("--total-steps 5120 --gamma 0", -4 / 3, -0.5),
}


@every_script
@pytest.mark.parametrize("env", PROBLEMS)
def test_training_finds_the_action_that_the_observation_shows(script, env, tmp_path):
    flags, random_reward, goal = PROBLEMS[env]
    assert random_reward < goal - 0.4
    flags += f" --env {env} --run-dir {tmp_path} --learning-rate 0.1 --num-envs "
    flags += "16" if script in WHOLE else "32"
    if script is actor_critic:
        flags += " --rollout-steps 2"
    if script in PPOS:
        flags += " --rollout-steps 8 --epochs 4 --minibatch-size 64"
    args = script.parse_args([*flags.split(), "--hidden-sizes"])  # no hidden layers
    script.train(args)
    returns = script.evaluate(args, tmp_path / "checkpoint.pt")
    assert returns.mean() / LENGTH > goal
