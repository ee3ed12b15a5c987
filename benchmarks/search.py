"""The search for the block of defaults that all five scripts share.

    pip install pandas scipy tabulate
    python benchmarks/search.py --workers 2     the search
    python benchmarks/search.py --table         what it says, as Markdown

One setting of the base block is changed at a time, in all scripts that have it. Each
run is a row of results/search.csv. Runs that are there already are skipped, so the
command can be stopped and started again. Variants come one after the other, all scripts
and environments of one before the next.

Score: a return counts 0 where it equals that of a random policy, and 1 where it equals
the environment's best mean of all scripts and variants. A variant's score is the mean
over the scripts and environments that it concerns. It is compared with the base on
the same of them, seed by seed; seeds are resampled within each for the 95 % interval. A
variant replaces the base only if that interval is above 0.
"""

import argparse
import sys
from itertools import product

import pandas as pd
from run import RESULTS, SCRIPTS, append, random_returns, read, run_all
from scipy import stats
from tqdm import tqdm

BASE = {
    "--num-envs": 8,
    "--gamma": 0.99,
    "--learning-rate": 2.5e-3,
    "--max-grad-norm": 0.5,
    "--initial-variance": 1.5,
    "--entropy-coefficient": 0,
}
OWN = {  # settings of the base that some scripts have
    "reinforce": {},
    "vpg_baseline": {"--critic-epochs": 10},
    "actor_critic": {"--critic-epochs": 10, "--n-steps": 5, "--rollout-steps": 32},
    "ppo_kl": {
        "--gae-lambda": 0.95,
        "--epochs": 5,
        "--minibatch-size": 256,
        "--rollout-steps": 256,
    },
}
OWN["ppo_clip"] = OWN["ppo_kl"]
VARIANTS = {  # the base comes first, then the most promising
    "base": {},
    "copies16": {"--num-envs": 16},  # as large a batch: shorter rollouts
    "gamma995": {"--gamma": 0.995},
    "bound1": {"--max-grad-norm": 1},
    "n8": {"--n-steps": 8},
    "lr2e-3": {"--learning-rate": 2e-3},
    "passes20": {"--critic-epochs": 20},
    "lr3e-3": {"--learning-rate": 3e-3},
    "no_advantage_normalization": {"--no-normalize-advantages": ""},
    "copies32": {"--num-envs": 32},
    "variance1": {"--initial-variance": 1},
    "n16": {"--n-steps": 16},
    "passes5": {"--critic-epochs": 5},
}
STEPS = {"CartPole-v1": 100_000, "Acrobot-v1": 200_000, "Pendulum-v1": 200_000}
KEY = ["variant", "script", "env", "steps", "seed", "flags"]
MEASURED = ["last_100", "steps_to_475", "cpu_seconds", "commit"]


def concerns(variant, script, env):
    """Whether the variant changes anything for this script on this environment."""
    (flag,) = VARIANTS[variant] or ["--gamma"]  # the base concerns all
    if flag == "--initial-variance":
        return env == "Pendulum-v1"
    if flag == "--no-normalize-advantages":
        return script != "reinforce"
    return flag in BASE or flag in OWN[script]


def settings(variant, script):
    """The flags of a variant for a script."""
    flags = BASE | OWN[script] | VARIANTS[variant]
    if "--rollout-steps" in flags:
        flags["--rollout-steps"] = flags["--rollout-steps"] * 8 // flags["--num-envs"]
    return " ".join(f"{name} {value}" for name, value in flags.items()).strip()


def jobs_of(args):
    """{job: the beginning of its row}, in the order in which they are to run."""
    jobs = {}
    for variant, script, env in product(args.variants, args.scripts, args.envs):
        if not concerns(variant, script, env):
            continue
        flags = settings(variant, script)
        for seed in args.seeds:
            run = f"--env {env} --total-steps {STEPS[env]} --seed {seed}"
            job = script, (*flags.split(), *run.split())
            jobs[job] = (variant, script, env, STEPS[env], seed, flags)
    return jobs


def scores(rows):
    """rows with a column score: 0 is a random policy, 1 the environment's best mean."""
    random = rows["env"].map(lambda env: random_returns(env).mean())
    means = rows.groupby(["variant", "script", "env"])["last_100"].mean()
    best = rows["env"].map(means.groupby("env").max())
    return rows.assign(score=(rows["last_100"] - random) / (best - random))


def mean_of_means(*cells, axis=-1):
    """The mean over cells of each cell's mean over its seeds."""
    return sum(cell.mean(axis=axis) for cell in cells) / len(cells)


def search_table(rows):
    """A row for each variant: its score, and its difference to the base."""
    rows = scores(rows)
    cell = ["script", "env"]
    base = rows[rows["variant"] == "base"].set_index([*cell, "seed"])["score"]
    table = []
    for variant, changes in VARIANTS.items():
        here = rows[rows["variant"] == variant].set_index([*cell, "seed"])["score"]
        if here.empty:
            continue
        flags = " ".join(f"{name} {value}" for name, value in changes.items()).strip()
        line = {
            "variant": variant,
            "flags": f"`{flags}`" if flags else "",
            "runs": len(here),
            "cells": here.groupby(cell).ngroups,
            "score": f"{here.groupby(cell).mean().mean():.3f}",
        }
        pairs = (here - base).dropna().groupby(cell)
        samples = [pair.to_numpy() for _, pair in pairs if len(pair) > 1]
        if variant != "base" and samples:
            interval = stats.bootstrap(
                samples, mean_of_means, method="percentile", rng=0
            ).confidence_interval
            line["difference to base"] = f"{mean_of_means(*samples):+.3f}"
            line["95 % interval"] = f"{interval.low:+.3f} to {interval.high:+.3f}"
            line["replaces it"] = "yes" if interval.low > 0 else "no"
        table.append(line)
    return pd.DataFrame(table).fillna("")


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag, names = parser.add_argument, list(VARIANTS)
    flag("--table", action="store_true", help="print what the rows say, run nothing")
    flag("--variants", nargs="+", choices=names, default=names)
    flag("--scripts", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    flag("--envs", nargs="+", choices=STEPS, default=STEPS)
    flag("--seeds", nargs="+", type=int, default=list(range(100, 104)))
    flag("--workers", type=int, default=1, help="processes at a time")
    return parser.parse_args()


def main():
    args = parse_args()
    path = RESULTS / "search.csv"
    if args.table:
        table = search_table(pd.read_csv(path))
        print(table.to_markdown(index=False, disable_numparse=True))
        return
    finished = {tuple(row[name] for name in KEY) for row in read(path)}
    jobs = {
        job: key
        for job, key in jobs_of(args).items()
        if tuple(map(str, key)) not in finished
    }
    failed = 0
    with tqdm(total=len(jobs), unit="run") as bar:
        for job, row in run_all(jobs, args.workers):
            bar.update()
            if isinstance(row, Exception):
                failed += 1
                bar.write(str(row))
                continue
            measured = {name: row[name] for name in MEASURED}
            append(path, dict(zip(KEY, jobs[job])) | measured)
    if failed:
        sys.exit(f"{failed} of {len(jobs)} runs failed; give the command again")


if __name__ == "__main__":
    main()
