"""Problems whose solution is known, for all five scripts from start to end.

The identity environments show what the right action is, and training must find it. In
the constant environment every step earns 1, and what the critic must say is the sum of
a geometric series.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from support import PARTIAL, PPOS, WHOLE, checkpoint, each, every_script, spaces_of

import actor_critic
import ppo_clip
import vpg_baseline

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


# A constant reward of 1 and γ = 0.9. All states look the same, so that V is one number.


class Constant(gym.Env):
    """1 for every step; after 10 steps it ends, or a time limit is to cut it off."""

    observation_space, action_space = Discrete(1), Discrete(2)

    def __init__(self, terminates):
        self.terminates = terminates

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        return 0, 1.0, self.terminates and self.steps == 10, False, {}


gym.register("Truncated-v0", lambda: Constant(False), max_episode_steps=10)
gym.register("Terminated-v0", lambda: Constant(True), max_episode_steps=20)


def learned_value(script, env, run):
    """What the critic says of the one state after a short training."""
    flags = f"--env {env} --run-dir {run} --num-envs 2 --gamma 0.8 --total-steps 640"
    flags += " --no-normalize-rewards --learning-rate 0.1 --no-anneal-learning-rate"
    if script in PARTIAL:  # a rollout is an episode and its reset row
        flags += " --gae-lambda 0 --rollout-steps 11"
    if script is actor_critic:
        flags += " --advantage gae"
    if script in PPOS:
        flags += " --epochs 4 --minibatch-size 16"
    script.train(script.parse_args([*flags.split(), "--hidden-sizes"]))
    critic = script.ValueFunction(spaces_of(Discrete(2), observation=1), [])
    critic.load_state_dict(checkpoint(run)["value_function"])
    return critic(torch.ones(1, 1)).item()


@each(PARTIAL)
def test_a_time_limit_is_bootstrapped_so_that_v_is_the_endless_sum(script, tmp_path):
    """V = 1 + γ + γ² + ... = 1 / (1 - γ) = 5, in episodes of no more than 10 steps."""
    assert learned_value(script, "Truncated-v0", tmp_path) == pytest.approx(5, abs=0.1)


@each([vpg_baseline, ppo_clip])
def test_a_terminal_state_is_worth_0(script, tmp_path):
    """3.57 by TD: one step of ten is the last, and V can't know which.

    And 3.21 by Monte Carlo, the mean of 1, 1 + γ, 1 + γ + γ², ... over the ten steps.
    """
    expected = 1 / (1 - 0.8 * 0.9)  # V = 1 + γ V 9/10
    if script is vpg_baseline:
        returns = [sum(0.8**k for k in range(left)) for left in range(1, 11)]
        expected = np.mean(returns)
    v = learned_value(script, "Terminated-v0", tmp_path)
    assert v == pytest.approx(expected, abs=0.1)
