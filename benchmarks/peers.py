"""Stable-Baselines3's PPO or A2C with its documented defaults: a peer for learn.py.

    pip install stable-baselines3
    python benchmarks/peers.py PPO --env CartPole-v1 --total-steps 50_000 --run-dir here

Trains one copy of the environment, writes Stable-Baselines3's own TensorBoard log into
--run-dir, and prints the evaluation in the words of the five scripts.
"""

import argparse

import gymnasium as gym
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", choices=["PPO", "A2C"])
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-steps", type=int, required=True)
    parser.add_argument("--eval-episodes", type=int, default=100)
    parser.add_argument("--run-dir", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    algorithm = getattr(stable_baselines3, args.algorithm)
    envs = make_vec_env(lambda: gym.make(args.env), n_envs=1, seed=args.seed)
    model = algorithm("MlpPolicy", envs, seed=args.seed, device="cpu")
    model.set_logger(configure(args.run_dir, ["tensorboard"]))
    model.learn(args.total_steps)
    envs.seed(args.seed)
    mean, std = evaluate_policy(model, envs, args.eval_episodes)
    print(f"{args.env}: return {mean:.1f} ± {std:.1f} over {args.eval_episodes}")


if __name__ == "__main__":
    main()
