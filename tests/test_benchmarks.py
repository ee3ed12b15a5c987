"""The grid of benchmarks/learn.py: what a row says, and that it can be stopped."""

import csv
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import actor_critic

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_grid_runs_what_is_missing_and_reports_what_the_script_returns(
    tmp_path, monkeypatch
):
    learn = importlib.import_module("learn")
    monkeypatch.setitem(learn.GROUPS, "tiny", (["CartPole-v1"], 3000, 2))
    flags = ["--rollout-steps", "16"]
    command = ["learn.py", "--group", "tiny", "--scripts", "actor_critic"]
    command += ["--flags", " ".join(flags), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "1"])
    learn.main()
    (first,) = rows(tmp_path / "results" / "runs.csv")
    monkeypatch.setattr(sys, "argv", command)
    learn.main()  # seeds 0 and 1, of which 1 is there
    runs = rows(tmp_path / "results" / "runs.csv")
    assert [row["seed"] for row in runs] == ["1", "0"] and runs[0] == first

    given = ["--env", "CartPole-v1", "--seed", "1", "--total-steps", "3000", *flags]
    given += ["--eval-episodes", "100", "--run-dir", str(tmp_path / "run")]
    args = actor_critic.parse_args(given)
    _, history = actor_critic.train(args)
    returns = actor_critic.evaluate(args, f"{args.run_dir}/checkpoint.pt")
    assert float(first["last_100_episodes"]) == pytest.approx(
        np.mean(history[-100:]), abs=0.01
    )
    assert first["flags"] == " ".join(flags) and first["steps_to_threshold"] == ""
    evaluation = float(first["evaluation_mean"]), float(first["evaluation_std"])
    assert evaluation == pytest.approx((returns.mean(), returns.std()), abs=0.06)
    curve = rows(tmp_path / "results" / "curves.csv")
    assert [int(row["steps"]) for row in curve[:50]] == list(range(60, 3001, 60))
    # the last iteration ends a little after 3000, so the curve is a little behind
    last = float(curve[49]["return"])
    assert last == pytest.approx(np.mean(history[-100:]), abs=1)


def test_a_search_does_not_write_into_what_is_reported(monkeypatch, capsys):
    learn = importlib.import_module("learn")
    monkeypatch.setattr(sys, "argv", ["learn.py", "--flags=--gamma 1"])
    monkeypatch.setattr(learn, "run", lambda *job: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as stopped:
        learn.main()
    assert stopped.value.code == 2 and "--results" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sb3_ppo", "sb3_a2c"])
def test_a_peers_row_says_what_the_peer_itself_reports(script):
    """Stable-Baselines3's own buffer of the last 100 episodes, and its evaluation.

    A2C logs every 500 steps, so the end of this run is logged.
    """
    sb3 = pytest.importorskip("stable_baselines3")
    evaluation = importlib.import_module("stable_baselines3.common.evaluation")
    util = importlib.import_module("stable_baselines3.common.env_util")
    torch = importlib.import_module("torch")
    learn = importlib.import_module("learn")
    row, curve = learn.run(script, "CartPole-v1", 4000, 3, "", "a commit")

    torch.set_num_threads(1)
    envs = util.make_vec_env("CartPole-v1", n_envs=1, seed=3)
    algorithm = getattr(sb3, learn.PEERS[script])
    model = algorithm("MlpPolicy", envs, seed=3, device="cpu").learn(4000)
    last_100 = [episode["r"] for episode in model.ep_info_buffer]
    assert len(last_100) >= 50
    assert row["last_100_episodes"] == pytest.approx(np.mean(last_100), abs=0.01)
    envs.seed(3)
    expected = evaluation.evaluate_policy(model, envs, 100)
    measured = float(row["evaluation_mean"]), float(row["evaluation_std"])
    assert measured == pytest.approx(expected, abs=0.06)
    assert len(curve) == learn.POINTS


@pytest.mark.slow
def test_a_failed_run_is_told_and_the_others_are_kept(tmp_path, monkeypatch, capsys):
    learn = importlib.import_module("learn")
    monkeypatch.setitem(learn.GROUPS, "tiny", (["NoSuch-v0", "CartPole-v1"], 600, 1))
    command = ["learn.py", "--group", "tiny", "--scripts", "actor_critic"]
    command += ["--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        learn.main()
    assert [row["env"] for row in rows(tmp_path / "runs.csv")] == ["CartPole-v1"]
    out, err = capsys.readouterr()
    assert "cannot make NoSuch-v0" in out + err


@pytest.mark.slow
def test_every_figure_of_the_lecture_that_README_shows_is_drawn_by_the_command(
    tmp_path, monkeypatch
):
    pytest.importorskip("matplotlib")
    figures = importlib.import_module("figures")
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    figures.main()
    shown = re.findall(
        r"benchmarks/figures/(\w+\.png)", (ROOT / "README.md").read_text()
    )
    assert {path.name for path in tmp_path.iterdir()} == set(shown)
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


def test_the_report_names_the_scripts_that_are_below_the_one_before_them(monkeypatch):
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    report = importlib.import_module("report")
    toy = {
        "A": {"reinforce": [1.0], "vpg_baseline": [2.0], "actor_critic": [1.5]},
        "B": {"reinforce": [1.0, 1.0], "vpg_baseline": [1.0, 1.0]},
        "C": {"ppo_kl": [3.0], "ppo_clip": [2.0]},
    }
    toy = {
        env: {script: np.array(values) for script, values in of_env.items()}
        for env, of_env in toy.items()
    }
    monkeypatch.setattr(report, "final_returns", lambda *column: toy)
    assert report.exceptions() == ["on A `actor_critic.py`", "on C `ppo_clip.py`"]
    table = report.learning_table().splitlines()
    assert table[2].startswith("| A | 1 | 1.0 | 2.0 | 1.5 |")
    assert table[3].startswith("| B | 2 | 1.0 (1.0 to 1.0) | 1.0 (1.0 to 1.0) |")


def test_one_table_is_of_training_and_one_of_evaluation(monkeypatch):
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    report = importlib.import_module("report")
    run = {"env": "Pendulum-v1", "script": "ppo_kl"}
    runs = [
        run | {"seed": "1", "last_100_episodes": "-3.0", "evaluation_mean": "-1.0"},
        run | {"seed": "0", "last_100_episodes": "-5.0", "evaluation_mean": "-2.0"},
    ]
    monkeypatch.setattr(report, "read", {"runs.csv": runs}.get)
    cells = {
        name: report.TABLES[name]().splitlines()[2].split(" | ")
        for name in ("learning table", "evaluation table")
    }
    assert "-4.0 (-5.0 to -3.0)" in cells["learning table"]
    assert "-1.5 (-2.0 to -1.0)" in cells["evaluation table"]
    training, evaluation = report.seeds_page().split("## Mean of 100 episodes")
    assert "| Pendulum-v1 | ppo_kl.py | -4.0 | -5.0, -3.0 |" in training
    assert "| Pendulum-v1 | ppo_kl.py | -1.5 | -2.0, -1.0 |" in evaluation


def test_in_the_order_an_environment_with_more_seeds_counts_no_more():
    """All six values together have the interquartile mean 0.75."""
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    report = importlib.import_module("report")
    two, four = np.array([0.0, 0.0]), np.array([1.0, 1.0, 1.0, 1.0])
    assert report.interquartile_mean(two, four) == 0.5
    assert report.interquartile_mean(np.array([0.0, 1.0, 3.0, 99.0])) == 2.0


def test_speed_counts_the_steps_that_whole_trajectories_take_beyond_the_budget():
    speed = importlib.import_module("speed")
    measured = speed.measure(speed.where_time_goes, "reinforce", "CartPole-v1", 1000)
    assert measured["steps"] > 1000


@pytest.mark.parametrize("work, steps", [(0, 16), (1, 320)])
def test_the_same_work_has_as_many_gradient_steps_as_the_peers(
    work, steps, tmp_path, monkeypatch
):
    """Of every rollout, though those of ours lose their reset rows."""
    speed = importlib.import_module("speed")
    script = importlib.import_module("ppo_clip")
    _, flags, env, _, _, peer = list(speed.SAME_WORK.values())[work]
    if env == "HalfCheetah-v5":
        pytest.importorskip("mujoco")
    gradient_step, update, counts = script.gradient_step, script.update, []

    def counted(*inputs):
        counts[-1] += 1
        gradient_step(*inputs)

    def watched(*inputs):
        counts.append(0)
        return update(*inputs)

    monkeypatch.setattr(script, "gradient_step", counted)
    monkeypatch.setattr(script, "update", watched)
    given = [*flags.split(), *speed.AS_THEY.split(), "--env", env]
    given += ["--total-steps", "8000", "--run-dir", str(tmp_path / "run")]
    script.train(script.parse_args(given))
    rows = peer["n_envs"] * peer["n_steps"]
    assert set(counts) == {peer["n_epochs"] * rows // peer["batch_size"]} == {steps}


def test_the_order_counts_environments_that_all_have_finished_on_several_seeds(
    monkeypatch,
):
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    report = importlib.import_module("report")
    two, one = np.array([0.0, 0.0]), np.array([7.0])
    toy = {
        "counts": dict(zip(report.OURS, [two, two + 1, two + 2, two + 3, two + 4])),
        "one seed of one": dict.fromkeys(report.OURS, two) | {"ppo_clip": one},
        "one is missing": dict.fromkeys(report.OURS[:4], two),
    }
    monkeypatch.setattr(report, "final_returns", lambda *column: toy)
    scores = {
        script: (count, score) for script, count, score, *_ in report.order_rows()
    }
    assert list(scores.values()) == [(1, 0), (1, 0.25), (1, 0.5), (1, 0.75), (1, 1)]
    assert list(scores) == report.OURS


def test_the_table_of_the_limit_says_what_its_file_says(monkeypatch):
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    report = importlib.import_module("report")
    row = {"what": "A", "ratio": "2.4", "limit": "5.0", "compilation_seconds": "11.2"}
    row |= {
        "pairs": "2",
        "step_us": "1124.4",
        "compiled_us": "863.4",
        "networks_us": "657.3",
    }
    monkeypatch.setattr(report, "read", {"speed_limit.csv": [row]}.get)
    *_, line = report.limit_table().splitlines()
    assert line == "| A | 2.4 | 5.0 | 1,124 µs | 863 µs | 657 µs | 11 s | 2 |"
