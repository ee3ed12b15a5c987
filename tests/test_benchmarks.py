"""benchmarks/: what is run, what a row says, and what the tables make of it."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
for package in "pandas", "scipy", "matplotlib", "tabulate":
    pytest.importorskip(package)

import learn
import pandas as pd
import plot
import report
import run
import search
import speed
import variance

SCRIPTS = [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]


def arguments(monkeypatch, module, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder in the place of benchmarks/results."""
    for module in run, search, learn, report:
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "FIGURES", tmp_path / "figures")
    return tmp_path


def measured(last_100=1.0, **more):
    """What run.run returns, made up."""
    row = {"last_100": last_100, "evaluation_mean": 2.0, "evaluation_std": 0.0}
    row |= {"steps_to_475": None, "finite": True, "cpu_seconds": 1, "commit": "abc"}
    return row | {"curve": [last_100] * run.POINTS} | more


# ------------------------------------------------------------------------------ run.py


def test_last_100_means_are_means_of_the_last_100_returns():
    returns = np.random.default_rng(0).normal(size=250)
    expected = [returns[max(0, i - 99) : i + 1].mean() for i in range(250)]
    np.testing.assert_allclose(run.last_100_means(returns), expected)


def test_a_curve_is_the_latest_mean_at_evenly_spaced_steps():
    points = run.curve(np.array([30, 60, 101]), np.array([1.0, 2.0, 3.0]), 100)
    assert points[:14] == [None] * 14  # up to step 28
    assert points[14:29] == [1.0] * 15  # from step 30
    assert points[29:49] == [2.0] * 20
    assert points[49] == 3.0  # the last iteration may end a little later


def test_a_row_says_what_the_scripts_train_and_evaluate_return(tmp_path):
    flags = "--env CartPole-v1 --total-steps 6000 --hidden-sizes 8 --eval-episodes 3"
    row = run.measure("reinforce", flags.split())
    args = reinforce.parse_args([*flags.split(), "--run-dir", str(tmp_path / "run")])
    _, history = reinforce.train(args)
    returns = reinforce.evaluate(args, f"{args.run_dir}/checkpoint.pt")
    assert len(history) > 100
    expected = np.mean([episode_return for _, episode_return in history[-100:]])
    assert row["last_100"] == pytest.approx(expected, abs=0.005)
    assert row["curve"][-1] == row["last_100"] and row["finite"] is True
    assert row["evaluation_mean"] == pytest.approx(returns.mean(), abs=0.005)
    assert row["evaluation_std"] == pytest.approx(returns.std(), abs=0.005)


FAKE = """
import argparse
from torch.utils.tensorboard import SummaryWriter

def parse_args(argv):
    parser = argparse.ArgumentParser()
    for name in "--env", "--run-dir", "--kind":
        parser.add_argument(name)
    parser.add_argument("--total-steps", type=int, default=100)
    return parser.parse_args(argv)

def train(args):
    if args.kind == "solves":
        return None, [(i, 480.0) for i in range(1, 300)]
    with SummaryWriter(args.run_dir) as writer:
        writer.add_scalar("rollout/episode_return", 7.0, 20)
        writer.add_scalar("rollout/episode_return", 9.0, 40)
    raise FloatingPointError("too large a step")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A script that needs no time."""
    (tmp_path / "fake_script.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    return "fake_script"


def test_a_run_that_becomes_non_finite_keeps_its_last_logged_episodes(fake):
    row = run.measure(fake, ["--env", "CartPole-v1", "--eval-episodes", "5"][:2])
    assert row["finite"] is False and row["last_100"] == 9.0
    assert row["curve"][9] == 7.0 and row["curve"][-1] == 9.0
    assert row["evaluation_mean"] is None
    json.dumps(row, allow_nan=False)


def test_steps_to_475_need_a_mean_over_100_episodes(fake):
    row = run.measure(fake, ["--kind", "solves", "--env", "CartPole-v1"])
    assert row["steps_to_475"] == 100
    other = run.measure(fake, ["--kind", "solves", "--env", "Pendulum-v1"])
    assert other["steps_to_475"] is None


def test_without_the_orthogonal_initialisation_layers_are_pytorchs_own(monkeypatch):
    torch.manual_seed(0)
    network = run.plain_mlp([4, 8, 2], last_gain=0.01)
    torch.manual_seed(0)
    first, last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)
    x = torch.randn(5, 4)
    torch.testing.assert_close(network(x), last(torch.tanh(first(x))))


def test_a_random_policy_is_measured_once(results):
    path = results / "random.csv"
    returns = run.random_returns("CartPole-v1", episodes=5)
    assert len(returns) == 5 and returns.min() >= 8 and returns.max() < 200
    path.write_text(path.read_text().replace(f"{returns[0]}", "1.5", 1))
    assert run.random_returns("CartPole-v1")[0] == 1.5


# --------------------------------------------------------------------------- search.py


def test_the_search_goes_variant_by_variant_where_one_changes_something(monkeypatch):
    arguments(monkeypatch, search, "--seeds", "100")
    keys = list(search.jobs_of(search.parse_args()).values())
    variants = [key[0] for key in keys]
    assert list(dict.fromkeys(variants)) == list(search.VARIANTS)
    assert variants == sorted(variants, key=list(search.VARIANTS).index)
    of = {variant: set() for variant in search.VARIANTS}
    for variant, script, env, *_ in keys:
        of[variant].add((script, env))
    assert len(of["base"]) == len(of["copies16"]) == 15
    assert of["n8"] == {("actor_critic", env) for env in search.CLASSIC}
    assert {env for _, env in of["variance1"]} == {"Pendulum-v1"}
    assert {script for script, _ in of["passes20"]} == {"vpg_baseline", "actor_critic"}
    assert "reinforce" not in {s for s, _ in of["no_advantage_normalization"]}


def test_the_search_changes_one_setting_and_keeps_the_size_of_a_batch():
    for script in SCRIPTS:
        base = vars(
            script.parse_args(search.settings("base", script.ALGORITHM).split())
        )
        for variant in search.VARIANTS:
            if search.concerns(variant, script.ALGORITHM, "Pendulum-v1"):
                flags = search.settings(variant, script.ALGORITHM).split()
                here = vars(script.parse_args(flags))
                changed = {name for name in here if here[name] != base[name]}
                changed -= {"run_dir"}
                if variant.startswith("copies") and "rollout_steps" in here:
                    assert changed == {"num_envs", "rollout_steps"}
                    batch = base["num_envs"] * base["rollout_steps"]
                    assert here["num_envs"] * here["rollout_steps"] == batch
                else:
                    assert len(changed) == (variant != "base")


def test_a_stopped_search_goes_on_with_what_is_missing(results, monkeypatch):
    done = []

    def first_three(jobs, workers):
        for job in list(jobs)[:3]:
            done.append(job)
            yield job, measured()

    monkeypatch.setattr(search, "run_all", first_three)
    words = "--scripts reinforce --variants base --seeds 100 101".split()
    for _ in range(3):
        arguments(monkeypatch, search, *words)
        search.main()
    rows = run.read(results / "search.csv")
    assert len(rows) == len(done) == len(set(done)) == 6  # 3 environments, 2 seeds
    assert {row["env"] for row in rows} == set(search.CLASSIC)
    assert "curve" not in rows[0]


def search_rows(returns):
    """Rows of one cell for each script, from {variant: returns of the seeds}."""
    rows = [
        (variant, script, "Pendulum-v1", seed, value)
        for variant, values in returns.items()
        for script in ("ppo_kl", "ppo_clip")
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["variant", "script", "env", "seed", "last_100"])


def test_a_variant_replaces_the_base_only_if_its_interval_is_above_0(monkeypatch):
    monkeypatch.setattr(search, "random_returns", lambda env: np.array([3.0, 7.0]))
    returns = {
        "base": [40, 60, 50, 70],
        "gamma995": [60, 80, 70, 90],  # +20 on every seed
        "bound1": [70, 50, 80, 30],  # +30, -10, +30, -40
    }
    table = search.search_table(search_rows(returns)).set_index("variant")
    # 0 is a return of 5, and 1 is gamma995's mean, 75
    assert table["score"]["base"] == f"{50 / 70:.3f}"
    assert table["score"]["gamma995"] == "1.000"
    assert table["difference to base"]["gamma995"] == f"{20 / 70:+.3f}"
    assert table["95 % interval"]["gamma995"] == f"{20 / 70:+.3f} to {20 / 70:+.3f}"
    assert list(table["replaces it"]) == ["", "yes", "no"]
    assert table["difference to base"]["bound1"] == f"{2.5 / 70:+.3f}"


def test_the_check_counts_the_seeds_that_reach_475_on_cartpole():
    rows = [("CartPole-v1", 100, "ppo_clip", x) for x in (475.0, 500.0, 474.9)]
    rows += [("Acrobot-v1", 100, "ppo_clip", -80.0)]
    rows = pd.DataFrame(rows, columns=["env", "steps", "script", "last_100"])
    cartpole, acrobot = search.check_table(rows).to_dict("records")
    assert cartpole["seeds"] == 3 and cartpole["seeds ≥ 475"] == "2"
    assert (cartpole["mean"], cartpole["lowest"]) == (483.3, 474.9)
    assert acrobot["seeds ≥ 475"] == "" and acrobot["highest"] == -80.0


# ---------------------------------------------------------------------------- learn.py


def test_reported_seeds_begin_at_1000_and_every_flag_is_one_of_the_script():
    settings = set()
    for group in learn.GROUPS:
        for script, _, _, seed, flags in learn.rows_of(group):
            if script not in run.PEERS:
                assert 1000 <= seed < 1010
                settings.add((script, flags))
    for script, flags in settings:
        words = [word for word in flags.split() if word != run.PLAIN_MLP]
        importlib.import_module(script).parse_args(words)


def test_a_setting_without_flags_is_the_scripts_default():
    """So the groups share these runs."""
    clip, kl = ppo_clip.parse_args([]), ppo_kl.parse_args([])
    for script in SCRIPTS:
        args = script.parse_args([])
        (label,) = [size for size, flags in learn.STEP_SIZES.items() if not flags]
        assert args.learning_rate == float(label)
    (label,) = [K for K, flags in learn.EPOCHS.items() if not flags]
    assert clip.epochs == int(label)
    for label, (script, flags) in learn.TABLE1.items():
        if not flags:
            value = float(label.split("= ")[1])
            assert (
                value == {"ppo_clip": clip.clip_epsilon, "ppo_kl": kl.target_kl}[script]
            )
    assert actor_critic.parse_args([]).n_steps == 5  # the ladder's label


def test_with_every_detail_off_nothing_is_left_of_them():
    flags = learn.details("HalfCheetah-v5")["all"].split()
    flags.remove(run.PLAIN_MLP)
    args = ppo_clip.parse_args(flags)
    switches = "observations", "rewards", "advantages"
    assert not any(getattr(args, f"normalize_{name}") for name in switches)
    assert not args.anneal_learning_rate and args.max_grad_norm == math.inf
    assert args.initial_variance == 6
    assert "first noise" not in learn.details("LunarLander-v3")  # discrete actions


def test_learn_keeps_what_ran_and_tells_what_failed(results, monkeypatch, capsys):
    def all_but_acrobot(jobs, workers):
        for job in jobs:
            failed = "Acrobot-v1" in job[1]
            yield job, RuntimeError("no such luck") if failed else measured()

    monkeypatch.setattr(learn, "run_all", all_but_acrobot)
    monkeypatch.setattr(learn, "fingerprint", lambda: ("123", "here"))
    (results / "fingerprint.txt").write_text("123\nhere\n")
    words = "--group grid --scripts ppo_clip --seeds 1000".split()
    arguments(monkeypatch, learn, *words, "--envs", "Acrobot-v1", "Pendulum-v1")
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        learn.main()
    assert "no such luck" in "".join(capsys.readouterr())
    (row,) = run.read(results / "runs.csv")
    assert (row["env"], row["fingerprint"]) == ("Pendulum-v1", "123")
    (curve,) = run.read(results / "curves.csv")
    assert curve["50"] == "1.0" and curve["seed"] == "1000"


def test_no_run_starts_with_other_numbers_than_the_rows(results, monkeypatch):
    monkeypatch.setattr(learn, "run_all", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(learn, "fingerprint", lambda: ("124", "here"))
    (results / "fingerprint.txt").write_text("123\nhere\n")
    arguments(monkeypatch, learn)
    with pytest.raises(SystemExit, match="124, that of the rows 123"):
        learn.main()


@pytest.mark.slow
def test_the_scripts_compute_the_numbers_that_the_rows_are_of():
    path = ROOT / "benchmarks" / "results" / "fingerprint.txt"
    if not path.exists():
        pytest.skip("nothing has been recorded")
    found, where = learn.fingerprint()
    stored, stored_where = path.read_text().splitlines()
    if where != stored_where:
        pytest.skip(f"recorded with {stored_where}")
    assert found == stored


@pytest.mark.slow
def test_a_peers_row_says_what_stable_baselines3_itself_reports():
    sb3 = pytest.importorskip("stable_baselines3")
    evaluation = importlib.import_module("stable_baselines3.common.evaluation")
    util = importlib.import_module("stable_baselines3.common.env_util")
    flags = "--env CartPole-v1 --total-steps 4000 --seed 3 --eval-episodes 100"
    row = run.run("sb3_a2c", flags.split())
    envs = util.make_vec_env("CartPole-v1", n_envs=1, seed=3)
    model = sb3.A2C("MlpPolicy", envs, seed=3, device="cpu").learn(4000)
    last_100 = [episode["r"] for episode in model.ep_info_buffer]
    assert row["last_100"] == pytest.approx(np.mean(last_100), abs=0.01)
    envs.seed(3)
    mean, std = evaluation.evaluate_policy(model, envs, 100)
    assert row["evaluation_mean"] == pytest.approx(mean, abs=0.01)
    assert row["evaluation_std"] == pytest.approx(std, abs=0.01)


# --------------------------------------------------------------------------- report.py


def write_rows(results, keys, value):
    """Rows and curves with value(script, flags, env, seed) as return."""
    for script, env, steps, seed, flags in keys:
        key = dict(zip(learn.KEY, (script, env, steps, seed, flags)))
        row = measured(value(script, flags, env, seed), fingerprint="f", node="local")
        run.append(results / "runs.csv", key | {x: row[x] for x in learn.MEASURED})
        points = dict(zip(range(1, run.POINTS + 1), row["curve"]))
        run.append(results / "curves.csv", key | points)


def lines_of(part):
    """The cells of a part's table, {first cell: the others}."""
    rows = [line.split("|")[1:-1] for line in part.splitlines() if line[:1] == "|"]
    rows = [[cell.strip() for cell in row] for row in rows]
    return {first: rest for first, *rest in rows}


def test_five_seeds_have_an_interval_and_three_are_shown_one_by_one():
    assert report.cell([-1.0, -2.0, -6.0]) == "−3.0 (−1.0, −2.0, −6.0)"
    assert report.cell([1000.4] * 5) == "1,000 (1,000 to 1,000)"
    values = np.arange(10.0)
    mean, low, _, high = report.cell(values).replace("(", "").strip(")").split()
    half = 1.96 * values.std() / math.sqrt(10)  # the normal approximation
    assert float(mean) == 4.5
    assert float(low) == pytest.approx(4.5 - half, abs=0.2)
    assert float(high) == pytest.approx(4.5 + half, abs=0.2)


def test_a_part_without_rows_says_so_and_all_others_are_filled(results):
    keys = [key for key in learn.rows_of("epochs") if key[1] == "CartPole-v1"]
    keys += [key for key in learn.rows_of("epochs") if key[1] == "HalfCheetah-v5"]
    write_rows(results, keys, lambda script, flags, env, seed: float(seed - 1000))
    text = "a\n<!-- epochs: begin -->\nold\n<!-- epochs: end -->\nb\n"
    text += "<!-- variance: begin -->\n<!-- variance: end -->\nc"
    filled = report.filled(text)
    assert (
        "<!-- variance: begin -->\nNot measured yet.\n<!-- variance: end -->" in filled
    )
    assert filled.startswith("a\n<!-- epochs: begin -->\n![") and "old" not in filled
    table = lines_of(filled)
    assert table["K"][0].startswith("HalfCheetah-v5")
    assert table["20"] == ["1.0 (0.0, 1.0, 2.0)"] * 2
    assert (results / "figures" / "epochs.png").stat().st_size > 5000


def test_table_1_scores_a_random_policy_0_and_the_best_setting_1(results, monkeypatch):
    """Each task has its own scale; the scores are the same on all of them."""
    level = dict(zip(learn.TABLE1.values(), [-1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.1]))

    def value(script, flags, env, seed):
        scale = 10.0 ** learn.TASKS.index(env)
        noise = (seed - 1001) * 0.1  # mean 0
        return scale * (5 + level[script, flags] * 2 + noise)

    monkeypatch.setattr(
        report,
        "random_returns",
        lambda env: 10.0 ** learn.TASKS.index(env) * np.array([4.0, 6.0]),
    )
    write_rows(results, learn.rows_of("table1"), value)
    table = lines_of(report.table1())
    assert [table[label][0] for label in learn.TABLE1] == [
        *("−1.00", "1.00", "0.75", "0.50", "0.25", "0.00", "0.10")
    ]
    assert table["clipping, ε = 0.2"][2:] == ["0.82", "0"]  # the paper's, non-finite
    low, _, high = table["clipping, ε = 0.3"][1].split()
    assert float(low) < 0.5 < float(high)


def test_a_detail_is_bold_only_where_the_interval_excludes_0(results):
    off = learn.details("Hopper-v5")

    def value(script, flags, env, seed):
        if flags == off["normalised rewards"]:
            return 100.0 * seed - 50 - seed % 2
        if flags == off["gradient clipping"]:
            return 100.0 * seed + (-1) ** seed * 30
        return 100.0 * seed

    keys = [key for key in learn.rows_of("details") if key[1] == "Hopper-v5"]
    write_rows(results, keys, value)
    table = lines_of(report.ablation())
    assert table["normalised rewards"][0].startswith("**−50.5 (−")
    assert table["gradient clipping"][0].startswith("0.0 (−")
    assert table["all"] == ["0.0 (0.0 to 0.0)"]


def test_the_report_names_where_a_script_is_behind(results):
    level = dict(zip(run.SCRIPTS, [1.0, 0.0, 2.0, 3.0, 2.9]))
    level |= {"sb3_ppo": 3.05}

    def value(script, flags, env, seed):
        noise = 0.02 if env == "CartPole-v1" else 0.1
        return level.get(script, 0.0) + seed % 5 * noise

    envs = ["CartPole-v1", "Reacher-v5"]
    keys = [key for key in learn.rows_of("grid") if key[1] in envs]
    write_rows(results, keys, value)
    lines = report.behind().splitlines()
    both = "**CartPole-v1**, **Reacher-v5**"
    assert lines[0] == f"- vpg_baseline.py behind reinforce.py: {both}."
    assert lines[1] == "- actor_critic.py behind vpg_baseline.py: nowhere."
    assert lines[3] == "- ppo_clip.py behind ppo_kl.py: **CartPole-v1**, Reacher-v5."


@pytest.mark.slow
@pytest.mark.parametrize("name", report.FILES)
def test_the_documents_say_what_the_rows_say(name, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", tmp_path)
    text = (ROOT / name).read_text()
    assert report.filled(text) == text


@pytest.mark.slow
def test_every_figure_that_the_command_draws_is_on_the_lectures_page(
    tmp_path, monkeypatch
):
    figures = importlib.import_module("figures")
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    figures.main()
    page = (ROOT / "docs" / "lecture.md").read_text()
    drawn = {path.name for path in tmp_path.iterdir()}
    assert all(f"benchmarks/figures/{name}" in page for name in drawn)
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


# --------------------------------------------------- plot.py, speed.py, variance.py


def test_plot_finds_the_runs_of_every_script_below_a_folder(tmp_path, monkeypatch):
    for script, seeds in [("ppo_clip", 2), ("mine", 5)]:
        for seed in range(seeds):
            folder = tmp_path / "CartPole-v1" / script / f"seed{seed}"
            with SummaryWriter(folder) as writer:
                for step in 100, 200, 300 + 100 * seed:
                    writer.add_scalar("rollout/episode_return", step + seed, step)
    found = plot.find_runs(tmp_path / "CartPole-v1" / "ppo_clip")
    assert list(found) == ["CartPole-v1"] and list(found["CartPole-v1"]) == ["ppo_clip"]
    steps, curves = plot.on_one_grid(found["CartPole-v1"]["ppo_clip"])
    assert (steps[0], steps[-1]) == (100, 300)  # as far as both runs go
    np.testing.assert_allclose(curves, [steps, steps + 1])
    arguments(monkeypatch, plot, str(tmp_path), "-o", str(tmp_path / "curve.png"))
    plot.main()
    assert (tmp_path / "curve.png").stat().st_size > 5000
    arguments(monkeypatch, plot, str(tmp_path / "nothing"))
    with pytest.raises(SystemExit) as stopped:
        plot.main()
    assert stopped.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("work", list(speed.SAME_WORK)[:2])
def test_the_same_work_has_as_many_gradient_steps_as_the_peers(work, tmp_path):
    """Of every rollout, though those of ours lose their reset rows."""
    _, flags, env, _, _, peer = speed.SAME_WORK[work]
    if env == "HalfCheetah-v5":
        pytest.importorskip("mujoco")
    flags = f"{flags} --env {env} --total-steps 8000 --run-dir {tmp_path}/run"
    args = ppo_clip.parse_args(flags.split())
    ppo_clip.train(args)
    state = torch.load(tmp_path / "run" / "checkpoint.pt")["optimizer"]["state"]
    rows = peer["n_envs"] * peer["n_steps"]
    rollouts = len(run.logged(args.run_dir)[0])
    expected = rollouts * peer["n_epochs"] * rows // peer["batch_size"]
    assert {int(of_parameter["step"]) for of_parameter in state.values()} == {expected}


@pytest.mark.slow
def test_the_shares_of_a_training_add_up_to_1():
    flags = "--env CartPole-v1 --total-steps 20000"
    measured = speed.measure(speed.where_time_goes, "ppo_clip", flags)
    assert 20_000 <= measured["steps"] < 20_000 + 8 * 256
    assert sum(measured["shares"].values()) == pytest.approx(1, abs=0.01)
    parts = "acting", "environment", "update"
    assert all(0.03 < measured["shares"][part] < 0.8 for part in parts)
    assert 0 < measured["first_half"] < measured["seconds"]


def test_the_squared_bias_and_the_variance_of_made_up_gradients():
    """In units of the squared length of the mean, which is 4 here."""
    rng = np.random.default_rng(0)
    mean, bias = np.array([2.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    G = mean + rng.normal(size=(4000, 3))
    noise = rng.normal(size=(4000, 3))
    found = {"G_t": G, "unbiased": G + noise, "biased": G / 2 + mean / 2 + bias}
    rows = {row["estimator"]: row for row in variance.summary(found, rng)}
    for name, expected, squared_bias in [
        ("G_t", 3 / 4, 0),
        ("unbiased", 6 / 4, 0),
        ("biased", 3 / 16, 1 / 4),
    ]:
        row = {key: float(x) for key, x in rows[name].items() if key != "estimator"}
        assert row["variance"] == pytest.approx(expected, rel=0.1)
        assert row["squared_bias"] == pytest.approx(squared_bias, abs=0.02)
        assert row["variance_low"] < row["variance"] < row["variance_high"]
        if name != "G_t":
            assert row["squared_bias_low"] < squared_bias < row["squared_bias_high"]


def test_the_estimators_meet_at_their_ends():
    """On trajectories of 3 and 5 steps, the horizon counting as an end."""
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(5, 2)), rng.normal(size=(6, 2))
    done = np.zeros((5, 2), dtype=bool)
    done[2, 0] = done[4, 1] = True
    rollout = vpg_baseline.Rollout(
        *(None, None, rewards, done & False, done), None, None, None
    )
    found = variance.weights(rollout, values)
    lengths = [3, 5]
    for i, length in enumerate(lengths):
        G = [rewards[t:length, i].sum() for t in range(length)]
        np.testing.assert_allclose(found["G_t"][:length, i], G)
        np.testing.assert_allclose(found["R(τ)"][:length, i], G[0])
        advantage = G - values[:length, i]
        for name in "G_t − b", "n = 5", "n = 100":
            np.testing.assert_allclose(found[name][:length, i], advantage)
        following = np.append(values[1:length, i], 0)
        delta = rewards[:length, i] + following - values[:length, i]
        np.testing.assert_allclose(found["n = 1"][:length, i], delta)
