"""One training run of a script in a process of its own, for search.py and learn.py.

    python benchmarks/run.py ppo_clip --env Pendulum-v1 --seed 1

It calls the script's own parse_args and train, with one torch thread and a temporary
run folder, and prints what it measured as one line of JSON.
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
SOLVED = 475  # CartPole-v1's threshold, for a mean over 100 episodes


def steps_to(threshold, history):
    """The first step at which the last 100 episodes have this mean; None if never."""
    returns = [episode_return for _, episode_return in history]
    for end in range(100, len(history) + 1):
        if np.mean(returns[end - 100 : end]) >= threshold:
            return history[end - 1][0]
    return None


def measure(script, flags):
    """Train once; returns the measurements, ready for JSON."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    module = importlib.import_module(script)
    with tempfile.TemporaryDirectory() as folder:
        args = module.parse_args([*flags, "--run-dir", f"{folder}/run"])
        begin = time.process_time()
        _, history = module.train(args)
        seconds = time.process_time() - begin
    last_100 = [episode_return for _, episode_return in history[-100:]]
    return {
        "last_100": round(float(np.mean(last_100)), 2) if last_100 else None,
        "steps_to_475": steps_to(SOLVED, history) if "CartPole" in args.env else None,
        "cpu_seconds": round(seconds, 1),
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


def random_return(env, path=RESULTS / "random.csv", episodes=100):
    """Mean return of a policy with uniformly random actions; measured once."""
    for row in read(path):
        if row["env"] == env:
            return float(row["mean_return"])
    import gymnasium as gym

    envs = gym.make(env)
    envs.action_space.seed(0)
    total = 0.0
    for episode in range(episodes):
        envs.reset(seed=0 if episode == 0 else None)
        done = False
        while not done:
            _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
            total += float(reward)
            done = terminated or truncated
    mean = round(total / episodes, 2)
    append(path, {"env": env, "episodes": episodes, "mean_return": mean})
    return mean


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: no half run is reported
    script, *flags = sys.argv[1:]
    print(json.dumps(measure(script, flags)))


if __name__ == "__main__":
    main()
