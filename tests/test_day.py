"""An ordinary day: own environments, notebooks, sweeps, Ctrl-C, typing mistakes.

What is the same text in all five scripts is tried in one of them.
"""

import contextlib
import importlib.util
import io
import json
import math
import multiprocessing
import os
import pickle
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from pathlib import Path

import faulty  # registers its environments
import gymnasium as gym
import numpy as np
import pytest
import torch
from faulty import FaultyEnv
from support import (
    PARTIAL,
    ROOT,
    assert_equal,
    checkpoint,
    each,
    every_script,
    scalars,
    train_and_watch,
    watch,
)

import ppo_clip
import reinforce

TESTS = Path(__file__).parent
posix = pytest.mark.skipif(os.name == "nt", reason="needs the signals of POSIX")


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """A loop that does not end fails, Ctrl-C is heard, and sys.path stays as it was."""

    def fail(*_):
        raise TimeoutError("the test hangs")

    monkeypatch.setattr(sys, "path", sys.path[:])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, fail)
        signal.alarm(120)
    yield
    signal.signal(signal.SIGINT, before)
    if hasattr(signal, "alarm"):
        signal.alarm(0)


def flags(script, run_dir, *more, env="Faulty-v0", **env_kwargs):
    """A run of some ten iterations on a faulty environment, each saved."""
    argv = "--num-envs 2 --total-steps 200 --checkpoint-every 1 --eval-episodes 2"
    argv = [*argv.split(), "--hidden-sizes", "8", "--env", env]
    if script in PARTIAL:
        argv += ["--rollout-steps", "20"]
    if env_kwargs:
        argv += ["--env-kwargs", json.dumps(env_kwargs)]
    if run_dir:
        argv += ["--run-dir", str(run_dir)]
    return [*argv, *map(str, more)]


def train(script, run_dir, *more, **named):
    return script.train(script.parse_args(flags(script, run_dir, *more, **named)))


def refused(capsys, argv, script=ppo_clip):
    """The line on stderr that main(argv) ends with, and with exit code 2.

    The progress bar and, from argparse, the usage may stand before it.
    """
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        script.main([str(word) for word in argv])
    assert exit.value.code == 2
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    return stderr.strip().splitlines()[-1]


def all_finite(x):
    if isinstance(x, dict):
        return all(map(all_finite, x.values()))
    if isinstance(x, list | tuple):
        return all(map(all_finite, x))
    if isinstance(x, float):
        return math.isfinite(x)
    return not isinstance(x, torch.Tensor) or bool(x.isfinite().all())


# ------------------------------------------------------------------ own environments


@pytest.mark.filterwarnings("default")  # Gymnasium shows a process's traceback as one
@pytest.mark.parametrize(
    "env, mode", [("Faulty", "sync"), ("Faulty", "async"), ("Vectorized", "auto")]
)
def test_a_fault_in_own_step_is_shown_with_its_file_and_line(
    env, mode, tmp_path, recwarn
):
    """In every vectorization; and the last checkpoint stays."""
    given = {"env": f"{env}-v0", "fault": "raises", "at": 60}
    argv = flags(ppo_clip, tmp_path, "--vectorization", mode, **given)
    with pytest.raises(KeyError, match="pole") as failure:
        ppo_clip.main(argv)
    shown = "".join(traceback.format_exception(failure.value))
    shown += "".join(str(warning.message) for warning in recwarn)
    lines = Path(faulty.__file__).read_text().splitlines()
    (number,) = (i + 1 for i, line in enumerate(lines) if '["pole"]' in line)
    assert f'faulty.py", line {number}, in step' in shown
    assert 40 <= checkpoint(tmp_path)["steps"] < 200


@posix
@pytest.mark.filterwarnings("ignore")
def test_a_process_of_an_environment_that_dies_ends_the_run(tmp_path, monkeypatch):
    """It doesn't wait for it; and the last checkpoint stays."""
    made = watch(monkeypatch, ppo_clip, "make_envs")
    with pytest.raises((EOFError, ConnectionError)):
        train(ppo_clip, tmp_path, "--vectorization", "async", fault="dies", at=60)
    assert 40 <= checkpoint(tmp_path)["steps"] < 200
    envs = made[0][1].unwrapped
    for process in envs.processes:
        process.kill()
    envs.closed = True  # Gymnasium would wait for the process when envs is deleted


@every_script
def test_a_sweep_goes_on_after_a_step_size_that_is_far_too_large(script, tmp_path):
    trained = []
    for rate in "1e30", "1e-3":
        try:
            train(script, tmp_path / rate, "--learning-rate", rate)
            trained.append(rate)
        except Exception as error:  # SystemExit is none
            assert isinstance(error, FloatingPointError)
            assert "train/" in str(error) and "--learning-rate" in str(error)
    assert trained == ["1e-3"] and not (tmp_path / "1e30" / "checkpoint.pt").exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@each([reinforce, ppo_clip])
def test_numbers_of_the_environment_that_are_not_finite_are_not_the_step_sizes_fault(
    script, tmp_path
):
    """The observation, the first one too, or the reward is named; and none is saved."""
    for fault in "observation=nan", "observation=-inf", "reward=nan", "reward=inf":
        with pytest.raises(FloatingPointError) as failure:
            train(script, tmp_path / fault, fault=fault, at=60)
        message = str(failure.value)
        assert fault.split("=")[0] in message and "env" in message
        assert "learning-rate" not in message
        saved = checkpoint(tmp_path / fault)
        assert 40 <= saved["steps"] < 200 and all_finite(saved)
    with pytest.raises(FloatingPointError, match="observation"):
        train(script, tmp_path / "first", fault="observation=nan")


@pytest.mark.parametrize("env", ["OwnEpisodeKey-v0", "Recorded-v0"])
def test_an_environment_with_an_episode_key_of_its_own_has_the_right_returns(
    env, tmp_path
):
    FaultyEnv.returns.clear()
    _, history = train(ppo_clip, tmp_path, env=env)
    assert [total for _, total in history] == FaultyEnv.returns
    assert len(history) >= 8 and len(set(FaultyEnv.returns)) > 3
    assert set(scalars(tmp_path)["rollout/episode_length"][-1][1:]) == {20}


@pytest.mark.parametrize("name", ["MultiDiscrete", "MultiBinary", "IntegerBox"])
def test_actions_of_an_unknown_kind_are_named_with_the_wrapper_for_them(
    name, tmp_path, capsys
):
    line = refused(capsys, flags(ppo_clip, tmp_path, env=f"{name}-v0"))
    assert str(faulty.SPACES[name][1]) in line and "ActionWrapper to Discrete" in line


@pytest.mark.parametrize("name", ["Words", "Sequence"])
def test_observations_that_cannot_be_flattened_are_named_with_the_wrapper_for_them(
    name, tmp_path, capsys
):
    """As MiniGrid's, where Gymnasium raises without a text."""
    line = refused(capsys, flags(ppo_clip, tmp_path, env=f"{name}-v0"))
    assert str(faulty.SPACES[name][0]) in line and "ObservationWrapper" in line


@pytest.mark.parametrize(
    "env, says",
    [
        ("CartPol-v1", "Did you mean: `CartPole`"),
        ("CartPole-v9", "v1"),
        ("nowhere_to_be_found:X-v0", "No module named 'nowhere_to_be_found'"),
        ("not an id", "Malformed"),
        ("Wordless-v0", "Error()"),  # Gymnasium raises without a text
    ],
)
def test_an_environment_that_cannot_be_made_is_named_with_the_reason(env, says, capsys):
    line = refused(capsys, flags(ppo_clip, None, env=env))
    assert line.split(": ", 1)[1].startswith(f"cannot make {env}: ") and says in line


def test_another_autoreset_mode_is_refused(tmp_path, capsys):
    argv = flags(ppo_clip, tmp_path, env="Vectorized-v0", mode="SameStep")
    assert "NEXT_STEP" in refused(capsys, argv)


def test_a_simulator_that_allows_one_instance_is_trained_and_evaluated(
    tmp_path, capsys
):
    argv = flags(ppo_clip, tmp_path, "--num-envs", 1, env="OneInstance-v0")
    ppo_clip.main(argv)
    assert "over 2 episodes" in capsys.readouterr().out
    assert faulty.OneInstance.opened == 0


def test_an_evaluation_that_fails_comes_after_log_and_checkpoint_are_named(
    tmp_path, capsys, monkeypatch
):
    for number, error in enumerate(
        [RuntimeError, ppo_clip.UsageError, gym.error.Error]
    ):

        def make_envs(
            *given, training=True, make=ppo_clip.make_envs, error=error, **more
        ):
            if not training:
                raise error("no display")
            return make(*given, **more)

        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(ppo_clip, "make_envs", make_envs)
            with pytest.raises(RuntimeError if number == 0 else SystemExit):
                ppo_clip.main(flags(ppo_clip, folder, "--total-steps", 40))
        out, err = capsys.readouterr()
        assert f"--logdir {folder}" in out and f"{folder}/checkpoint.pt" in out
        assert number == 0 or err.endswith(": no display\n")


def test_episodes_that_never_end_are_learnt_from_and_not_waited_for(tmp_path, capsys):
    """No episode, no mean return; evaluation counts its steps, and then gives up."""
    _, history = train(ppo_clip, tmp_path, fault="never_ends")
    assert history == [] and not any("rollout/" in name for name in scalars(tmp_path))
    args = ppo_clip.parse_args(["--evaluate", str(tmp_path)])
    with pytest.raises(ppo_clip.UsageError, match="--max-episode-steps"):
        ppo_clip.evaluate(args, tmp_path, longest_episode=50)
    assert "evaluation: " in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_environment_that_draws_from_random_and_from_numpy_is_seeded(mode, tmp_path):
    """And no copy draws what another one does, in processes of their own too."""
    runs = []
    for k, seed in enumerate("334"):
        random.seed(k)  # whatever was drawn before
        np.random.seed(k)
        more = "--seed", seed, "--vectorization", mode, "--total-steps", 80
        folder = tmp_path / str(k)
        args = ppo_clip.parse_args(
            flags(ppo_clip, folder, *more, env="GlobalRandom-v0")
        )
        rollouts, (policy, history) = train_and_watch(ppo_clip, args)
        for obs in rollouts[0].obs[0], rollouts[1].obs[1]:  # after the first two resets
            assert all(len(set(drawn)) == 2 for drawn in obs.T)  # each of the three
        returns = ppo_clip.evaluate(args, folder)
        runs.append((policy.state_dict(), history, returns.tolist()))
    assert_equal(runs[0], runs[1])
    assert runs[0][1] != runs[2][1]


# ------------------------------------------------------------------------- own copies


@each([reinforce, ppo_clip])
def test_with_float64_as_torchs_default_a_run_works(script, tmp_path):
    """Trained, resumed and evaluated; in float32, as always."""
    torch.set_default_dtype(torch.float64)
    try:
        for continuous in False, True:
            run = tmp_path / str(continuous)
            policy, _ = train(script, run, continuous=continuous)
            assert {p.dtype for p in policy.parameters()} == {torch.float32}
            args = script.parse_args(["--resume", str(run), "--total-steps", "300"])
            script.train(args)
            assert len(script.evaluate(args, run)) == 2
    finally:
        torch.set_default_dtype(torch.float32)


@every_script
def test_another_network_works_and_is_given_rows_alone(script, tmp_path, monkeypatch):
    """(B, observation), in acting, learning and evaluation, for π and V."""
    shapes = set()

    class Rows(torch.nn.Module):
        def forward(self, obs):
            shapes.add(obs.shape[1:])
            return obs

    def mlp(sizes, last_gain):
        first, last = torch.nn.Linear(sizes[0], 5), torch.nn.Linear(5, sizes[-1])
        return torch.nn.Sequential(Rows(), first, torch.nn.ReLU(), last)

    monkeypatch.setattr(script, "mlp", mlp)
    train(script, tmp_path)
    script.evaluate(script.parse_args(["--evaluate", str(tmp_path)]), tmp_path)
    assert shapes == {(3,)}


@each([reinforce, ppo_clip])
def test_a_changed_distribution_acts_learns_and_is_evaluated(
    script, tmp_path, monkeypatch
):
    """One place to change: an action that it never takes is never taken."""

    def distribution(self, obs):
        never = torch.tensor([0.0, -1e9])
        return torch.distributions.Categorical(logits=self.network(obs) + never)

    monkeypatch.setattr(script.Policy, "distribution", distribution)
    _, history = train(script, tmp_path)
    assert {total for _, total in history} == {0.0}
    args = script.parse_args(["--evaluate", str(tmp_path)])
    assert script.evaluate(args, tmp_path).tolist() == [0.0, 0.0]
    assert max(value for _, value in scalars(tmp_path)["train/entropy"]) == 0


def test_a_renamed_script_loads_its_checkpoint_and_refuses_another_algorithms(
    tmp_path, capsys, monkeypatch
):
    copy = tmp_path / "hw4_ppo.py"
    shutil.copy(ROOT / "ppo_clip.py", copy)
    spec = importlib.util.spec_from_file_location("hw4_ppo", copy)
    hw4_ppo = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hw4_ppo", hw4_ppo)
    spec.loader.exec_module(hw4_ppo)
    train(hw4_ppo, tmp_path / "mine", "--rollout-steps", 20)
    for script in hw4_ppo, ppo_clip:
        script.main(["--evaluate", str(tmp_path / "mine")])
    train(reinforce, tmp_path / "others")
    for script, run, name in [
        (hw4_ppo, "others", "reinforce"),
        (reinforce, "mine", "ppo_clip"),
    ]:
        line = refused(capsys, ["--evaluate", tmp_path / run], script)
        assert f"it is a checkpoint of {name}" in line


# ------------------------------------------------------------------ notebooks, Ctrl-C


def test_main_leaves_signals_hooks_and_torch_as_they_were(tmp_path, monkeypatch):
    """Also where Ctrl-C ends it in an interactive Python, which goes on."""

    def settings():
        return (
            [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
            (sys.excepthook, threading.excepthook, sys.unraisablehook),
            (torch.get_num_threads(), torch.get_default_dtype()),
            (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
            torch.distributions.Distribution._validate_args,
            (np.geterr(), os.getcwd()),
        )

    distribution = torch.distributions.Distribution  # whatever ran before this test
    monkeypatch.setattr(distribution, "_validate_args", True)
    before, handled = settings(), []
    monkeypatch.setattr(signal, "signal", lambda *given: handled.append(given))
    ppo_clip.main(flags(ppo_clip, tmp_path / "whole"))
    assert settings() == before
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(KeyboardInterrupt):
        ppo_clip.main(flags(ppo_clip, tmp_path / "part", fault="interrupts", at=60))
    assert settings() == before and handled == []


def hear_ctrl_c():
    """Also where the tests run in the background, whose processes ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@every_script
def test_ctrl_c_in_a_notebook_returns_policy_and_history_and_the_cell_runs_again(
    script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folders = []
    for _ in range(2):  # the cell, twice
        argv = flags(
            script, None, "--checkpoint-every", 9000, fault="interrupts", at=60
        )
        args = script.parse_args(argv)
        try:
            policy, history = script.train(args)
        except KeyboardInterrupt:
            pytest.fail("train lets it pass")
        folders.append(args.run_dir)
        assert len(history) >= 4 and 80 <= history[-1][0] < 200
        assert_equal(checkpoint(args.run_dir)["policy"], policy.state_dict())
        assert checkpoint(args.run_dir)["steps"] >= history[-1][0]
    assert len(set(folders)) == 2
    policy, history = train(script, "first", fault="interrupts", at=5)
    assert isinstance(policy, script.Policy) and history == []
    assert not Path("first", "checkpoint.pt").exists()


def test_a_second_ctrl_c_while_saving_leaves_the_checkpoint_before(
    tmp_path, monkeypatch
):
    """Half a file does not take its place; and the environments are closed."""
    saved, save = [], torch.save

    def interrupted_save(contents, path):
        if contents["steps"] > 100:
            Path(path).write_bytes(b"half of it")
            raise KeyboardInterrupt
        save(contents, path)
        saved.append(contents["steps"])

    monkeypatch.setattr(torch, "save", interrupted_save)
    closed = watch(monkeypatch, gym.vector.SyncVectorEnv, "close")
    with pytest.raises(KeyboardInterrupt):
        train(ppo_clip, tmp_path)
    assert checkpoint(tmp_path)["steps"] == saved[-1] > 0 and closed


@posix
@pytest.mark.filterwarnings("ignore")  # Gymnasium's, of a step that is pending
def test_ctrl_c_between_the_answers_of_async_copies_does_not_wait_for_ever(
    tmp_path, monkeypatch
):
    """One copy's answer is lost, so that waiting for it would never end."""
    vector, waits = gym.vector.AsyncVectorEnv, []
    add_info, close = vector._add_info, vector.close_extras

    def interrupted_add_info(self, infos, info, copy):
        if FaultyEnv.returns == ["now"] and copy == 0:
            raise KeyboardInterrupt
        return add_info(self, infos, info, copy)

    def close_extras(self, timeout=None, terminate=False):
        waits.append(timeout)
        close(self, 0.1, terminate)

    def update(*given, update=ppo_clip.update):
        FaultyEnv.returns[:] = ["now"]  # from the second iteration on
        return update(*given)

    FaultyEnv.returns.clear()
    monkeypatch.setattr(vector, "_add_info", interrupted_add_info)
    monkeypatch.setattr(vector, "close_extras", close_extras)
    monkeypatch.setattr(ppo_clip, "update", update)
    more = "--vectorization", "async", "--checkpoint-every", 9000
    policy, _ = train(ppo_clip, tmp_path, *more)
    assert_equal(checkpoint(tmp_path)["policy"], policy.state_dict())
    assert len(waits) == 1 and 0 < waits[0] <= 10
    assert multiprocessing.active_children() == []


@posix
def test_ctrl_c_does_not_reach_copies_in_processes_of_their_own():
    """A terminal sends it to all processes, and train alone is to end."""
    args = ppo_clip.parse_args(flags(ppo_clip, None, "--vectorization", "async"))
    envs = ppo_clip.make_envs(args, 2)
    envs.reset(seed=0)
    for process in envs.unwrapped.processes:
        os.kill(process.pid, signal.SIGINT)
    envs.step(np.zeros(2, int))  # would raise KeyboardInterrupt
    envs.close()


def in_a_shell_loop(tmp_path, mode, ready, *more):
    """Two runs in a loop of bash; SIGINT to the group, as a terminal sends it.

    Waits for `ready` in the first run's folder, and a moment; returns stdout, stderr.
    """
    argv = "--num-envs 3 --total-steps 1e6 --checkpoint-every 1 --run-dir run$seed"
    argv += f" --seed $seed --vectorization {mode} --env faulty:Faulty-v0 --env-kwargs "
    argv += shlex.quote(json.dumps({"fault": "slow=0.02"}))
    script = shlex.join([sys.executable, str(ROOT / "ppo_clip.py"), *more])
    loop = f"for seed in 0 1; do {script} {argv}; echo next; done; echo end"
    shell = subprocess.Popen(
        ["bash", "-c", loop],
        preexec_fn=hear_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": ":".join([str(TESTS), *sys.path])},
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f"run0/{ready}")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        os.killpg(shell.pid, signal.SIGINT)
        return shell.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # also copies that are left over


@posix
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    "mode", ["sync", pytest.param("async", marks=pytest.mark.slow)]
)
def test_ctrl_c_in_the_first_iteration_ends_a_shell_loop_at_once(mode, tmp_path):
    """20 ms a step and 1000 steps an iteration: it must not wait for its end."""
    more = "--rollout-steps", "1000"
    out, err = in_a_shell_loop(tmp_path, mode, "events*", *more)
    assert "interrupted too early" in out and "next" not in out and "end" not in out
    assert "--resume" not in out and "Traceback" not in err
    assert "Warning" not in err or mode == "async"  # Gymnasium's, of a pending step
    assert os.listdir(tmp_path) == ["run0"]
    assert not (tmp_path / "run0" / "checkpoint.pt").exists()


@posix
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    "mode", [pytest.param("sync", marks=pytest.mark.slow), "async"]
)
def test_ctrl_c_after_an_iteration_ends_a_shell_loop_and_the_run_can_go_on(
    mode, tmp_path
):
    out, err = in_a_shell_loop(tmp_path, mode, "checkpoint.pt", "--rollout-steps", "2")
    assert "interrupted" in out and "next" not in out and "end" not in out
    assert "--resume run0/checkpoint.pt" in out and "Traceback" not in err
    assert os.listdir(tmp_path) == ["run0"]
    assert checkpoint(tmp_path / "run0")["steps"] > 0


# -------------------------------------------------------------- folders and commands


def test_five_runs_in_one_second_have_five_folders_that_windows_allows(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "your_module", types.ModuleType("your_module"))
    argv = flags(ppo_clip, None, "--seed", 3, env="your_module:Faulty-v0")
    runs = [ppo_clip.parse_args(argv) for _ in range(5)]
    for args in runs:
        writer, bar = ppo_clip.open_log(args, 0)
        writer.close()
        bar.close()
    assert len({args.run_dir for args in runs}) == 5
    folders = [path.parent for path in tmp_path.rglob("events*")]
    assert len(set(folders)) == 5
    assert all(folder.name.startswith("seed3-2") for folder in folders)
    assert not any(set(str(f.relative_to(tmp_path))) & set(':*?"<>|') for f in folders)


def test_printed_commands_can_be_pasted_whatever_the_folders_are_called(
    tmp_path, monkeypatch, capsys
):
    """From a folder with a module of an environment in it, and not the script's."""
    monkeypatch.chdir(tmp_path)
    Path("my_walk.py").write_text("import faulty")
    monkeypatch.setattr(sys, "argv", ["../my scripts/ppo_clip.py"])
    monkeypatch.delitem(sys.modules, "my_walk", raising=False)
    run = 'a run of $HOME; it\'s "mine"'
    ppo_clip.main(flags(ppo_clip, run, env="my_walk:Faulty-v0"))
    log, watch, result = capsys.readouterr().out.splitlines()
    assert shlex.split(log) == ["log:", "tensorboard", "--logdir", run]
    name, python, script, flag, path = shlex.split(watch)
    assert (name, python, script) == ("watch:", "python", "../my scripts/ppo_clip.py")
    assert (flag, path) == ("--watch", os.path.join(run, "checkpoint.pt"))
    ppo_clip.main(["--evaluate", path])
    assert capsys.readouterr().out.splitlines() == [result]


def test_a_run_folder_stands_for_its_checkpoint(tmp_path, capsys):
    ppo_clip.main(flags(ppo_clip, tmp_path))
    *_, result = capsys.readouterr().out.splitlines()
    ppo_clip.main(["--evaluate", str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [result]
    more = "--total-steps", 300, "--eval-episodes", 3
    ppo_clip.main(["--resume", str(tmp_path), *map(str, more)])
    assert "over 3 episodes" in capsys.readouterr().out
    assert checkpoint(tmp_path)["steps"] >= 300


# ----------------------------------------------------------------- what is typed wrong


@pytest.mark.parametrize(
    "argv, says",
    [
        ("--env-kwargs {x:1}", "--env-kwargs: invalid JSON value: '{x:1}'"),
        ("--env-kwargs 1", "JSON"),
        ("--total-steps 1000", "--total-steps: at least 2048"),
        ("--total-steps 1e5.5", "--total-steps"),
        ("--total-steps 2048.5", "--total-steps"),
        ("--num-envs 0", "--num-envs"),
        ("--seed -1", "--seed"),
        ("--gamma 1.1", "--gamma"),
        ("--learning-rate nan", "--learning-rate"),
        ("--learning-rate -1e-9", "--learning-rate"),
        ("--hidden-sizes 64 x", "--hidden-sizes"),
        ("--rollout-steps 1", "--rollout-steps"),
        ("--initial-variance 0", "--initial-variance"),
        ("--vectorization fast", "'sync', 'async'"),
        ("--learning-rat 1 --no-such-flag", "--no-such-flag"),
        ("--resume nowhere.pt", "cannot load nowhere.pt"),
        ("--evaluate .", "cannot load checkpoint.pt"),
        ("--resume a.pt --watch b.pt", "not allowed with argument --resume"),
    ],
)
def test_what_is_typed_wrong_is_named(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, argv.split())
    assert os.listdir() == []  # nothing was begun


def test_numbers_may_be_typed_as_one_writes_them():
    argv = "--total-steps 1e6 --num-envs 8 --max-grad-norm inf --gamma 1 --seed 1_000"
    args = ppo_clip.parse_args(argv.split())
    found = args.total_steps, args.max_grad_norm, args.gamma, args.seed
    assert repr(found) == "(1000000, inf, 1.0, 1000)"
    assert ppo_clip.parse_args(["--total-steps", "2048"]).total_steps == 2048


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(capsys):
    assert "no CUDA device" in refused(capsys, ["--device", "cuda"])


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path, capsys):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    assert "not empty" in refused(capsys, flags(ppo_clip, tmp_path))
    for run in notes, notes / "run":
        line = refused(capsys, flags(ppo_clip, run))
        assert "cannot use the folder" in line and "notes.txt" in line
    assert os.listdir(tmp_path) == ["notes.txt"] and notes.read_text() == "mine"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's folder; its checkpoint is not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    train(ppo_clip, folder)
    return folder


def test_a_run_that_is_complete_asks_for_more_steps(saved, capsys):
    line = refused(capsys, ["--resume", saved])
    assert str(saved) in line and "raise --total-steps" in line


class Harmful:
    """To load it as pickle does would write a file."""

    def __reduce__(self):
        return open, ("harm.txt", "w")


def test_files_that_are_no_checkpoint_are_refused_and_no_code_in_them_runs(
    saved, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    others = [b"", b"PK", pickle.dumps({"a": 1}), pickle.dumps(Harmful())]
    for number, contents in enumerate(others):
        Path(f"{number}.pt").write_bytes(contents)
    for number, contents in enumerate([[1], {"args": {}}, {"algorithm": Harmful()}], 4):
        torch.save(contents, f"{number}.pt")
    for part in "algorithm", "policy", "observation":
        rest = checkpoint(saved)
        del rest[part]
        torch.save(rest, f"{part}.pt")
    for path in Path().glob("*.pt"):
        for flag in "--evaluate", "--resume":
            assert f"cannot load {path}" in refused(capsys, [flag, path])
    assert len(list(Path().glob("*.pt"))) == 10 and not Path("harm.txt").exists()


# ------------------------------------------------------------------------------ words


@contextlib.contextmanager
def windows_console(monkeypatch):
    """What is printed meanwhile, as bytes in a code page without Greek letters."""
    screen = io.BytesIO()
    text = io.TextIOWrapper(screen, encoding="cp1252", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", text)
        yield screen
    text.detach()


@every_script
def test_help_is_ascii_with_the_algorithms_own_flags_first(script, monkeypatch):
    """So it survives a Windows console, as the last line of a run does."""
    with windows_console(monkeypatch) as screen, pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    text = screen.getvalue().decode("ascii")
    text = text[text.index("options:") :]
    own = {"--weight", "--critic-epochs", "--advantage", "--beta", "--clip-epsilon"}
    mine = [text.index(f"  {flag} ") for flag in own if f"  {flag} " in text]
    assert mine and max(mine) < text.index("  --gamma ") < text.index("  --env ")
    assert "None:" not in text


def test_the_last_line_of_a_run_survives_a_windows_console(saved, monkeypatch):
    with windows_console(monkeypatch) as screen:
        ppo_clip.main(["--evaluate", str(saved)])
    assert "±" in screen.getvalue().decode("cp1252")
