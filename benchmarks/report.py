"""Makes README's tables and figures from benchmarks/results alone.

(Except the table of the scripts' defaults, which it asks the scripts for.)

    pip install matplotlib scipy
    python benchmarks/report.py

What counts is the return of the last 100 training episodes, and that of 100 episodes of
the trained policy's most probable actions: the interquartile mean over the seeds with a
95 % bootstrap interval, as Agarwal et al. (2021) advise. Both are SciPy's. Of 3 seeds
that is the plain mean, and the interval goes from the lowest to the highest. A group's
figure has the learning curves of all scripts and of the peers, with the band from the
lowest seed to the highest. results/seeds.md has every seed's value.
"""

import csv
import importlib
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from learn import GROUPS
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
STYLES = {  # script: (name, color, line)
    "reinforce": ("reinforce.py", "#7f7f7f", "-"),
    "vpg_baseline": ("vpg_baseline.py", "#2ca02c", "-"),
    "actor_critic": ("actor_critic.py", "#ff7f0e", "-"),
    "ppo_kl": ("ppo_kl.py", "#9467bd", "-"),
    "ppo_clip": ("ppo_clip.py", "#1f77b4", "-"),
    "sb3_ppo": ("Stable-Baselines3, PPO", "#d62728", ":"),
    "sb3_a2c": ("Stable-Baselines3, A2C", "#8c564b", ":"),
}
OURS = list(STYLES)[:5]
TRAINING, EVALUATION = "last_100_episodes", "evaluation_mean"  # columns of runs.csv
BARE = ["env", "script", "share", "lowest", "highest", "pairs"]  # the rest is inside


def read(name):
    """Rows of a results file as dictionaries."""
    with open(RESULTS / name) as file:
        return list(csv.DictReader(file))


def interquartile_mean(*samples, axis=-1):
    """The mean of each sample's middle half (of 3 seeds, all), then over samples."""
    return np.mean([stats.trim_mean(x, 0.25, axis=axis) for x in samples], axis=0)


def with_interval(*samples):
    """The mean of the samples' interquartile means, and its 95 % bootstrap interval.

    A sample is an environment, resampled for itself; each counts as much as another.
    """
    mean = interquartile_mean(*samples)
    if (
        any(len(sample) < 2 for sample in samples)
        or np.ptp(np.concatenate(samples)) == 0
    ):
        return mean, mean, mean
    interval = stats.bootstrap(
        samples, interquartile_mean, method="percentile", rng=0
    ).confidence_interval
    return mean, interval.low, interval.high


def final_returns(column=TRAINING):
    """{environment: {script: array over seeds}}, in the order of GROUPS and STYLES."""
    found = defaultdict(lambda: defaultdict(dict))
    for row in read("runs.csv"):
        seeds = found[row["env"]][row["script"]]
        seeds[int(row["seed"])] = float(row[column])
    return {
        env: {
            script: np.array([value for _, value in sorted(found[env][script].items())])
            for script in STYLES
            if script in found[env]
        }
        for envs, _, _ in GROUPS.values()
        for env in envs
        if env in found
    }


def digits(values):
    """Decimals that show three figures of these values."""
    return 0 if np.abs(values).max() >= 1000 else 1


def learning_table(column=TRAINING):
    """The Markdown table of all finished runs: environments down, scripts across."""
    returns = final_returns(column)
    names = " | ".join(name for name, _, _ in STYLES.values())
    lines = [f"| environment | seeds | {names} |", "| --- " * (2 + len(STYLES)) + "|"]
    for env, of_env in returns.items():
        d = digits(np.concatenate(list(of_env.values())))
        cells = []
        for script in STYLES:
            if script not in of_env:
                cells.append("")
                continue
            mean, low, high = with_interval(of_env[script])
            interval = f" ({low:,.{d}f} to {high:,.{d}f})"
            cells.append(f"{mean:,.{d}f}{interval if len(of_env[script]) > 1 else ''}")
        counts = sorted({len(values) for values in of_env.values()})
        seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
        lines.append(f"| {env} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def order_rows():
    """(script, environments, score, low, high) of the five scripts.

    A score is 0 at the environment's worst run of all and 1 at its best; it counts
    environments that all five have finished on more than one seed.
    """
    scores = defaultdict(list)
    for of_env in final_returns().values():
        if any(len(of_env.get(script, [])) < 2 for script in OURS):
            continue
        everything = np.concatenate([of_env[script] for script in OURS])
        for script in OURS:
            scores[script].append(
                (of_env[script] - everything.min()) / np.ptp(everything)
            )
    return [
        (script, len(samples), *with_interval(*samples))
        for script, samples in scores.items()
    ]


def order_table():
    """The Markdown table of the lecture's order."""
    lines = ["| script | score | 95 % interval | environments |", "| --- " * 4 + "|"]
    for script, count, mean, low, high in order_rows():
        lines.append(
            f"| `{script}.py` | {mean:.2f} | {low:.2f} to {high:.2f} | {count} |"
        )
    if below := exceptions():
        text = "By their interquartile means, these are below the script before them:"
        lines += ["", f"{text} {'; '.join(below)}."]
    return "\n".join(lines)


def exceptions():
    """Where the lecture's order doesn't hold, environment by environment."""
    found = []
    for env, of_env in final_returns().items():
        below = [
            f"`{script}.py`"
            for before, script in zip(OURS[:-1], OURS[1:])
            if before in of_env and script in of_env
            if interquartile_mean(of_env[script]) < interquartile_mean(of_env[before])
        ]
        if below:
            found.append(f"on {env} {', '.join(below)}")
    return found


def seeds_page():
    """A Markdown page with every seed's values."""
    lines = ["# Every seed's returns", ""]
    lines += ["Made by `python benchmarks/report.py`; seed 0 comes first.", ""]
    titles = {
        TRAINING: "Mean of the last 100 training episodes",
        EVALUATION: "Mean of 100 episodes of the policy's most probable actions",
    }
    for column, title in titles.items():
        lines += [f"## {title}", ""]
        lines += ["| environment | script | mean | returns |", "| --- " * 4 + "|"]
        for env, of_env in final_returns(column).items():
            for script, values in of_env.items():
                d = digits(values)
                text = ", ".join(f"{value:.{d}f}" for value in values)
                mean = f"{values.mean():.{d}f}"
                lines.append(f"| {env} | {STYLES[script][0]} | {mean} | {text} |")
        lines.append("")
    return "\n".join(lines)


def learning_figures():
    """For each group, a panel an environment with the curves of all scripts."""
    curves = defaultdict(lambda: defaultdict(list))
    for row in read("curves.csv"):
        point = int(row["steps"]), float(row["return"])
        curves[row["env"], row["script"]][row["seed"]].append(point)
    there = {env for env, _ in curves}
    for group, (envs, _, _) in GROUPS.items():
        envs = [env for env in envs if env in there]
        if not envs:
            continue
        columns = min(4, len(envs) + 1)
        rows = -(-(len(envs) + 1) // columns)
        _, axes = plt.subplots(
            rows,
            columns,
            figsize=(3.6 * columns, 2.9 * rows),
            squeeze=False,
            layout="constrained",
        )
        handles = {}
        for ax, env in zip(axes.flat, envs):
            for script, (name, color, line) in STYLES.items():
                runs = list(curves.get((env, script), {}).values())
                if not runs:
                    continue
                steps, returns = np.array(runs)[0, :, 0], np.array(runs)[:, :, 1]
                (handles[name],) = ax.plot(steps, returns.mean(0), line, color=color)
                low, high = returns.min(0), returns.max(0)
                ax.fill_between(steps, low, high, color=color, alpha=0.12, lw=0)
            ax.set(title=env, xlabel="steps", ylabel="return, last 100 episodes")
            ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
            ax.grid(alpha=0.3)
        for ax in axes.flat[len(envs) :]:
            ax.axis("off")
        order = [name for name, _, _ in STYLES.values() if name in handles]
        axes.flat[len(envs)].legend(
            [handles[name] for name in order], order, frameon=False, loc="center left"
        )
        plt.savefig(RESULTS / f"learning_{group}.png", dpi=100)
        plt.close()


def order_figure():
    """The scores of the five scripts, with their intervals."""
    rows = order_rows()
    if not rows:
        return
    _, ax = plt.subplots(figsize=(5.4, 2.2), layout="constrained")
    for y, (script, _, mean, low, high) in enumerate(reversed(rows)):
        name, color, _ = STYLES[script]
        ax.plot([low, high], [y, y], color=color, lw=3, alpha=0.5)
        ax.plot(mean, y, "o", color=color)
    ax.set_yticks(range(len(rows)), [f"{row[0]}.py" for row in reversed(rows)])
    ax.set_xlabel("score (interquartile mean, 95 % interval)")
    ax.grid(alpha=0.3)
    plt.savefig(RESULTS / "order.png", dpi=100)
    plt.close()


def scaling_figure(path):
    """Steps per second over copies, hidden units and minibatch size, of ppo_clip.py."""
    lines = defaultdict(list)
    for row in read("speed_scaling.csv"):
        axis, _, mode = row["axis"].partition(", ")
        point = int(row["value"]), int(row["steps_per_second"])
        lines[axis, mode, row["env"]].append(point)
    names = list(dict.fromkeys(axis for axis, *_ in lines))
    _, axes = plt.subplots(1, len(names), figsize=(12.6, 3.5), layout="constrained")
    for ax, name in zip(axes, names):
        for (axis, mode, env), points in lines.items():
            if axis == name:
                label = f"{env}, {mode}" if mode else env
                ax.loglog(*zip(*points), "o-", ms=3, label=label, base=2)
        ax.set(xlabel=name, ylabel="steps per second")
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize=7, ncols=2, loc=(0, 1))
    plt.savefig(path, dpi=110)


def speed_table():
    """The Markdown table of the ratios, ours to Stable-Baselines3's."""
    lines = [
        "| what | times as fast | lowest to highest | pairs |",
        "| --- | --- | --- | --- |",
    ]
    rows = read("speed_same_work.csv")
    for part in "whole_run", "to_475":
        if (RESULTS / f"speed_{part}.csv").exists():
            rows += read(f"speed_{part}.csv")
    for row in rows:
        count = row.get("pairs") or f"{row['seeds']} seeds"
        lines.append(
            f"| {row['what']} | {row['ratio']} | {row['lowest']} to {row['highest']} "
            f"| {count} |"
        )
    return "\n".join(lines)


def limit_table():
    """The Markdown table of how much faster the same work could be."""
    lines = [
        "| what | ours | the limit | a gradient step | compiled | networks alone "
        "| to compile | pairs |",
        "| --- " * 8 + "|",
    ]
    for row in read("speed_limit.csv"):
        times = (
            f"{float(row[name]):,.0f} µs"
            for name in ("step_us", "compiled_us", "networks_us")
        )
        lines.append(
            f"| {row['what']} | {row['ratio']} | {row['limit']} | {' | '.join(times)} "
            f"| {float(row['compilation_seconds']):.0f} s | {row['pairs']} |"
        )
    return "\n".join(lines)


def start_table():
    """The Markdown table of start-up time and memory."""
    lines = ["| what | measured |", "| --- | --- |"]
    ratios = [float(row["ratio"]) for row in read("speed_start.csv")]
    lines.append(
        "| process start to first step, as a multiple of `import torch, gymnasium` "
        f"| {min(ratios)} to {max(ratios)}, the five scripts' medians |"
    )
    rows = {int(row["steps"]): row for row in read("speed_memory.csv")}
    first, second, *_, last = sorted(rows)
    peaks = [f"{rows[steps]['peak_megabytes']} MB" for steps in (first, last)]
    lines.append(
        f"| peak memory, `ppo_clip.py` after {first:,} and {last:,} steps "
        f"| {', '.join(peaks)} |"
    )
    *_, before, _ = sorted(rows)
    late, early = (
        float(rows[steps]["steps_per_processor_second"]) for steps in (last, second)
    )
    lines.append(
        f"| its speed from {before:,} to {last:,} steps, as a multiple of that from "
        f"{first:,} to {second:,} | {late / early:.2f} |"
    )
    return "\n".join(lines)


def where_table():
    """The Markdown table of where a training's time goes."""
    rows = read("speed_against_bare.csv")
    parts = [name for name in rows[0] if name not in BARE]
    names = [name.replace("_", " ") for name in parts]
    lines = [
        f"| environment | script | of the bare speed | {' | '.join(names)} |",
        "| --- " * (3 + len(parts)) + "|",
    ]
    for row in rows:
        shares = " | ".join(f"{float(row[name]):.0%}" for name in parts)
        lines.append(
            f"| {row['env']} | `{row['script']}.py` | {float(row['share']):.0%} "
            f"| {shares} |"
        )
    return "\n".join(lines)


def defaults_table():
    """The Markdown table of the defaults in which the scripts differ."""
    sys.path.insert(0, str(ROOT))
    flags = {
        script: vars(importlib.import_module(script).parse_args([])) for script in OURS
    }
    names = dict.fromkeys(name for of_script in flags.values() for name in of_script)
    lines = [
        f"| flag | {' | '.join(f'`{script}.py`' for script in OURS)} |",
        "| --- " * (1 + len(OURS)) + "|",
    ]
    for name in names:
        cells = [str(flags[script].get(name, "")) for script in OURS]
        if name != "run_dir" and len(set(cells)) > 1:
            lines.append(f"| `--{name.replace('_', '-')}` | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {
    "defaults": defaults_table,
    "learning table": learning_table,
    "evaluation table": partial(learning_table, EVALUATION),
    "order": order_table,
    "speed": speed_table,
    "limit": limit_table,
    "where time goes": where_table,
    "start and memory": start_table,
}


def filled(readme):
    """README's text with these tables made anew."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin not in readme:
            continue
        before, after = readme.split(begin)[0], readme.split(end)[1]
        readme = f"{before}{begin}\n{make()}\n{end}{after}"
    return readme


def main():
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
    (RESULTS / "seeds.md").write_text(seeds_page())
    learning_figures()
    order_figure()
    if (RESULTS / "speed_scaling.csv").exists():
        scaling_figure(RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
