"""Makes README's tables and figures from benchmarks/results alone.

    pip install matplotlib scipy
    python benchmarks/report.py

The table gives the return of the last 100 training episodes: its interquartile mean
over the seeds, with a 95 % bootstrap interval (Agarwal et al. 2021), and the lowest.
"""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COLORS = {
    "reinforce": "#7f7f7f",
    "vpg_baseline": "#2ca02c",
    "actor_critic": "#ff7f0e",
    "ppo_kl": "#9467bd",
    "ppo_clip": "#1f77b4",
}

BARE = ["env", "script", "share", "lowest", "highest", "pairs"]  # the rest is inside


def read(name):
    """Rows of a results file as dictionaries."""
    with open(RESULTS / name) as file:
        return list(csv.DictReader(file))


def interquartile_mean(x, axis=-1):
    """The mean of the middle half."""
    return stats.trim_mean(x, 0.25, axis=axis)


def table():
    """The Markdown table of all finished runs."""
    returns = defaultdict(list)
    for row in read("runs.csv"):
        key = row["env"], int(row["steps"]), row["script"]
        returns[key].append(float(row["last_100_episodes"]))
    lines = [
        "| environment | steps | script | return | 95 % interval | lowest | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = list(COLORS)
    envs = list(dict.fromkeys(env for env, *_ in returns))
    for key in sorted(returns, key=lambda k: (envs.index(k[0]), order.index(k[2]))):
        env, steps, script = key
        values = np.array(returns[key])
        low = high = values[0]
        if len(values) > 1 and values.std() > 0:
            interval = stats.bootstrap(
                (values,), interquartile_mean, method="percentile", rng=0
            ).confidence_interval
            low, high = interval.low, interval.high
        lines.append(
            f"| {env} | {steps:,} | `{script}.py` | {interquartile_mean(values):.1f} "
            f"| {low:.1f} to {high:.1f} | {values.min():.1f} | {len(values)} |"
        )
    return "\n".join(lines)


def figure(path):
    """All five scripts' learning curves, a panel for each environment."""
    curves = defaultdict(lambda: defaultdict(list))
    for row in read("curves.csv"):
        point = int(row["steps"]), float(row["return"])
        curves[row["env"], row["script"]][row["seed"]].append(point)
    envs = list(dict.fromkeys(env for env, _ in curves))
    _, axes = plt.subplots(
        1,
        len(envs),
        figsize=(4.2 * len(envs), 3.2),
        squeeze=False,
        layout="constrained",
    )
    for ax, env in zip(axes[0], envs):
        for script, color in COLORS.items():
            if (env, script) not in curves:
                continue
            runs = np.array(list(curves[env, script].values()))  # (seeds, points, 2)
            steps, returns = runs[0, :, 0], runs[:, :, 1]
            ax.plot(steps, returns.mean(0), color=color, label=script)
            ax.fill_between(
                steps, returns.min(0), returns.max(0), color=color, alpha=0.15, lw=0
            )
        ax.set(
            title=env, xlabel="environment steps", ylabel="return, last 100 episodes"
        )
        ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        ax.grid(alpha=0.3)
    most = max(axes[0], key=lambda ax: len(ax.lines))
    most.legend(frameon=False, fontsize=8, loc="lower right")
    plt.savefig(path, dpi=110)


def scaling_figure(path):
    """Steps per second over copies, hidden units and minibatch size, of ppo_clip.py."""
    lines = defaultdict(list)
    for row in read("speed_scaling.csv"):
        axis, _, mode = row["axis"].partition(", ")
        point = int(row["value"]), int(row["steps_per_second"])
        lines[axis, mode, row["env"]].append(point)
    names = list(dict.fromkeys(axis for axis, *_ in lines))
    _, axes = plt.subplots(1, len(names), figsize=(12.6, 3.2), layout="constrained")
    for ax, name in zip(axes, names):
        for (axis, mode, env), points in lines.items():
            if axis == name:
                label = f"{env}, {mode}" if mode else env
                ax.loglog(*zip(*points), "o-", ms=3, label=label, base=2)
        ax.set(xlabel=name, ylabel="steps per second")
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize=7)
    plt.savefig(path, dpi=110)


def speed_table():
    """The Markdown table of the ratios, ours to Stable-Baselines3's."""
    lines = [
        "| what | times as fast | lowest to highest | pairs |",
        "| --- | --- | --- | --- |",
    ]
    rows = read("speed_same_work.csv")
    if (RESULTS / "speed_to_475.csv").exists():
        rows += read("speed_to_475.csv")
    for row in rows:
        count = row.get("pairs") or f"{row['seeds']} seeds"
        lines.append(
            f"| {row['what']} | {row['ratio']} | {row['lowest']} to {row['highest']} "
            f"| {count} |"
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


TABLES = {"learning table": table, "speed": speed_table, "where time goes": where_table}


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
    figure(RESULTS / "learning.png")
    if (RESULTS / "speed_scaling.csv").exists():
        scaling_figure(RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
