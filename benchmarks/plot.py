"""Draws the learning curves of your own runs: every script's seeds below a folder.

    pip install matplotlib scipy
    for seed in 0 1 2 3 4 5 6 7 8 9; do python ppo_clip.py --seed $seed; done
    python benchmarks/plot.py runs/CartPole-v1 -o curve.png

Each line is the mean over the runs of one folder (runs/CartPole-v1/ppo_clip is one) of
rollout/episode_return, the mean return of the last 100 training episodes. The band is
its 95 % bootstrap interval; of fewer than five runs, every one is drawn instead.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from run import logged
from scipy import stats

STYLES = {  # script: (name, colour, line), in all figures
    "reinforce": ("reinforce.py", "#7f7f7f", "-"),
    "vpg_baseline": ("vpg_baseline.py", "#2ca02c", "-"),
    "actor_critic": ("actor_critic.py", "#ff7f0e", "-"),
    "ppo_kl": ("ppo_kl.py", "#9467bd", "-"),
    "ppo_clip": ("ppo_clip.py", "#1f77b4", "-"),
    "sb3_ppo": ("Stable-Baselines3, PPO", "#d62728", ":"),
    "sb3_a2c": ("Stable-Baselines3, A2C", "#8c564b", ":"),
}
ENOUGH = 5  # seeds for an interval; fewer are shown one by one


def interval(values, axis=0):
    """The 95 % bootstrap interval of the mean over seeds."""
    result = stats.bootstrap((values,), np.mean, axis=axis, method="percentile", rng=0)
    return result.confidence_interval


def panels(count, width=4.0, height=3.0, columns=4):
    """count empty panels in rows of at most so many columns; unused ones are off."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    _, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[count:]:
        ax.axis("off")
    return list(axes.flat)[:count]


def draw_curves(ax, steps, curves, label, colour, line="-"):
    """The mean of curves (seeds, points), with its interval or with each of them."""
    whole = ~np.isnan(curves).any(axis=0)
    steps, curves = steps[whole], curves[:, whole]
    ax.plot(steps, curves.mean(axis=0), line, color=colour, label=label)
    if len(curves) >= ENOUGH and whole.any():
        low, high = interval(curves)
        ax.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
    else:
        for curve in curves:
            ax.plot(steps, curve, line, color=colour, lw=0.7, alpha=0.4)
    ax.set(xlabel="environment steps", ylabel="return, last 100 episodes")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:,.0f}k")
    ax.grid(alpha=0.3)


def find_runs(folder):
    """{environment: {script: [(steps, returns) of each run]}} below the folder.

    Runs lie in <environment>/<script>/<run>, as the scripts put them.
    """
    found = defaultdict(lambda: defaultdict(list))
    folders = {path.parent for path in Path(folder).rglob("events.out.tfevents*")}
    for run in sorted(folders):
        steps, returns = logged(run)
        if len(steps):
            script = run.resolve().parent
            found[script.parent.name][script.name].append((steps, returns))
    return found


def on_one_grid(runs, points=200):
    """The runs' returns at the same steps, as far as the shortest run goes."""
    first = max(steps[0] for steps, _ in runs)
    last = min(steps[-1] for steps, _ in runs)
    grid = np.linspace(first, last, points)
    return grid, np.array([np.interp(grid, *run) for run in runs])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a folder with runs in it, at any depth")
    parser.add_argument("-o", "--output", default="curve.png", help="the picture")
    args = parser.parse_args()
    found = find_runs(args.folder)
    if not found:
        parser.error(f"no run with a finished episode below {args.folder}")
    others = iter(plt.get_cmap("tab20").colors)
    for ax, (env, scripts) in zip(panels(len(found)), found.items()):
        for script, runs in scripts.items():
            name, colour, line = STYLES.get(script) or (script, next(others), "-")
            label = f"{name}, {len(runs)} run{'s' * (len(runs) > 1)}"
            draw_curves(ax, *on_one_grid(runs), label, colour, line)
        ax.set_title(env)
        ax.legend(frameon=False, fontsize=8)
    plt.savefig(args.output, dpi=120)


if __name__ == "__main__":
    main()
