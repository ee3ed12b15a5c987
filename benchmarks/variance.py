"""Bias and variance of the policy gradient's estimators on a real environment.

    python benchmarks/variance.py        some minutes; results/variance.csv

vpg_baseline.py learns CartPole-v1 half way, with γ = 1, raw observations and rewards,
and 200 steps as the horizon. Then its policy is frozen. V is fitted to returns of one
half of its trajectories; on the other half, every estimator weights ∇ log π of the same
steps, so that each has one gradient for each trajectory. The horizon counts as a
terminal state: so n = ∞ and λ = 1 are G_t − V(s_t), without bias.

Variance is the trace of the gradient's covariance. The squared bias is that of the mean
gradient against the one with G_t: the product of its means on two halves, which is
right on average and may be negative by chance. Both are given as multiples of the
squared length of the mean gradient with G_t, with 95 % bootstrap intervals over
trajectories.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from run import RESULTS, ROOT, append, scripts_commit

sys.path.insert(0, str(ROOT))
import vpg_baseline
from common import (
    explained_variance,
    generalized_advantages,
    n_step_returns,
    rewards_to_go,
)

FLAGS = "--env CartPole-v1 --max-episode-steps 200 --gamma 1 --no-normalize-rewards "
FLAGS += "--no-normalize-observations --seed 1000"
N_STEPS = [1, 2, 5, 10, 20, 50, 100]
LAMBDAS = [0.5, 0.8, 0.9, 0.95, 0.98, 0.99]
COPIES = 100  # trajectories at a time
RESAMPLES = 500


def half_trained(steps):
    """The arguments and the policy of a short training."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{FLAGS} --total-steps {steps} --run-dir {folder}/run"
        args = vpg_baseline.parse_args(flags.split())
        policy, _ = vpg_baseline.train(args)
    return args, policy


def collect(args, policy, count):
    """Rollouts of count whole trajectories."""
    args.num_envs, args.total_steps = COPIES, math.inf
    envs = vpg_baseline.make_envs(args, COPIES)
    envs.reset(seed=vpg_baseline.set_seed(args.seed, 1))
    rollouts = [
        vpg_baseline.collect_trajectories(args, envs, policy)
        for _ in range(count // COPIES)
    ]
    envs.close()
    return rollouts


def states_and_returns(rollouts):
    """s_t and G_t of all steps, as tensors with a row for each step."""
    obs, returns = [], []
    for rollout in rollouts:
        G = rewards_to_go(rollout.rewards, rollout.done, gamma=1)
        obs.append(rollout.obs[:-1][rollout.valid])
        returns.append(G[rollout.valid])
    obs = torch.as_tensor(np.concatenate(obs), dtype=torch.float32)
    return obs, torch.as_tensor(np.concatenate(returns), dtype=torch.float32)


def fit(rollouts, passes=30):
    """V fitted to the returns of these trajectories by least squares."""
    obs, returns = states_and_returns(rollouts)
    network = vpg_baseline.mlp([obs.shape[1], 64, 64, 1], last_gain=1.0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(passes):
        for rows in torch.randperm(len(obs)).split(256):
            loss = (network(obs[rows]).squeeze(-1) - returns[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


def weights(rollout, values):
    """{estimator: what stands beside ∇ log π(a_t|s_t)}, each (T, N)."""
    G = rewards_to_go(rollout.rewards, rollout.done, gamma=1)
    steps = rollout.rewards, values, rollout.done, rollout.done  # the horizon is an end
    found = {
        "R(τ)": np.broadcast_to(G[0], G.shape),
        "G_t": G,
        "G_t − b": G - values[:-1],
    }
    for n in N_STEPS:
        found[f"n = {n}"] = n_step_returns(*steps, gamma=1, n=n) - values[:-1]
    for lam in LAMBDAS:
        found[f"λ = {lam}"] = generalized_advantages(*steps, gamma=1, lam=lam)
    return found


def gradients(rollouts, policy, network):
    """{estimator: the gradient of each trajectory, (trajectories, parameters)}."""
    found = {}
    for rollout in rollouts:
        with torch.no_grad():
            obs = torch.as_tensor(rollout.obs, dtype=torch.float32)
            values = network(obs).squeeze(-1).numpy()
        of_rollout = weights(rollout, values)
        for i in range(COPIES):
            valid = rollout.valid[:, i]
            states = obs[:-1, i][valid]
            actions = torch.as_tensor(rollout.actions[valid, i])
            log_probs = policy.distribution(states).log_prob(actions)
            for name, weight in of_rollout.items():
                weight = torch.as_tensor(weight[valid, i], dtype=torch.float32)
                gradient = torch.autograd.grad(
                    (log_probs * weight).sum(),
                    list(policy.parameters()),
                    retain_graph=True,
                )
                flat = torch.cat([part.flatten() for part in gradient])
                found.setdefault(name, []).append(flat.numpy())
    return {name: np.array(rows) for name, rows in found.items()}


def product_of_halves(rows, shares):
    """The rows' mean, squared without bias: the product of the two halves' means."""
    half = len(rows) // 2
    first = 2 * shares[:, :half] @ rows[:half]
    second = 2 * shares[:, half:] @ rows[half:]
    return (first * second).sum(axis=1)


def trace_of_covariance(rows, shares):
    """The sum over parameters of their variance over trajectories."""
    mean = shares @ rows
    square = shares @ (rows.astype(np.float64) ** 2).sum(axis=1)
    return (square - (mean**2).sum(axis=1)) * len(rows) / (len(rows) - 1)


def summary(found, rng):
    """For each estimator variance and squared bias, as rows with intervals."""
    count = len(found["G_t"])
    half = count // 2
    every = np.full((1, count), 1 / count)
    draws = rng.multinomial(half, np.full(half, 1 / half), size=(2, RESAMPLES))
    draws = np.concatenate(draws, axis=1) / count  # each half resampled on its own
    unit = product_of_halves(found["G_t"], every)[0]
    rows = []
    for name, of_name in found.items():
        row = {"estimator": name}
        for what, function, of_what in [
            ("variance", trace_of_covariance, of_name),
            ("squared_bias", product_of_halves, of_name - found["G_t"]),
        ]:
            low, high = np.percentile(function(of_what, draws) / unit, [2.5, 97.5])
            row[what] = f"{function(of_what, every)[0] / unit:.4g}"
            row |= {f"{what}_low": f"{low:.4g}", f"{what}_high": f"{high:.4g}"}
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-steps", type=int, default=20_000, help="half way")
    parser.add_argument("--trajectories", type=int, default=4000, help="of each half")
    parser.add_argument("--output", type=Path, default=RESULTS / "variance.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    run_args, policy = half_trained(args.train_steps)
    rollouts = collect(run_args, policy, 2 * args.trajectories)
    middle = len(rollouts) // 2
    network = fit(rollouts[:middle])
    rollouts = rollouts[middle:]
    returns = [episode[0] for rollout in rollouts for episode in rollout.episodes]
    obs, G = states_and_returns(rollouts)
    with torch.no_grad():
        explained = explained_variance(network(obs).squeeze(-1), G)
    found = gradients(rollouts, policy, network)
    args.output.unlink(missing_ok=True)
    for row in summary(found, np.random.default_rng(0)):
        row["trajectories"] = len(returns)
        row["mean_return"] = round(float(np.mean(returns)), 1)
        row["explained_variance"] = round(explained, 3)
        append(args.output, row | {"commit": scripts_commit()})
        print(row)


if __name__ == "__main__":
    main()
