"""Runs the grid of script × environment × seed whose results README shows.

    pip install stable-baselines3 "gymnasium[box2d,mujoco]"
    python benchmarks/learn.py                    everything that is not there yet
    python benchmarks/learn.py --group cartpole --workers 2
    python benchmarks/learn.py --ray auto         the same jobs on a Ray cluster

Each run is the script's own command line, in a process of its own with one torch
thread, and nothing changed but the environment, the seed and the number of steps. The
peers, Stable-Baselines3's PPO and A2C, run through peers.py in the same way.

A finished run appends one row to benchmarks/results/runs.csv, and its learning curve
(mean return of the last 100 episodes against steps) to benchmarks/results/curves.csv.
Runs that are there already are skipped: the command can be stopped and given again.
benchmarks/report.py makes tables and figures of what is there.

A search for defaults keeps away from what is reported:

    python benchmarks/learn.py --group mujoco --scripts ppo_clip --seeds 100 101 \\
        --flags="--gae-lambda 0.95" --results benchmarks/results/search
"""

import argparse
import csv
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PEERS = {"sb3_ppo": "PPO", "sb3_a2c": "A2C"}
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip", *PEERS]
MUJOCO = "HalfCheetah Hopper InvertedDoublePendulum InvertedPendulum Reacher Swimmer"
GROUPS = {  # name: (environments, steps, seeds)
    "cartpole": (["CartPole-v1"], 200_000, 10),
    "classic": (
        ["Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"],
        300_000,
        10,
    ),
    "lunarlander": (["LunarLander-v3", "LunarLanderContinuous-v3"], 1_000_000, 5),
    "mujoco": ([f"{task}-v5" for task in [*MUJOCO.split(), "Walker2d"]], 1_000_000, 3),
}
HALF = {"ppo_kl": 100_000, "ppo_clip": 100_000}  # the PPOs' budget on CartPole-v1
THRESHOLDS = {"CartPole-v1": 475}
POINTS = 50  # of a learning curve
PACKAGES = ["torch", "gymnasium", "numpy", "mujoco", "box2d", "stable_baselines3"]


def run(script, env, steps, seed, flags, commit, root=ROOT, node="local"):
    """One run: trains, evaluates over 100 episodes, returns its row and its curve."""
    peer = PEERS.get(script)
    command = ["benchmarks/peers.py", peer] if peer else [f"{script}.py"]
    command += ["--env", env, "--seed", str(seed), "--total-steps", str(steps)]
    command += ["--eval-episodes", "100", *flags.split()]
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/output", "w+") as output:
            begin = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command, "--run-dir", f"{folder}/run"],
                cwd=root,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
            )
            _, status, usage = os.wait4(process.pid, 0)  # this one process's memory
            process.returncode = os.waitstatus_to_exitcode(status)
            wall = time.perf_counter() - begin
            output.seek(0)
            text = output.read()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {text[-500:]}")
        events = EventAccumulator(f"{folder}/run", {"scalars": 0}).Reload()
    returns = events.Scalars(
        "rollout/ep_rew_mean" if peer else "rollout/episode_return"
    )
    speed = events.Scalars("time/fps" if peer else "time/steps_per_second")
    x, y = [event.step for event in returns], [event.value for event in returns]
    grid = np.linspace(steps / POINTS, steps, POINTS).astype(int)
    curve = np.interp(grid, x, y, left=np.nan)  # none before the first episode's end
    threshold = THRESHOLDS.get(env, np.inf)
    reached = [event.step for event in returns if event.value >= threshold]
    evaluation = re.search(r"return (\S+) ± (\S+) over", text)
    row = {
        "script": script,
        "env": env,
        "seed": seed,
        "flags": flags,
        "steps": steps,
        "last_100_episodes": round(y[-1], 2),
        "evaluation_mean": evaluation[1],
        "evaluation_std": evaluation[2],
        "steps_to_threshold": reached[0] if reached else "",
        "steps_per_second": round(speed[-1].value),
        "wall_seconds": round(wall, 1),
        "peak_megabytes": usage.ru_maxrss // 1024,
        "commit": commit,
        "node": node,
        "python": sys.version.split()[0],
    }
    for package in PACKAGES:
        try:
            row[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            row[package] = ""
    return row, [[script, env, seed, s, round(r, 2)] for s, r in zip(grid, curve)]


def finished_runs(jobs, args):
    """What run returns for each of the jobs, in the order in which they end."""
    if args.ray:
        import ray

        @ray.remote(num_cpus=1)
        def remote_run(*job):  # in a node's copy of this repository
            node = ray.get_runtime_context().get_node_id()[:8]
            return run(*job, root=".", node=node)

        ray.init(args.ray, runtime_env={"working_dir": str(ROOT)})
        pending = [remote_run.remote(*job) for job in jobs]
        while pending:
            ready, pending = ray.wait(pending)
            yield partial(ray.get, ready[0])
        return
    with ThreadPoolExecutor(args.workers) as pool:
        futures = [pool.submit(run, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result


def append(path, rows, header):
    """Append rows to a CSV file, beneath a header if the file is new."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        csv.writer(file).writerows([header] * new + rows)


def git(*command):
    """A git command's output."""
    command = ["git", "-C", str(ROOT), *command]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all")
    parser.add_argument("--scripts", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    parser.add_argument("--envs", nargs="+", help="of the groups; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: the group's")
    parser.add_argument("--flags", default="", help="more flags, for a search")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster, or auto")
    args = parser.parse_args()
    if args.flags and args.results == parser.get_default("results"):
        parser.error("argument --flags: a search needs --results of its own")
    return args


def main():
    args = parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    finished = set()
    if (args.results / "runs.csv").exists():
        with open(args.results / "runs.csv") as file:
            for row in csv.DictReader(file):
                steps, seed = int(row["steps"]), int(row["seed"])
                key = row["script"], row["env"], steps, seed, row["flags"]
                finished.add(key)
    jobs = []
    for group in args.group or GROUPS:
        envs, steps, seeds = GROUPS[group]
        for seed in args.seeds or range(seeds):
            for env in envs:
                for script in args.scripts:
                    budget = HALF.get(script, steps) if group == "cartpole" else steps
                    if env in (args.envs or envs):
                        jobs.append((script, env, budget, seed, args.flags))
    # scripts as they are committed, or the commit doesn't name what ran
    changed = " and changes" if git("status", "--porcelain", "--", "*.py") else ""
    commit = git("rev-parse", "--short", "HEAD") + changed
    jobs = [(*job, commit) for job in jobs if job not in finished]
    failed = 0
    with tqdm(total=len(jobs), unit="run") as bar:
        for result in finished_runs(jobs, args):
            bar.update()
            try:
                row, curve = result()
            except Exception as error:  # one failed run doesn't end the others
                failed += 1
                bar.write(str(error))
                continue
            append(args.results / "runs.csv", [list(row.values())], list(row))
            header = ["script", "env", "seed", "steps", "return"]
            append(args.results / "curves.csv", curve, header)
    if failed:
        sys.exit(f"{failed} of {len(jobs)} runs failed; give the command again")


if __name__ == "__main__":
    main()
