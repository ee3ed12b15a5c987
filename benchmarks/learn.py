"""Runs the grid, the ladder and the ablations that README and docs/results.md show.

    pip install stable-baselines3 pandas "gymnasium[box2d,mujoco]"
    python benchmarks/learn.py --workers 2          everything that is not there yet
    python benchmarks/learn.py --group ladder       one group of jobs: see GROUPS
    python benchmarks/learn.py --ray auto           the same jobs on a Ray cluster
    python benchmarks/learn.py --fingerprint        a hash of what the scripts compute

Seeds are 1000 and up; nothing was chosen by looking at them. Each run is a row of
results/runs.csv and its learning curve (the mean of the last 100 episodes at 50 points)
a row of results/curves.csv. Runs that are there already are skipped, so the command
can be stopped and started again; groups share the runs that they have in common. A run
that becomes non-finite keeps its last 100 episodes, and its column finite is False.

All rows are of one set of numbers. The fingerprint is a hash of the training episodes
of short runs of all five scripts; each row has it, and no job starts if it is not the
one in results/fingerprint.txt. The file's second line names versions and processor:
elsewhere numbers are rounded differently, and fingerprints cannot be compared.
"""

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

from run import (
    PEERS,
    PLAIN_MLP,
    POINTS,
    RESULTS,
    ROOT,
    SCRIPTS,
    append,
    read,
    run_all,
    scripts_commit,
)
from tqdm import tqdm

FIRST_SEED = 1000
TASKS = [
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
]
CLASSIC = ["Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0"]
LANDERS = ["LunarLander-v3", "LunarLanderContinuous-v3"]
STEPS = {"CartPole-v1": 200_000} | dict.fromkeys(CLASSIC, 300_000)
STEPS |= dict.fromkeys([*LANDERS, *TASKS], 1_000_000)

# A setting is (script, flags), flags beyond the defaults; "" is the script as it is.
RUNGS = {
    "1 REINFORCE, R(τ)": ("reinforce", "--weight trajectory"),
    "2 REINFORCE, G_t": ("reinforce", ""),
    "3 baseline": ("vpg_baseline", ""),
    "4 bootstrapping, n = 5": ("actor_critic", ""),
    "5 GAE, the PPOs' batch": ("actor_critic", "--advantage gae --rollout-steps 256"),
    "6 many steps, no bound": ("ppo_clip", "--clip-epsilon inf"),
    "7 many steps, KL penalty": ("ppo_kl", ""),
    "8 many steps, clip": ("ppo_clip", ""),
}
STEP_SIZES = {
    "3e-4": "--learning-rate 3e-4",
    "1e-3": "--learning-rate 1e-3",
    "2.5e-3": "",  # the default
    "1e-2": "--learning-rate 1e-2",
}
TABLE1 = {
    "no clipping or penalty": ("ppo_clip", "--clip-epsilon inf"),
    "clipping, ε = 0.1": ("ppo_clip", "--clip-epsilon 0.1"),
    "clipping, ε = 0.2": ("ppo_clip", ""),
    "clipping, ε = 0.3": ("ppo_clip", "--clip-epsilon 0.3"),
    "adaptive KL, δ = 0.003": ("ppo_kl", "--target-kl 0.003"),
    "adaptive KL, δ = 0.01": ("ppo_kl", ""),
    "adaptive KL, δ = 0.03": ("ppo_kl", "--target-kl 0.03"),
}
DETAILS = {
    "normalised observations": "--no-normalize-observations",
    "normalised rewards": "--no-normalize-rewards",
    "normalised advantages": "--no-normalize-advantages",
    "annealed step size": "--no-anneal-learning-rate",
    "orthogonal initialisation": PLAIN_MLP,
    "gradient clipping": "--max-grad-norm inf",
}
ACTIONS = {"HalfCheetah-v5": 6, "Hopper-v5": 3, "Pendulum-v1": 1}
EPOCHS = {"1": "--epochs 1", "3": "--epochs 3", "5": ""}
EPOCHS |= {"10": "--epochs 10", "20": "--epochs 20"}


def details(env):
    """{what is off: flags of ppo_clip.py} on an environment; "none" is the default."""
    off = dict(DETAILS)
    if env in ACTIONS:  # σ = 1 in every dimension, as in much other code
        off["first noise"] = f"--initial-variance {ACTIONS[env]}"
    return {"none": ""} | off | {"all": " ".join(off.values())}


def defaults(scripts):
    return [(script, "") for script in scripts]


GROUPS = {  # name: [(settings, environments, number of seeds)]
    "grid": [
        (defaults(SCRIPTS), ["CartPole-v1", *CLASSIC], 10),
        (defaults(SCRIPTS), LANDERS, 5),
        (defaults(["ppo_kl", "ppo_clip"]), TASKS, 10),
        (defaults(SCRIPTS[:3]), TASKS, 3),
        (defaults(PEERS), ["CartPole-v1", *CLASSIC, *LANDERS, *TASKS], 3),
    ],
    "ladder": [
        (list(RUNGS.values()), ["CartPole-v1"], 10),
        (list(RUNGS.values()), ["LunarLander-v3"], 5),
    ],
    "step_sizes": [
        (
            [
                (script, f"{flags} {step_size}".strip())
                for script, flags in RUNGS.values()
                for step_size in STEP_SIZES.values()
            ],
            ["CartPole-v1"],
            3,
        )
    ],
    "table1": [(list(TABLE1.values()), TASKS, 3)],
    "details": [
        ([("ppo_clip", flags) for flags in details(env).values()], [env], seeds)
        for env, seeds in [
            ("HalfCheetah-v5", 6),
            ("Hopper-v5", 6),
            ("Pendulum-v1", 3),
            ("LunarLander-v3", 3),
        ]
    ],
    "epochs": [
        (
            [("ppo_clip", flags) for flags in EPOCHS.values()],
            ["HalfCheetah-v5", "CartPole-v1"],
            3,
        )
    ],
}
KEY = ["script", "env", "steps", "seed", "flags"]
MEASURED = ["last_100", "evaluation_mean", "evaluation_std", "steps_to_475"]
MEASURED += ["finite", "cpu_seconds", "commit", "fingerprint", "node"]
PACKAGES = ["torch", "gymnasium", "numpy", "mujoco", "box2d", "stable_baselines3"]


def versions():
    """The versions of Python and of the packages that a run depends on."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = ""
    return found


def fingerprint():
    """A hash of the training episodes of short runs, and where it holds."""
    import torch

    sys.path.insert(0, str(ROOT))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    digest = hashlib.sha256()
    for script in SCRIPTS:
        module = importlib.import_module(script)
        for env in "CartPole-v1", "Pendulum-v1", "Acrobot-v1 --max-episode-steps 100":
            flags = f"--env {env} --total-steps 5000 --seed 1".split()
            with (
                tempfile.TemporaryDirectory() as folder,
                open(os.devnull, "w") as nowhere,
                contextlib.redirect_stderr(nowhere),  # the progress bar
            ):
                args = module.parse_args([*flags, "--run-dir", f"{folder}/run"])
                _, history = module.train(args)
            for steps, episode_return in history:
                digest.update(f"{steps} {float(episode_return)!r}\n".encode())
    torch.set_num_threads(threads)
    where = {name: importlib.metadata.version(name) for name in PACKAGES[:3]}
    processor = torch.backends.cpu.get_cpu_capability()
    text = ", ".join(f"{name} {version}" for name, version in where.items())
    return digest.hexdigest()[:12], f"{text}, {processor}"


def check_fingerprint():
    """The fingerprint; ends the program if the stored one is of other scripts."""
    found, where = fingerprint()
    path = RESULTS / "fingerprint.txt"
    if not path.exists():
        sys.exit(f"no {path}: learn.py --fingerprint prints what belongs in it")
    stored, stored_where = path.read_text().split("\n")[:2]
    if where == stored_where and found != stored:
        sys.exit(
            f"The scripts compute other numbers than before: their fingerprint is "
            f"{found}, that of the rows {stored}. Begin a new {RESULTS}/runs.csv, or "
            "undo the change."
        )
    return found


def rows_of(group):
    """The keys of a group's rows, in the order in which they are to run."""
    for settings, envs, count in GROUPS[group]:
        for index in range(count):
            for env in envs:
                for script, flags in settings:
                    seed = index if script in PEERS else FIRST_SEED + index
                    yield script, env, STEPS[env], seed, flags


def jobs_of(args):
    """{job: key of its row}, of all rows that are asked for."""
    jobs = {}
    for group in args.group or GROUPS:
        for key in rows_of(group):
            script, env, steps, seed, flags = key
            if (
                script in args.scripts
                and env in (args.envs or [env])
                and seed in (args.seeds or [seed])
            ):
                run = f"--env {env} --total-steps {steps} --seed {seed}"
                job = script, tuple(f"{flags} {run} --eval-episodes 100".split())
                jobs[job] = key
    return jobs


def run_on_ray(jobs, address):
    """run_all on a Ray cluster: each run in a node's copy of this repository."""
    import ray

    @ray.remote(num_cpus=1)
    def run_there(script, flags):
        sys.path.insert(0, str(Path("benchmarks").resolve()))
        row = importlib.import_module("run").run(script, flags)
        return row | {"node": ray.get_runtime_context().get_node_id()[:8]}

    ray.init(address, runtime_env={"working_dir": str(ROOT), "excludes": [".git"]})
    commit = scripts_commit()  # a node's copy has no history
    pending = {run_there.remote(*job): job for job in jobs}
    while pending:
        (ready,), _ = ray.wait(list(pending))
        job = pending.pop(ready)
        try:
            yield job, ray.get(ready) | {"commit": commit}
        except ray.exceptions.RayError as error:
            yield job, error


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scripts = [*SCRIPTS, *PEERS]
    flag = parser.add_argument
    flag("--fingerprint", action="store_true", help="print it, run nothing")
    flag("--group", choices=GROUPS, action="append", help="default: all")
    flag("--scripts", nargs="+", choices=scripts, default=scripts)
    flag("--envs", nargs="+", help="default: the group's")
    flag("--seeds", nargs="+", type=int, help="default: the group's")
    flag("--workers", type=int, default=1, help="processes at a time")
    flag("--ray", metavar="ADDRESS", help="of a Ray cluster, or auto")
    return parser.parse_args()


def main():
    args = parse_args()
    if args.fingerprint:
        print(*fingerprint(), sep="\n")
        return
    mark = {"fingerprint": check_fingerprint(), "node": "local"}
    finished = {tuple(row[name] for name in KEY) for row in read(RESULTS / "runs.csv")}
    jobs = {
        job: key
        for job, key in jobs_of(args).items()
        if tuple(map(str, key)) not in finished
    }
    if args.ray:
        results = run_on_ray(jobs, args.ray)
    else:
        results = run_all(jobs, args.workers)
    failed = 0
    with tqdm(total=len(jobs), unit="run") as bar:
        for job, row in results:
            bar.update()
            if isinstance(row, Exception):
                failed += 1
                bar.write(str(row))
                continue
            key = dict(zip(KEY, jobs[job]))
            points = dict(zip(range(1, POINTS + 1), row.pop("curve")))
            row = mark | row
            measured = {name: row[name] for name in MEASURED}
            append(RESULTS / "curves.csv", key | points)
            append(RESULTS / "runs.csv", key | measured | versions())
    if failed:
        sys.exit(f"{failed} of {len(jobs)} runs failed; give the command again")


if __name__ == "__main__":
    main()
