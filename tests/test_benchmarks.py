"""benchmarks/: what is run, what a row says, and what the tables make of it."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder in the place of benchmarks/results."""
    for module in run, learn, report:
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(report.plt, "savefig", lambda path, dpi: None)
    return tmp_path


# ------------------------------------------------------------------------------ run.py


def test_means_and_curves_are_of_the_last_100_returns():
    returns = np.random.default_rng(0).normal(size=250)
    expected = [returns[max(0, i - 99) : i + 1].mean() for i in range(250)]
    np.testing.assert_allclose(run.last_100_means(returns), expected)
    points = run.curve(np.array([30, 60, 101]), np.array([1.0, 2.0, 3.0]), 100)
    assert points[:14] == [None] * 14  # up to step 28
    assert points[14:29] == [1.0] * 15  # from step 30
    assert points[29:49] == [2.0] * 20
    assert points[49] == 3.0  # the last iteration may end a little later


def test_a_row_says_what_the_scripts_train_and_evaluate_return(tmp_path):
    flags = "--env CartPole-v1 --total-steps 4000 --hidden-sizes 8 --eval-episodes 3"
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


def test_runs_that_become_non_finite_or_solve_cartpole(monkeypatch):
    """The former keep the last episodes logged; 475 needs a mean over 100 episodes."""
    script = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "made_up", script)

    def parse_args(argv):
        return SimpleNamespace(env=argv[0], run_dir=argv[-1], total_steps=100)

    def diverge(args):
        with SummaryWriter(args.run_dir) as writer:
            writer.add_scalar("rollout/episode_return", 7.0, 20)
            writer.add_scalar("rollout/episode_return", 9.0, 40)
        raise FloatingPointError("too large a step")

    script.parse_args, script.train = parse_args, diverge
    row = run.measure("made_up", ["CartPole-v1", "--eval-episodes", "5"])
    assert row["finite"] is False and row["last_100"] == 9.0
    assert row["curve"][9] == 7.0 and row["curve"][-1] == 9.0
    assert row["evaluation_mean"] is None
    json.dumps(row, allow_nan=False)
    script.train = lambda args: (None, [(step, 480.0) for step in range(1, 300)])
    assert run.measure("made_up", ["CartPole-v1"])["steps_to_475"] == 100
    assert run.measure("made_up", ["Pendulum-v1"])["steps_to_475"] is None


def test_the_plain_network_differs_from_the_scripts_in_its_initialisation_alone():
    plain, ours = run.plain_mlp([4, 8, 2], 0.01), ppo_clip.mlp([4, 8, 2], 0.01)
    assert str(plain) == str(ours)  # the same layers
    assert plain[0].bias.any() and not ours[0].bias.any()
    assert plain[-1].weight.std() > 10 * ours[-1].weight.std()


# --------------------------------------------------------------------------- search.py


def test_a_variant_replaces_the_base_only_if_its_interval_is_above_0(monkeypatch):
    monkeypatch.setattr(search, "random_returns", lambda env: np.array([3.0, 7.0]))
    returns = {
        "base": [40, 60, 50, 70],
        "gamma995": [60, 80, 70, 90],  # +20 on every seed
        "bound1": [70, 50, 80, 30],  # +30, -10, +30, -40
    }
    rows = pd.DataFrame(returns).rename_axis("seed").reset_index()
    rows = rows.melt("seed", var_name="variant", value_name="last_100")
    rows = rows.assign(env="Pendulum-v1", script="ppo_kl")
    table = search.search_table(rows).set_index("variant")
    # 0 is a return of 5, and 1 is gamma995's mean, 75
    assert table["score"]["base"] == f"{50 / 70:.3f}"
    assert table["score"]["gamma995"] == "1.000"
    assert table["difference to base"]["gamma995"] == f"{20 / 70:+.3f}"
    assert table["95 % interval"]["gamma995"] == f"{20 / 70:+.3f} to {20 / 70:+.3f}"
    assert list(table["replaces it"]) == ["", "yes", "no"]
    assert table["difference to base"]["bound1"] == f"{2.5 / 70:+.3f}"


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


def test_a_label_without_flags_is_the_scripts_default():
    clip, kl = ppo_clip.parse_args([]), ppo_kl.parse_args([])
    (size,) = [label for label, flags in learn.STEP_SIZES.items() if not flags]
    (epochs,) = [label for label, flags in learn.EPOCHS.items() if not flags]
    assert (clip.learning_rate, clip.epochs) == (float(size), int(epochs))
    plain = [label for label, (_, flags) in learn.TABLE1.items() if not flags]
    defaults = [clip.clip_epsilon, kl.target_kl]
    assert [float(label.split("= ")[1]) for label in plain] == defaults
    assert actor_critic.parse_args([]).n_steps == 5  # the ladder's label


def test_learn_goes_on_with_what_failed_and_never_with_other_numbers(
    results, monkeypatch, capsys
):
    asked, fails = [], ["Acrobot-v1"]

    def run_all(jobs, workers):
        for job in jobs:
            asked.append(job)
            failed = any(env in job[1] for env in fails)
            row = dict.fromkeys(learn.MEASURED, 1.0) | {"curve": [1.0] * run.POINTS}
            del row["fingerprint"]
            yield job, RuntimeError("no such luck") if failed else row

    monkeypatch.setattr(learn, "run_all", run_all)
    monkeypatch.setattr(learn, "fingerprint", lambda: ("123", "here"))
    (results / "fingerprint.txt").write_text("123\nhere\n")
    words = "learn --group grid --scripts ppo_clip --seeds 1000 --envs"
    argv = [*words.split(), "Acrobot-v1", "Pendulum-v1"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        learn.main()
    assert "no such luck" in "".join(capsys.readouterr())
    fails.clear()
    learn.main()
    learn.main()
    assert len(asked) == 3 and asked[2] == asked[0] != asked[1]
    for name in "runs.csv", "curves.csv":
        rows = run.read(results / name)
        assert [row["env"] for row in rows] == ["Pendulum-v1", "Acrobot-v1"]
        assert {row["seed"] for row in rows} == {"1000"}
    assert {row["50"] for row in rows} == {"1.0"}
    assert {row["fingerprint"] for row in run.read(results / "runs.csv")} == {"123"}
    monkeypatch.setattr(learn, "fingerprint", lambda: ("124", "here"))
    with pytest.raises(SystemExit, match="124, that of the rows 123"):
        learn.main()


@pytest.mark.slow
def test_the_scripts_compute_the_numbers_that_the_rows_are_of():
    path = ROOT / "benchmarks" / "results" / "fingerprint.txt"
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


def write_rows(results, group, envs, value):
    """A group's rows and curves with value(script, flags, env, seed) as return."""
    rows, curves = [], []
    for key in learn.rows_of(group):
        script, env, _, seed, flags = key
        if env in envs:
            last_100 = value(script, flags, env, seed)
            rows.append([*key, last_100, True])
            curves.append([*key, *[last_100] * run.POINTS])
    rows = pd.DataFrame(rows, columns=[*learn.KEY, "last_100", "finite"])
    rows.to_csv(results / "runs.csv", index=False)
    columns = [*learn.KEY, *range(1, run.POINTS + 1)]
    pd.DataFrame(curves, columns=columns).to_csv(results / "curves.csv", index=False)


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
    envs = ["CartPole-v1", "HalfCheetah-v5"]
    write_rows(results, "epochs", envs, lambda *key: float(key[-1] - 1000))
    none = "<!-- variance: begin -->{}<!-- variance: end -->c"
    text = "a\n<!-- epochs: begin -->\nold\n<!-- epochs: end -->\nb\n"
    filled = report.filled(text + none.format("\n"))
    assert filled.endswith(none.format("\nNot measured yet.\n"))
    assert filled.startswith("a\n<!-- epochs: begin -->\n![") and "old" not in filled
    table = lines_of(filled)
    assert table["K"][0].startswith("HalfCheetah-v5")
    assert table["20"] == ["1.0 (0.0, 1.0, 2.0)"] * 2
    assert report.table1().startswith("Not complete")  # HalfCheetah-v5's runs alone
    with pytest.raises(report.NoRows):  # they are no details, all is on in them
        report.ablation()


def test_table_1_scores_a_random_policy_0_and_the_best_setting_1(results, monkeypatch):
    """Each task has its own scale; the scores are the same on all of them."""
    level = dict(zip(learn.TABLE1.values(), [-1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.1]))

    def scale(env):
        return 10.0 ** learn.TASKS.index(env)

    def value(script, flags, env, seed):
        noise = (seed - 1001) * 0.1  # mean 0
        return scale(env) * (5 + level[script, flags] * 2 + noise)

    def random_returns(env):
        return scale(env) * np.array([4.0, 6.0])

    monkeypatch.setattr(report, "random_returns", random_returns)
    write_rows(results, "table1", learn.TASKS, value)
    table = lines_of(report.table1())
    expected = ["−1.00", "1.00", "0.75", "0.50", "0.25", "0.00", "0.10"]
    assert [table[label][0] for label in learn.TABLE1] == expected
    assert table["clipping, ε = 0.1"][2:] == ["–", "0.76", "0"]  # paper's, non-finite
    assert table["no clipping or penalty"][2].startswith("2.000 (1.")
    low, _, high = table["clipping, ε = 0.3"][1].split()
    assert float(low) < 0.5 < float(high)


def test_a_detail_is_bold_only_where_the_interval_excludes_0(results):
    off = learn.details("Hopper-v5")

    def value(script, flags, env, seed):
        changes = {
            off["normalised rewards"]: -50 - seed % 2,
            off["gradient clipping"]: (-1) ** seed * 30,
        }
        return 100.0 * seed + changes.get(flags, 0)

    write_rows(results, "details", ["Hopper-v5"], value)
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

    write_rows(results, "grid", ["CartPole-v1", "Reacher-v5"], value)
    lines = report.behind().splitlines()
    both = "2 of 2 environments: **CartPole-v1**, Reacher-v5"
    assert lines[0] == f"- vpg_baseline.py behind reinforce.py on {both}."
    assert lines[1].endswith("behind vpg_baseline.py on none of 2 environments.")
    assert lines[3] == f"- ppo_clip.py behind ppo_kl.py on {both}."


@pytest.mark.slow
@pytest.mark.parametrize("name", report.FILES)
def test_the_documents_say_what_the_rows_say(name, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", tmp_path)
    text = (ROOT / name).read_text()
    assert report.filled(text) == text


# ------------------------------------------------------------- speed.py, variance.py


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
    picture = tmp_path / "curve.png"
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path), "-o", str(picture)])
    plot.main()
    assert picture.stat().st_size > 5000
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path / "nothing")])
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
