"""Makes the tables and figures of README.md, docs/results.md and benchmarks/README.md.

    pip install pandas scipy matplotlib tabulate
    python benchmarks/report.py

Everything comes from the rows in benchmarks/results. A part stands between the comments
<!-- NAME: begin --> and <!-- NAME: end -->; PARTS has the function that writes it.
What counts everywhere is the mean over seeds of the last 100 training episodes: of five
seeds and more with its 95 % bootstrap interval, of fewer with every seed's value.
"""

from collections import Counter

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import search
from learn import (
    CLASSIC,
    EPOCHS,
    KEY,
    LANDERS,
    RUNGS,
    STEP_SIZES,
    TABLE1,
    TASKS,
    details,
    rows_of,
)
from plot import ENOUGH, STYLES, draw_curves, interval, panels
from run import PEERS, POINTS, RESULTS, ROOT, SCRIPTS, random_returns
from scipy import stats

FILES = ["README.md", "docs/results.md", "benchmarks/README.md"]
FIGURES = ROOT / "docs" / "figures"
IN_README = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", *LANDERS]
IN_README += ["HalfCheetah-v5", "Hopper-v5"]
NAMES = {script: name for script, (name, _, _) in STYLES.items()}
RUNG_COLOURS = ["#c7c7c7", "#7f7f7f", "#2ca02c", "#ff7f0e", "#ffbb78", "#9ecae1"]
RUNG_COLOURS = dict(zip(RUNGS, [*RUNG_COLOURS, "#9467bd", "#1f77b4"]))
PAPER = {  # Schulman et al. 2017, table 1
    "no clipping or penalty": -0.39,
    "clipping, ε = 0.1": 0.76,
    "clipping, ε = 0.2": 0.82,
    "clipping, ε = 0.3": 0.70,
    "adaptive KL, δ = 0.003": 0.68,
    "adaptive KL, δ = 0.01": 0.74,
    "adaptive KL, δ = 0.03": 0.71,
}


class NoRows(Exception):
    """A part has no rows yet."""


# The rows


def read(name):
    """A results file as a DataFrame."""
    if not (RESULTS / name).exists():
        raise NoRows
    rows = pd.read_csv(RESULTS / name, dtype={"flags": str})
    return rows.fillna({"flags": ""})


def runs_of(group):
    """The finished runs of one of learn.py's groups, in its order."""
    keys = pd.DataFrame(rows_of(group), columns=KEY).drop_duplicates()
    rows = keys.merge(read("runs.csv").dropna(subset="last_100"), on=KEY)
    if rows[~rows["script"].isin(PEERS)].empty:
        raise NoRows
    return rows


def with_setting(rows, settings):
    """The rows whose (script, flags) is in settings, {label: (script, flags)}."""
    labels = {pair: label for label, pair in settings.items()}
    found = [labels.get(pair) for pair in zip(rows["script"], rows["flags"])]
    order = pd.Categorical(found, list(settings), ordered=True)
    return rows.assign(setting=order).dropna(subset="setting")


def curves_of(rows):
    """The learning curves of these runs: an array (runs, points)."""
    columns = [str(point) for point in range(1, POINTS + 1)]
    curves = read("curves.csv").drop_duplicates(KEY, keep="last")
    return rows[KEY].merge(curves, on=KEY)[columns].to_numpy(dtype=float)


def command(group):
    """The line below a group's table: the command that makes its rows."""
    wanted, rows = set(rows_of(group)), runs_of(group)
    text = f"Rows: `python benchmarks/learn.py --group {group}`; {len(rows)} of "
    text += f"{len(wanted)} runs are there."
    broken = rows[~rows["finite"]]
    if len(broken):
        which = broken["script"] + ".py " + broken["flags"] + " on " + broken["env"]
        text += f" {len(broken)} became non-finite and keep their last 100 episodes: "
        text += ", ".join(sorted(set(which))) + "."
    return text


# Text


def number(x, digits=1):
    """x with a true minus sign, and none before a zero."""
    return f"{round(float(x), digits) + 0.0:,.{digits}f}".replace("-", "−")


def digits_for(values):
    """Decimals that show about three figures of these values."""
    return 0 if np.abs(values).max() >= 1000 else 1


def cell(values):
    """The mean over seeds; with its interval, or of few seeds with each of them."""
    values = np.asarray(values, dtype=float)
    digits = digits_for(values)
    mean = number(values.mean(), digits)
    if len(values) >= ENOUGH:
        low, high = interval(values)
        return f"{mean} ({number(low, digits)} to {number(high, digits)})"
    return f"{mean} ({', '.join(number(x, digits) for x in values)})"


def markdown(table):
    """A DataFrame of text as a Markdown table, with its index as first column."""
    table = table.astype(object).fillna("").rename_axis(columns=None).reset_index()
    return table.to_markdown(index=False, disable_numparse=True)


def table_of(rows, index, columns, column="last_100"):
    """cell() for each pair of index and columns, as they come in rows."""
    rows = rows.dropna(subset=column)
    groups = rows.groupby([index, columns], sort=False, observed=True)
    table = groups[column].agg(cell).unstack(columns)
    across = [name for name in rows[columns].unique() if name in table]
    return table.loc[list(rows[index].unique()), across]


def picture(name, alt):
    """Save the current figure; returns its Markdown, as seen from docs."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    plt.savefig(FIGURES / f"{name}.png", dpi=110)
    plt.close()
    return f"![{alt}](figures/{name}.png)"


def draw(ax, rows, label, colour, line="-"):
    """The learning curves of these runs of one setting."""
    if len(rows):
        total = rows["steps"].iloc[0]
        steps = np.linspace(total / POINTS, total, POINTS)
        draw_curves(ax, steps, curves_of(rows), label, colour, line)


def legend(axes):
    """One legend for all of axes but the last, on the last."""
    handles = {}
    for ax in axes[:-1]:
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1]))
    axes[-1].legend(handles.values(), handles.keys(), frameon=False, loc="center")
    axes[-1].axis("off")


# The parts


def results():
    """README's small table: the grid's environments that have all of their runs."""
    rows = runs_of("grid")
    wanted = Counter(env for _, env, *_ in set(rows_of("grid")))
    whole = rows.groupby("env")["env"].transform("size") == rows["env"].map(wanted)
    shown = rows["env"].isin(IN_README) & (rows["script"] != "sb3_a2c")
    table = table_of(rows[whole & shown], "env", "script")
    return f"{markdown(table.rename(columns=NAMES))}\n\n{command('grid')}"


def ladder():
    """F5: one thing after the other, everything else equal."""
    rows = with_setting(runs_of("ladder"), RUNGS)
    table = table_of(rows, "setting", "env")
    cartpole = rows[rows["env"] == "CartPole-v1"]
    steps = cartpole["steps_to_475"].fillna(np.inf)
    groups = steps.groupby(cartpole["setting"], observed=True)
    median = groups.median().map(lambda x: f"{x:,.0f}" if np.isfinite(x) else "–")
    reached = groups.agg(lambda x: f"{np.isfinite(x).sum()} of {len(x)}")
    table["steps to 475 (median)"] = median
    table["seeds that reach it"] = reached
    envs = list(rows["env"].unique())
    axes = panels(len(envs) + 1)
    for ax, env in zip(axes, envs):
        for rung, colour in RUNG_COLOURS.items():
            here = (rows["env"] == env) & (rows["setting"] == rung)
            draw(ax, rows[here], rung, colour)
        ax.set_title(env)
    legend(axes)
    image = picture("ladder", "Learning curves of the ladder's eight rungs")
    return f"{image}\n\n{markdown(table)}\n\n{command('ladder')}"


def step_sizes():
    """C20 on CartPole-v1: each rung's return over the step size."""
    rows = runs_of("step_sizes")
    table, (ax,) = {}, panels(1, width=7.5, height=3.6)
    for rung, (script, flags) in RUNGS.items():
        settings = {
            size: (script, f"{flags} {more}".strip())
            for size, more in STEP_SIZES.items()
        }
        here = with_setting(rows, settings)
        groups = here.groupby("setting", observed=True)["last_100"]
        table[rung] = groups.agg(cell)
        sizes, means = here["setting"].astype(float), groups.mean()
        colour = RUNG_COLOURS[rung]
        ax.plot(means.index.astype(float), means, color=colour, label=rung)
        ax.plot(sizes, here["last_100"], ".", color=colour, alpha=0.5)
    ax.set(xscale="log", xlabel="step size", ylabel="return, last 100 episodes")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    image = picture("step_sizes", "Return on CartPole-v1 over the step size")
    text = markdown(pd.DataFrame(table).T.rename_axis("rung"))
    return f"{image}\n\n{text}\n\n{command('step_sizes')}"


def grid_rows():
    """The grid's runs on environments on which the five scripts have run."""
    rows = runs_of("grid")
    mine = rows[~rows["script"].isin(PEERS)]
    return rows[rows["env"].isin(mine["env"])]


def grid(column="last_100"):
    """All scripts on all environments."""
    rows = grid_rows()
    table = table_of(rows, "env", "script", column)
    order = [script for script in STYLES if script in table]
    return f"{markdown(table[order].rename(columns=NAMES))}\n\n{command('grid')}"


def evaluation():
    return grid("evaluation_mean")


def learning(name, envs, alt):
    """A panel for each environment with the curves of all scripts."""
    rows = grid_rows()
    envs = [env for env in envs if env in set(rows["env"])]
    if not envs:
        raise NoRows
    axes = panels(len(envs) + 1)
    for ax, env in zip(axes, envs):
        for script, style in STYLES.items():
            here = (rows["env"] == env) & (rows["script"] == script)
            draw(ax, rows[here], *style)
        ax.set_title(env)
    legend(axes)
    return picture(name, alt)


def curves_classic():
    envs = ["CartPole-v1", *CLASSIC, *LANDERS]
    return learning("classic", envs, "Learning curves, classic control and LunarLander")


def curves_mujoco():
    return learning("mujoco", TASKS, "Learning curves on seven MuJoCo tasks")


def clearly_below(a, b):
    """Whether seeds tell that the mean of a is below that of b."""
    if min(len(a), len(b)) < ENOUGH:  # three and five lie apart by chance 1 time in 28
        return len(a) + len(b) >= 8 and a.max() < b.min()
    difference = stats.bootstrap(
        (a, b),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        method="percentile",
        rng=0,
    )
    return difference.confidence_interval.high < 0


def behind():
    """Where a script is behind the one before it, or Stable-Baselines3's PPO."""
    rows, lines = runs_of("grid"), []
    pairs = [*zip(SCRIPTS[1:], SCRIPTS), ("ppo_kl", "sb3_ppo"), ("ppo_clip", "sb3_ppo")]
    for script, other in pairs:
        found, compared = [], 0
        for env, here in rows.groupby("env", sort=False):
            of = here.groupby("script")["last_100"]
            values = {name: returns.to_numpy() for name, returns in of}
            if script in values and other in values:
                compared += 1
                a, b = values[script], values[other]
                if a.mean() < b.mean():
                    found.append(f"**{env}**" if clearly_below(a, b) else env)
        where = f"none of {compared} environments"
        if found:
            where = f"{len(found)} of {compared} environments: {', '.join(found)}"
        lines.append(f"- {NAMES[script]} behind {NAMES[other]} on {where}.")
    return "\n".join(lines)


def scores(*samples, axis=-1):
    """Each setting's score in PAPER's order; 0 and 1 are made from the samples too.

    For each task, samples has the random policy's returns and those of all settings.
    """
    means = np.stack([sample.mean(axis=axis) for sample in samples])
    means = means.reshape(len(TASKS), 1 + len(PAPER), *means.shape[1:])
    random, means = means[:, :1], means[:, 1:]
    return ((means - random) / (means.max(1, keepdims=True) - random)).mean(axis=0)


def table1():
    """F2: the PPO paper's table 1 anew."""
    rows = with_setting(runs_of("table1"), TABLE1)
    sizes = rows.groupby(["env", "setting"], observed=True).size()
    if len(sizes) < len(TASKS) * len(PAPER) or sizes.min() < 2:
        return f"Not complete. {command('table1')}"
    samples = []
    for task in TASKS:
        samples.append(random_returns(task))
        for setting in PAPER:
            here = rows[(rows["env"] == task) & (rows["setting"] == setting)]
            samples.append(here["last_100"].to_numpy())
    mean = scores(*samples)
    first = mean.argmax()

    def distances(*samples, axis=-1):
        """How far each setting's score is below the highest in this table."""
        score = scores(*samples, axis=axis)
        return score[first] - score

    def intervals(statistic, digits):
        result = stats.bootstrap(samples, statistic, method="percentile", rng=0)
        ends = zip(*result.confidence_interval)
        return [" to ".join(number(x, digits) for x in pair) for pair in ends]

    below = [
        f"{number(x, 3)} ({ends})"
        for x, ends in zip(distances(*samples), intervals(distances, 3))
    ]
    below[first] = "–"
    broken = (~rows["finite"]).groupby(rows["setting"], observed=True).sum()
    table = pd.DataFrame(
        {
            "setting": list(PAPER),
            "score": [number(x, 2) for x in mean],
            "95 % interval": intervals(scores, 2),
            "below the highest": below,
            "the paper's": [number(x, 2) for x in PAPER.values()],
            "non-finite runs": [str(broken[setting]) for setting in PAPER],
        }
    ).set_index("setting")
    paper = np.array(list(PAPER.values()))
    i, j = np.triu_indices(len(paper) - 1, 1)  # the first is far below the others
    same = np.sign(mean[1:][i] - mean[1:][j]) == np.sign(paper[1:][i] - paper[1:][j])
    text = f"Without the first setting, {same.sum()} of {len(i)} pairs come in the "
    text += "paper's order."
    return f"{markdown(table)}\n\n{text} {command('table1')}"


def ablation():
    """F3: what each detail does, off alone, against the same seeds with it."""
    rows = runs_of("details")
    envs = list(rows["env"][rows["flags"] != ""].unique())  # with something off
    if not envs:
        raise NoRows
    table = {}
    for ax, env in zip(panels(len(envs), width=3.6, columns=2), envs):
        settings = {name: ("ppo_clip", flags) for name, flags in details(env).items()}
        here = with_setting(rows[rows["env"] == env], settings)
        by_seed = here.pivot(index="seed", columns="setting", values="last_100")
        table[env] = {}
        for y, name in enumerate(column for column in by_seed if column != "none"):
            difference = (by_seed[name] - by_seed["none"]).dropna().to_numpy()
            if len(difference) == 0:
                continue
            text = cell(difference)
            ax.plot(difference, np.full(len(difference), y), ".", color="#7f7f7f")
            if len(difference) >= ENOUGH:
                low, high = interval(difference)
                ax.plot([low, high], [y, y], color="#1f77b4", lw=4, alpha=0.5)
                if low > 0 or high < 0:
                    text = f"**{text}**"
            table[env][name] = text
            ax.plot(difference.mean(), y, "o", color="#1f77b4")
        names = [column for column in by_seed if column != "none"]
        ax.set_yticks(range(len(names)), names)
        ax.axvline(0, color="black", lw=0.8)
        ax.invert_yaxis()
        ax.locator_params(axis="x", nbins=3)
        ax.set(title=env, xlabel="change when off")
    image = picture("details", "What each implementation detail changes")
    text = markdown(pd.DataFrame(table).rename_axis("off"))
    return f"{image}\n\n{text}\n\n{command('details')}"


def epochs():
    """F4: how many steps should be taken on one batch?"""
    settings = {K: ("ppo_clip", flags) for K, flags in EPOCHS.items()}
    rows = with_setting(runs_of("epochs"), settings)
    whole = np.nanmean(curves_of(rows), axis=1)
    columns = {
        "HalfCheetah-v5": ("HalfCheetah-v5, last 100 episodes", rows["last_100"]),
        "CartPole-v1": ("CartPole-v1, mean over the run", pd.Series(whole, rows.index)),
    }
    table = {}
    colours = plt.get_cmap("viridis")(np.linspace(0.9, 0, len(settings)))
    for ax, (env, (title, values)) in zip(panels(2), columns.items()):
        here = rows[rows["env"] == env]
        groups = values[here.index].groupby(here["setting"], observed=True)
        table[title] = groups.agg(cell)
        for K, colour in zip(settings, colours):
            draw(ax, here[here["setting"] == K], f"K = {K}", colour)
        ax.set_title(env)
        if len(here):
            ax.legend(frameon=False, fontsize=8)
    image = picture("epochs", "Learning curves for K = 1, 3, 5, 10 and 20 epochs")
    text = markdown(pd.DataFrame(table).rename_axis("K"))
    return f"{image}\n\n{text}\n\n{command('epochs')}"


def variance():
    """C2 to C4 on a real environment, from variance.py."""
    rows = read("variance.csv").set_index("estimator")
    first = rows.iloc[0]
    table = {}
    for column, title in ("variance", "variance"), ("squared_bias", "squared bias"):
        digits = {"variance": 1, "squared_bias": 3}[column]
        table[title] = [
            f"{number(x, digits)} ({number(low, digits)} to {number(high, digits)})"
            for x, low, high in rows[[column, f"{column}_low", f"{column}_high"]].values
        ]
    axes = panels(3)
    weights = ["R(τ)", "G_t", "G_t − b"]
    sweeps = {"n": ["n = 1"], "λ": ["n = 1"]}  # λ = 0 is n = 1
    for symbol, names in sweeps.items():
        names += [x for x in rows.index if x.startswith(symbol) and x != "n = 1"]
        names.append("G_t − b")  # n = ∞, λ = 1
    for ax, names in zip(axes, [weights, *sweeps.values()]):
        here = rows.loc[names]
        labels = [name.split("= ")[-1] for name in names]
        if names[0] == "n = 1":
            labels[-1] = "∞" if "n" in names[1] else "1"
            labels[0] = "1" if "n" in names[1] else "0"
        for column, colour, label, share in [
            ("variance", "#d62728", "variance, 8 trajectories", 1 / 8),
            ("squared_bias", "#2ca02c", "squared bias", 1),
        ]:
            low, high = here[f"{column}_low"], here[f"{column}_high"]
            ax.plot(labels, here[column] * share, "o-", color=colour, label=label)
            ax.fill_between(labels, low * share, high * share, color=colour, alpha=0.2)
        ax.set(ylim=(min(0, ax.get_ylim()[0]), None))
        ax.grid(alpha=0.3)
    axes[0].set_title("weight of ∇ log π")
    axes[1].set_title("n")
    axes[2].set_title("λ")
    axes[0].legend(frameon=False, fontsize=8)
    image = picture(
        "variance", "Variance and squared bias of the gradient's estimators"
    )
    text = f"{first['trajectories']:,} trajectories, of mean return "
    text += f"{first['mean_return']}; V explains {first['explained_variance']:.0%} of "
    text += "the variance of G_t. Rows: `python benchmarks/variance.py`."
    markdown_table = markdown(pd.DataFrame(table, rows.index))
    return f"{image}\n\n{markdown_table}\n\n{text}"


SPEED = {  # what speed.py --only is given: the title
    "same_work": "Against Stable-Baselines3 at the same work",
    "whole_run --pairs 1": "Against Stable-Baselines3, each with its own defaults",
    "first_version": "Against the first version of these scripts, at the same work",
    "to_475": "Time to a mean of 475 over 100 episodes of CartPole-v1",
    "inside --pairs 1": "Where the time of a training goes, as shares",
    "start": "The shortest run, as a multiple of `import torch, gymnasium`",
    "memory": "Memory of `ppo_clip.py`; speed of a run's second half over its first's",
}


def speed():
    """A table for each part of speed.py that has been measured."""
    parts = []
    for part, title in SPEED.items():
        try:
            rows = read(f"speed_{part.split()[0]}.csv")
        except NoRows:
            continue
        words = {"ours_": "ours, ", "other_": "other, ", "_us_": " µs ", "_": " "}
        for old, new in words.items():
            rows.columns = rows.columns.str.replace(old, new)
        table = rows.astype(object).to_markdown(index=False, intfmt=",", floatfmt=".3g")
        command = f"Rows: `python benchmarks/speed.py --only {part}`."
        parts.append(f"**{title}**\n\n{table}\n\n{command}")
    if not parts:
        raise NoRows
    return "\n\n".join(parts)


def search_part():
    """What was searched, for benchmarks/README.md."""
    table = search.search_table(read("search.csv"))
    return table.to_markdown(index=False, disable_numparse=True)


PARTS = {
    "results": results,
    "ladder": ladder,
    "step sizes": step_sizes,
    "grid": grid,
    "evaluation": evaluation,
    "classic curves": curves_classic,
    "mujoco curves": curves_mujoco,
    "behind": behind,
    "table 1": table1,
    "details": ablation,
    "epochs": epochs,
    "variance": variance,
    "speed tables": speed,
    "search": search_part,
}


def filled(text):
    """The text with all of its parts made anew."""
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin in text:
            try:
                part = make()
            except NoRows:
                part = "Not measured yet."
            before, after = text.split(begin)[0], text.split(end)[1]
            text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def main():
    for name in FILES:
        path = ROOT / name
        if path.exists():
            path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
