"""Stable-Baselines3's PPO or A2C with its documented defaults, for learn.py.

    pip install stable-baselines3
    python benchmarks/learn.py --group grid --scripts sb3_ppo sb3_a2c

parse_args, train and evaluate are called as those of the five scripts are. One copy of
the environment, and nothing normalised: Stable-Baselines3's own defaults.
"""

import argparse

import gymnasium as gym
import numpy as np
import stable_baselines3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ALGORITHMS = {"sb3_ppo": "PPO", "sb3_a2c": "A2C"}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-steps", type=int, required=True)
    parser.add_argument("--eval-episodes", type=int, default=100)
    parser.add_argument("--run-dir", required=True)
    return parser.parse_args(argv)


def make_envs(args):
    return make_vec_env(lambda: gym.make(args.env), n_envs=1, seed=args.seed)


def train(args):
    """The trained model, and (steps, return) of every training episode."""
    algorithm = getattr(stable_baselines3, ALGORITHMS[args.algorithm])
    model = algorithm("MlpPolicy", make_envs(args), seed=args.seed, device="cpu")
    model.learn(args.total_steps)
    model.save(f"{args.run_dir}/checkpoint.pt")
    (monitor,) = model.get_env().envs
    steps = np.cumsum(monitor.get_episode_lengths()).tolist()
    return model, list(zip(steps, monitor.get_episode_rewards()))


def evaluate(args, checkpoint):
    """Returns of episodes with the policy's most probable actions."""
    algorithm = getattr(stable_baselines3, ALGORITHMS[args.algorithm])
    model = algorithm.load(checkpoint, device="cpu")
    returns, _ = evaluate_policy(
        model, make_envs(args), args.eval_episodes, return_episode_rewards=True
    )
    return np.array(returns)
