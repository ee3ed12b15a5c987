"""Measures learning: a grid of script × environment × seed, each run its own process.

    python benchmarks/learn.py --group cartpole --workers 2

Each run is the script's own command line, with one torch thread and nothing changed but
the environment, the seed and the number of steps. A finished run appends one row to
benchmarks/results/runs.csv, and its learning curve (mean return of the last 100
episodes against steps) to benchmarks/results/curves.csv. Runs that are there already
are skipped: the command can be stopped and given again. benchmarks/report.py makes
tables and figures of what is there.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
GROUPS = {  # name: (environments, steps, seeds)
    "cartpole": (["CartPole-v1"], 200_000, 10),
    "classic": (["Acrobot-v1", "Pendulum-v1"], 300_000, 10),
}
HALF = {"ppo_kl": 100_000, "ppo_clip": 100_000}  # the PPOs' budget on CartPole-v1
THRESHOLDS = {"CartPole-v1": 475}
POINTS = 50  # of a learning curve


def run(job):
    """One run: trains, evaluates over 100 episodes, returns its row and its curve."""
    script, env, steps, seed = job
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, f"{script}.py", "--env", env, "--seed", str(seed)]
        command += ["--total-steps", str(steps), "--eval-episodes", "100"]
        with open(f"{folder}/output", "w+") as output:
            begin = time.perf_counter()
            process = subprocess.Popen(
                [*command, "--run-dir", f"{folder}/run"],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
            _, status, usage = os.wait4(process.pid, 0)  # this one process's memory
            wall = time.perf_counter() - begin
            output.seek(0)
            text = output.read()
        if status:
            raise RuntimeError(f"{' '.join(command)}: {text[-500:]}")
        events = EventAccumulator(f"{folder}/run", {"scalars": 0}).Reload()
    returns = events.Scalars("rollout/episode_return")
    x, y = [event.step for event in returns], [event.value for event in returns]
    grid = np.linspace(steps / POINTS, steps, POINTS).astype(int)
    curve = np.interp(grid, x, y)
    reached = [
        event.step for event in returns if event.value >= THRESHOLDS.get(env, 1e9)
    ]
    evaluation = re.search(r"return (\S+) ± (\S+) over", text)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()
    row = {
        "script": script,
        "env": env,
        "seed": seed,
        "steps": steps,
        "last_100_episodes": round(y[-1], 2),
        "evaluation_mean": evaluation[1],
        "evaluation_std": evaluation[2],
        "steps_to_threshold": reached[0] if reached else "",
        "steps_per_second": round(events.Scalars("time/steps_per_second")[-1].value),
        "wall_seconds": round(wall, 1),
        "peak_megabytes": usage.ru_maxrss // 1024,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "gymnasium": gymnasium.__version__,
        "commit": commit,
    }
    return row, [[script, env, seed, s, round(r, 2)] for s, r in zip(grid, curve)]


def append(path, rows, header):
    """Append rows to a CSV file, beneath a header if the file is new."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header] * new + rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all")
    parser.add_argument("--scripts", nargs="*", default=SCRIPTS)
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    finished = set()
    if (RESULTS / "runs.csv").exists():
        with open(RESULTS / "runs.csv") as file:
            finished = {
                (row["script"], row["env"], int(row["steps"]), int(row["seed"]))
                for row in csv.DictReader(file)
            }
    jobs = []
    for group in args.group or GROUPS:
        envs, steps, seeds = GROUPS[group]
        for seed in range(seeds):
            for env in envs:
                for script in args.scripts:
                    budget = HALF.get(script, steps) if group == "cartpole" else steps
                    jobs.append((script, env, budget, seed))
    jobs = [job for job in jobs if job not in finished]
    with ThreadPoolExecutor(args.workers) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        for future in tqdm(as_completed(futures), total=len(jobs), unit="run"):
            row, curve = future.result()
            append(RESULTS / "runs.csv", [list(row.values())], list(row))
            header = ["script", "env", "seed", "steps", "return"]
            append(RESULTS / "curves.csv", curve, header)


if __name__ == "__main__":
    main()
