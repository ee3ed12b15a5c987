"""One training run of a script in a process of its own, for search.py and learn.py.

    python benchmarks/run.py ppo_clip --env Pendulum-v1 --seed 1

It calls the script's own parse_args and train, with one torch thread and a temporary
run folder, evaluates the result if --eval-episodes is given, and prints what it
measured as one line of JSON. sb3_ppo and sb3_a2c are Stable-Baselines3's, by peers.py.
"""

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
PEERS = ["sb3_ppo", "sb3_a2c"]
SOLVED = 475  # CartPole-v1's threshold, for a mean over 100 episodes
POINTS = 50  # of a learning curve
PLAIN_MLP = "--pytorch-initialization"  # no flag of the scripts: see plain_mlp


def plain_mlp(sizes, last_gain):
    """The scripts' network as PyTorch initialises it, in the place of their mlp."""
    from torch import nn

    layers = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def last_100_means(returns):
    """After each episode, the mean of the last 100 returns (of all, while fewer)."""
    total = np.cumsum([0.0, *returns])
    end = np.arange(1, len(total))
    begin = np.maximum(end - 100, 0)
    return (total[end] - total[begin]) / (end - begin)


def logged(folder):
    """Steps and means of the last 100 returns, from a run's TensorBoard log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    if "rollout/episode_return" not in log.Tags()["scalars"]:
        return np.array([]), np.array([])
    events = log.Scalars("rollout/episode_return")
    return np.array([e.step for e in events]), np.array([e.value for e in events])


def curve(steps, means, total_steps):
    """The latest mean at POINTS steps up to total_steps; None before the first."""
    points = []
    for point in np.linspace(total_steps / POINTS, total_steps, POINTS):
        known = means[np.minimum(steps, total_steps) <= round(point)]
        points.append(round(float(known[-1]), 2) if len(known) else None)
    return points


def measure(script, flags):
    """Train once; returns the measurements, ready for JSON."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    if script in PEERS:
        module, flags = importlib.import_module("peers"), [script, *flags]
    else:
        module = importlib.import_module(script)
    if PLAIN_MLP in flags:
        module.mlp = plain_mlp
        flags = [flag for flag in flags if flag != PLAIN_MLP]
    with tempfile.TemporaryDirectory() as folder:
        args = module.parse_args([*flags, "--run-dir", f"{folder}/run"])
        begin = time.process_time()
        try:
            _, history = module.train(args)
            finite = True
            steps = np.array([step for step, _ in history])
            means = last_100_means([episode_return for _, episode_return in history])
            solved = steps[99:][means[99:] >= SOLVED]
        except FloatingPointError:  # what was logged before it stays
            finite = False
            steps, means = logged(args.run_dir)
            solved = steps[means >= SOLVED]
        seconds = time.process_time() - begin
        mean, std = None, None
        if "--eval-episodes" in flags and finite:
            returns = module.evaluate(args, f"{args.run_dir}/checkpoint.pt")
            mean, std = round(float(returns.mean()), 2), round(float(returns.std()), 2)
    if args.env != "CartPole-v1":
        solved = []
    return {
        "last_100": round(float(means[-1]), 2) if len(means) else None,
        "evaluation_mean": mean,
        "evaluation_std": std,
        "steps_to_475": int(solved[0]) if len(solved) else None,
        "finite": finite,
        "cpu_seconds": round(seconds, 1),
        "curve": curve(steps, means, args.total_steps),
    }


def run(script, flags):
    """measure() in a process of its own, and the commit of the scripts."""
    commit = scripts_commit()
    process = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, script, *map(str, flags)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if process.returncode:
        raise RuntimeError(f"{script} {' '.join(flags)}: {process.stderr[-1000:]}")
    return json.loads(process.stdout.splitlines()[-1]) | {"commit": commit}


def scripts_commit():
    """The commit that is checked out; with a + if the scripts differ from it."""
    git = ["git", "-C", str(ROOT)]
    files = [f"{script}.py" for script in [*SCRIPTS, "common"]]
    status = [*git, "status", "--porcelain", "--", *files]
    changed = subprocess.run(status, capture_output=True, text=True).stdout
    head = [*git, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True).stdout.strip()
    return commit + "+" * bool(changed)


def run_all(jobs, workers):
    """Yield (job, its row) in the order in which they end; a job is (script, flags).

    The row of a failed job is the exception.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.exception() or future.result()
        finally:  # Ctrl-C: no further job starts
            pool.shutdown(cancel_futures=True)


def read(path):
    """The rows of a CSV file as dictionaries; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def append(path, row):
    """Append a dictionary to a CSV file, beneath a header if the file is new."""
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def random_returns(env, episodes=100):
    """Returns of a policy with uniformly random actions; measured once."""
    path = RESULTS / "random.csv"
    for row in read(path):
        if row["env"] == env:
            return np.array(row["returns"].split(), dtype=float)
    import gymnasium as gym

    envs = gym.make(env)
    envs.action_space.seed(0)
    returns = []
    while len(returns) < episodes:
        envs.reset(seed=None if returns else 0)
        done, total = False, 0.0
        while not done:
            _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
            done = terminated or truncated
            total += float(reward)
        returns.append(round(total, 2))
    append(path, {"env": env, "returns": " ".join(map(str, returns))})
    return np.array(returns)


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: no half run is reported
    script, *flags = sys.argv[1:]
    print(json.dumps(measure(script, flags)))


if __name__ == "__main__":
    main()
