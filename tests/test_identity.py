"""Problems whose solution is known, for all five scripts from start to end.

The identity environments show what the right action is, and training must find it. In
the constant environment every step earns 1, and what the critic must say is the sum of
a geometric series.
"""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

LENGTH = 8  # steps in an episode of an identity environment
each_script = pytest.mark.parametrize(
    "script", [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]
)


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


def start_at_5():
    """Actions 5, 6, 7; the observation is a Box vector with a 1 for the right one."""
    return gym.wrappers.FlattenObservation(Identity(Discrete(3), Discrete(3, start=5)))


def box_from_10_to_14():
    """Far from 0, where policies begin: actions must be stretched to the bounds."""
    return Identity(Box(10, 14, (2,)), Box(10, 14, (2,)))


gym.register("DiscreteIdentity-v0", lambda: Identity(Discrete(4), Discrete(4)))
gym.register("StartAt5Identity-v0", start_at_5)
gym.register("BoxIdentity-v0", box_from_10_to_14)

# A linear policy is enough, and large steps make it quick. No action has consequences:
# γ = 0.9 and γ = 0 have the same solution, and γ = 0 less noise.
DISCRETE = "--total-steps 4096 --gamma 0.9"
BOX = "--total-steps 6144 --gamma 0"
EVERY = "--learning-rate 0.03 --eval-episodes 20 --hidden-sizes"  # no hidden layers
PPO = "--rollout-steps 64 --epochs 4 --minibatch-size 128"
OWN = {
    reinforce: "",
    vpg_baseline: "--baseline-epochs 5 --baseline-learning-rate 0.01",
    actor_critic: "--rollout-steps 8",
    ppo_kl: PPO,
    ppo_clip: PPO,
}

# (flags, mean reward of random actions, mean reward to reach); perfect are 1 and 0. The
# distance of two random points of an interval is a third of its length.
PROBLEMS = {
    "DiscreteIdentity-v0": (DISCRETE, 1 / 4, 0.95),
    "StartAt5Identity-v0": (DISCRETE, 1 / 3, 0.95),
    "BoxIdentity-v0": (BOX, -4 / 3, -0.5),
}


@each_script
@pytest.mark.parametrize("env", PROBLEMS)
def test_training_finds_the_action_that_the_observation_shows(script, env, tmp_path):
    flags, _, goal = PROBLEMS[env]
    run = str(tmp_path / "run")
    flags = f"--env {env} --run-dir {run} {OWN[script]} {flags} {EVERY}"
    args = script.parse_args(flags.split())
    script.train(args)
    returns = script.evaluate(args, f"{run}/checkpoint.pt")
    assert len(returns) == 20
    assert returns.mean() / LENGTH > goal


@pytest.mark.parametrize("env", PROBLEMS)
def test_random_actions_are_far_from_the_goal(env):
    _, random_reward, goal = PROBLEMS[env]
    environment = gym.make(env)
    environment.action_space.seed(0)
    rewards = []
    for episode in range(500):
        environment.reset(seed=episode)
        for _ in range(LENGTH):
            rewards.append(environment.step(environment.action_space.sample())[1])
    assert np.mean(rewards) == pytest.approx(random_reward, abs=0.05)
    assert random_reward < goal - 0.4


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

CONSTANT = {  # enough iterations for V = 1 + γ V to settle, step by step
    actor_critic: "--total-steps 4096",
    ppo_kl: "--total-steps 1280 --epochs 4 --minibatch-size 16",
    ppo_clip: "--total-steps 1280 --epochs 4 --minibatch-size 16",
}
each_critic = pytest.mark.parametrize("script", CONSTANT)


def learned_value(script, env, lam, rollout_steps, run):
    """What the critic says of the one state after a short training."""
    flags = f"--env {env} --run-dir {run} --gae-lambda {lam} {CONSTANT[script]}"
    flags += f" --num-envs 2 --rollout-steps {rollout_steps} --gamma 0.9"
    flags += " --no-normalize-rewards --learning-rate 0.1 --hidden-sizes"
    script.train(script.parse_args(flags.split()))
    checkpoint = torch.load(f"{run}/checkpoint.pt", weights_only=True)
    envs = SimpleNamespace(single_observation_space=Box(0, 1, (1,)))
    critic = script.ValueFunction(envs, [])
    critic.load_state_dict(checkpoint["parts"]["value_function"])
    return critic(torch.ones(1)).item()


@each_critic
@pytest.mark.parametrize("lam", [0.0, 1.0], ids=["TD", "Monte Carlo"])
def test_a_time_limit_is_bootstrapped_so_that_v_is_the_endless_sum(
    script, lam, tmp_path
):
    """V = 1 + γ + γ² + ... = 1 / (1 - γ) = 10, in episodes of no more than 10 steps."""
    v = learned_value(script, "Truncated-v0", lam, 16, tmp_path / "run")
    assert v == pytest.approx(10, abs=0.2)


@each_critic
@pytest.mark.parametrize(
    "lam, expected",
    [
        # One step of ten is the last, and V can't know which: V = 1 + γ V 9/10.
        (0.0, 1 / (1 - 0.9 * 0.9)),
        # The mean of 1, 1 + γ, 1 + γ + γ², ... over the ten steps: no V in it at all.
        (1.0, np.mean([sum(0.9**k for k in range(left)) for left in range(1, 11)])),
    ],
    ids=["TD", "Monte Carlo"],
)
def test_a_terminal_state_is_worth_0(script, lam, expected, tmp_path):
    """5.26 and 4.14, both far from 10. A rollout is an episode and its reset row."""
    v = learned_value(script, "Terminated-v0", lam, 11, tmp_path / "run")
    assert v == pytest.approx(expected, abs=0.1)
