"""Measures speed: against Stable-Baselines3, the first version, and inside.

    pip install stable-baselines3 "gymnasium[mujoco]"
    python benchmarks/speed.py                    everything, about two hours
    python benchmarks/speed.py --only same_work   one part: see PARTS

Two things that are compared take turns, each time in a process of its own with one
torch thread; what counts is the median of the ratios of the pairs. Run it on a machine
that does nothing else. The scripts are measured through their parse_args and train as
they stand. Each part writes its rows to results/speed_PART.csv, and report.py makes a
table of them.
"""

import argparse
import importlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from run import RESULTS, ROOT, SCRIPTS, SOLVED, append

FIRST_VERSION = "dcac4a9"  # the commit before the scripts were written anew
# as the peer does: no normalisation, no entropy bonus, no checkpoint before the end
AS_THEY = (
    "--no-normalize-observations --no-normalize-rewards --entropy-coefficient 0 "
    "--learning-rate 3e-4 --checkpoint-every 9999999"
)
# Gymnasium's reset rows are no data, so a rollout of ours has a few rows less. With a
# smaller --minibatch-size there are as many minibatches, and gradient steps, as theirs.
SAME_WORK = {  # name: (script, flags, environment, steps, peer, its arguments)
    "PPO-Clip, CartPole-v1, 4 × 128, 4 epochs × 4 minibatches": (
        "ppo_clip",
        f"--num-envs 4 --rollout-steps 128 --epochs 4 --minibatch-size 112 {AS_THEY}",
        "CartPole-v1",
        50_000,
        "PPO",
        {"n_envs": 4, "n_steps": 128, "n_epochs": 4, "batch_size": 128},
    ),
    "PPO-Clip, HalfCheetah-v5, 1 × 2048, 10 epochs × 32 minibatches": (
        "ppo_clip",
        f"--num-envs 1 --rollout-steps 2048 --epochs 10 --minibatch-size 63 {AS_THEY}",
        "HalfCheetah-v5",
        20_480,
        "PPO",
        {"n_envs": 1, "n_steps": 2048, "n_epochs": 10, "batch_size": 64},
    ),
    "Actor-critic, CartPole-v1, 4 × 5, one pass of the critic": (
        "actor_critic",
        f"--num-envs 4 --rollout-steps 5 --n-steps 5 --critic-epochs 1 {AS_THEY}",
        "CartPole-v1",
        100_000,
        "A2C",
        {"n_envs": 4, "n_steps": 5},
    ),
}
WHOLE_RUN = {
    "PPO-Clip, HalfCheetah-v5, each with its defaults, a million steps": (
        "ppo_clip",
        "",
        "HalfCheetah-v5",
        1_000_000,
        "PPO",
        {"n_envs": 1},
    )
}
CLEANRL = {"n_envs": 4, "n_steps": 128, "n_epochs": 4, "batch_size": 128}
CLEANRL |= {"learning_rate": 2.5e-4, "ent_coef": 0.01}  # in Stable-Baselines3's words
TO_475 = {"its defaults": {"n_envs": 1}, "CleanRL's settings": CLEANRL}
ADVANTAGES = {"rewards_to_go", "n_step_returns", "generalized_advantages"}
KINDS = ["acting", "environment", "returns and advantages", "update", "log", "rest"]


# Each of these runs in a process of its own and returns what it measured.


def ours(script, flags, folder=str(ROOT)):
    """One training of a script: its cost, its steps, and when it reached 475."""
    sys.path.insert(0, folder)
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    torch.set_num_threads(1)
    module = importlib.import_module(script)
    with tempfile.TemporaryDirectory() as run_dir:
        args = module.parse_args([*flags.split(), "--run-dir", f"{run_dir}/run"])
        begin, processor = time.time(), time.process_time()
        module.train(args)
        measured = cost(begin, processor)
        log = EventAccumulator(args.run_dir, {"scalars": 0}).Reload()
    events = log.Scalars("rollout/episode_return")  # each with its step and its time
    measured["steps"] = events[-1].step
    for event in reversed(events):
        if event.value >= SOLVED:
            measured["solved"] = solved(event.step, event.wall_time, begin)
    half = next(event for event in events if event.step >= events[-1].step / 2)
    measured["first_half"] = half.wall_time - begin
    return measured


def cost(begin, processor):
    """Seconds of the clock and of the processor since then, and the peak memory."""
    return {
        "seconds": time.time() - begin,
        "processor": time.process_time() - processor,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def solved(steps, when, begin):
    """Steps and seconds until then, of training and of the whole process."""
    process_seconds = when - float(os.environ["STARTED"])
    return {"steps": steps, "seconds": when - begin, "process_seconds": process_seconds}


def peer(algorithm, env, steps, settings, seed=0, stop=False):
    """One training of Stable-Baselines3; stop: at a mean of 475 over 100 episodes."""
    import gymnasium as gym
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class StopWhenSolved(BaseCallback):
        def _on_step(self):
            if not self.locals["dones"].any() or len(model.ep_info_buffer) < 100:
                return True
            returns = [episode["r"] for episode in model.ep_info_buffer]
            return statistics.mean(returns) < SOLVED

    torch.set_num_threads(1)
    begin, processor = time.time(), time.process_time()
    envs = make_vec_env(lambda: gym.make(env), settings.pop("n_envs"), seed=seed)
    algorithm = getattr(stable_baselines3, algorithm)
    model = algorithm("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    model.learn(steps, callback=StopWhenSolved() if stop else None)
    measured = cost(begin, processor) | {"steps": model.num_timesteps}
    if stop and model.num_timesteps < steps:
        measured["solved"] = solved(model.num_timesteps, time.time(), begin)
    return measured


def where_time_goes(script, flags):
    """The share of each part in a training, by a look at the stack each millisecond."""
    seen = Counter()

    def look(_, frame):
        names = set()
        while frame:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if names & ADVANTAGES:
            seen["returns and advantages"] += 1
        elif "update" in names:
            seen["update"] += 1
        elif "log" in names:
            seen["log"] += 1
        elif names & {"collect_rollout", "collect_trajectories"}:
            seen["environment" if "step" in names else "acting"] += 1
        elif "train" in names:
            seen["rest"] += 1

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    measured = ours(script, flags)
    signal.setitimer(signal.ITIMER_PROF, 0)
    shares = {kind: round(seen[kind] / seen.total(), 3) for kind in KINDS}
    return measured | {"shares": shares}


# The parts; each returns its rows as dictionaries.


def measure(function, *inputs):
    """What the function returns, from a process of its own."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--call"]
        + [json.dumps([function.__name__, inputs])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "STARTED": str(time.time())},
    )
    if process.returncode:
        raise RuntimeError(process.stderr[-2000:])
    return json.loads(process.stdout.splitlines()[-1])


def spread(ratios, digits=2):
    """Median, least and greatest of the pairs' ratios."""
    values = statistics.median(ratios), min(ratios), max(ratios)
    return dict(zip(["ratio", "lowest", "highest"], [round(x, digits) for x in values]))


def compare(what, pairs):
    """Speeds of pairs of runs (ours, another): a row with the ratio and both costs."""
    speeds = [[run["steps"] / run["seconds"] for run in pair] for pair in pairs]
    row = {"what": what} | spread([mine / other for mine, other in speeds])
    row["pairs"] = len(pairs)
    for name, runs in zip(["ours", "other"], zip(*pairs)):
        a_step = [1e6 * run["processor"] / run["steps"] for run in runs]
        row[f"{name}_processor_us_a_step"] = round(statistics.median(a_step), 1)
        row[f"{name}_megabytes"] = round(max(run["megabytes"] for run in runs))
    return row


def same_work(count, work=SAME_WORK):
    """Against Stable-Baselines3."""
    rows = []
    for what, (script, flags, env, steps, algorithm, settings) in work.items():
        flags = f"{flags} --env {env} --total-steps {steps}"
        pairs = []
        for _ in range(count):
            mine = measure(ours, script, flags)
            pairs.append((mine, measure(peer, algorithm, env, steps, settings)))
        rows.append(compare(what, pairs))
    return rows


def whole_run(count):
    """Against Stable-Baselines3, each with its defaults; some 14 minutes a pair."""
    return same_work(count, WHOLE_RUN)


def first_version(count):
    """Against the first version of these scripts at the same work."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{name}.py" for name in [*SCRIPTS, "common"]]
        archive = ["git", "-C", str(ROOT), "archive", FIRST_VERSION, *files]
        files = subprocess.run(archive, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=files, check=True)
        for what, (script, flags, env, steps, _, _) in SAME_WORK.items():
            flags = f"{flags} --env {env} --total-steps {steps}"
            pairs = []
            for _ in range(count):
                mine = measure(ours, script, flags)
                pairs.append((mine, measure(ours, script, flags, folder)))
            rows.append(compare(what, pairs))
    return rows


def to_475(count):
    """Time to a mean return of 475 over 100 episodes of CartPole-v1."""
    runs = []
    for seed in range(count):
        run = {"ours": measure(ours, "ppo_clip", f"--seed {seed}")}
        for name, settings in TO_475.items():
            inputs = "PPO", "CartPole-v1", 500_000, settings, seed, True
            run[name] = measure(peer, *inputs)
        runs.append({name: one.get("solved") for name, one in run.items()})
    rows = []
    for name in TO_475:
        both = [(run["ours"], run[name]) for run in runs if run["ours"] and run[name]]
        row = {"what": f"Stable-Baselines3's PPO with {name}"}
        row |= spread([other["seconds"] / mine["seconds"] for mine, other in both], 1)
        row |= {"pairs": len(both), "seeds": count}
        for who, solutions in zip(["ours", "other"], zip(*both)):
            for key in "steps", "process_seconds":
                median = statistics.median(solution[key] for solution in solutions)
                row[f"{who}_{key}"] = round(median, 1)
        rows.append(row)
    return rows


def inside(count):
    """Where the time of a training goes, as shares."""
    rows = []
    for env in "CartPole-v1", "HalfCheetah-v5":
        for script in SCRIPTS:
            flags = f"--env {env} --total-steps 100_000"
            runs = [measure(where_time_goes, script, flags) for _ in range(count)]
            row = {"env": env, "script": script, "runs": count}
            for kind in KINDS:
                row[kind] = statistics.median(run["shares"][kind] for run in runs)
            rows.append(row)
    return rows


def start(count):
    """The shortest run of each script, against importing torch and gymnasium."""
    imports = [sys.executable, "-c", "import torch, gymnasium"]
    flags = "--num-envs 1 --max-episode-steps 2 --total-steps 2 --eval-episodes 1"
    rows = []
    for script in SCRIPTS:
        few = f"{flags} --rollout-steps 2" if script in SCRIPTS[2:] else flags
        ratios = []
        for _ in range(count):
            with tempfile.TemporaryDirectory() as folder:
                run = [sys.executable, str(ROOT / f"{script}.py"), *few.split()]
                mine = seconds_of([*run, "--run-dir", f"{folder}/run"])
            ratios.append(mine / seconds_of(imports))
        rows.append({"script": script} | spread(ratios) | {"pairs": count})
    return rows


def seconds_of(command):
    """Seconds until the command has ended."""
    begin = time.time()
    subprocess.run(command, capture_output=True, check=True)
    return time.time() - begin


def memory(_):
    """Peak memory of short and long runs of ppo_clip.py on CartPole-v1."""
    rows = []
    for steps in 500_000, 5_000_000:
        run = measure(ours, "ppo_clip", f"--total-steps {steps}")
        second_half = run["seconds"] - run["first_half"]
        row = {"steps": steps, "megabytes": round(run["megabytes"])}
        row["speed_of_second_half"] = round(run["first_half"] / second_half, 2)
        rows.append(row)
    return rows


PARTS = [same_work, first_version, whole_run, to_475, inside, start, memory]
CALLS = {"ours": ours, "peer": peer, "where_time_goes": where_time_goes}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--pairs", type=int, default=5, help="of each comparison")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--call", type=json.loads, help="one measurement, for itself")
    args = parser.parse_args()
    if args.call:
        name, inputs = args.call
        print(json.dumps(CALLS[name](*inputs)))
        return
    for part in PARTS:
        if part.__name__ in args.only:
            rows = part(args.pairs)
            path = args.results / f"speed_{part.__name__}.csv"
            path.unlink(missing_ok=True)
            for row in rows:
                append(path, row)
                print(row)


if __name__ == "__main__":
    main()
