"""Runs that are killed, and disks that are full: the last checkpoint is always good."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SCRIPTS, every_script, run, scripts, short
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(SCRIPTS[0].__file__).parent


def start(script, *argv, **options):
    command = [sys.executable, str(ROOT / f"{script.__name__}.py"), *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def state(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["state"]


def iterations_exceed(folder, number):
    return (folder / "checkpoint.pt").exists() and state(folder)["iteration"] > number


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def training(script, folder, steps=20_000):
    """The flags of a run on CartPole-v1, saved after every iteration."""
    flags = ["--env", "CartPole-v1", "--run-dir", str(folder), "--num-envs", "2"]
    flags += ["--checkpoint-every", "1", "--total-steps", str(steps)]
    return flags + (["--rollout-steps", "32"] if script in SCRIPTS[2:] else [])


def kill_and_resume(script, folder, rng, kills):
    """Kills one run so many times; returns how many steps were lost, at worst."""
    # an iteration is longer than a thousandth of the run: the log has a point for each
    given, lost = [*training(script, folder, steps=200_000), "--num-envs", "8"], 0
    saved = {"iteration": 0, "steps": 0}
    for _ in range(kills):
        process = start(script, *given)
        before = saved["iteration"]
        # a moment after the first checkpoint of this process, within another or not
        wait_for(partial(iterations_exceed, folder, before), process)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        saved = state(folder)  # it loads
        assert saved["iteration"] > before
        events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
        logged = [event.step for event in events.Scalars("train/kl")]
        lost = max(lost, sum(step > saved["steps"] for step in logged))
        given = ["--resume", str(folder / "checkpoint.pt")]
    return saved, lost


@scripts(fast=[SCRIPTS[3]])
def test_a_killed_run_goes_on_from_its_last_checkpoint(script, tmp_path):
    saved, lost = kill_and_resume(script, tmp_path, random.Random(0), kills=2)
    assert lost <= 1  # the iteration after the checkpoint
    path, steps = tmp_path / "checkpoint.pt", saved["steps"] + 500
    given = ["--resume", str(path), "--total-steps", str(steps), "--eval-episodes", "1"]
    assert run(script, *given) == (0, "")
    assert state(tmp_path)["steps"] >= steps


@pytest.mark.slow
@every_script
def test_fifty_kills_at_random_moments(script, tmp_path, record_property):
    saved, lost = kill_and_resume(script, tmp_path, random.Random(1), kills=10)
    record_property("kills", 10)
    record_property("iterations_lost", lost)
    assert lost <= 1
    assert saved["iteration"] >= 10


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_learns_as_well(tmp_path):
    """As the runs that README reports: 475 at the end, over the last 100 episodes."""
    script, rng = SCRIPTS[4], random.Random(2)
    given = ["--run-dir", str(tmp_path), "--checkpoint-every", "1", "--total-steps"]
    process = start(script, *given, "200000")
    for kill in range(1, 9):  # through the first third of the 98 iterations
        wait_for(partial(iterations_exceed, tmp_path, 4 * kill), process)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate(timeout=60)
        process = start(script, "--resume", str(tmp_path / "checkpoint.pt"))
    process.communicate(timeout=300)
    assert process.returncode == 0
    returns = [episode_return for episode_return, _ in state(tmp_path)["episodes"]]
    assert len(returns) == 100 and np.mean(returns) > 475


@every_script
def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(
    script, tmp_path, monkeypatch
):
    """The power fails when the new file is there, and not yet the old one's."""

    class PowerFailure(BaseException):
        pass

    def fails(file):
        raise PowerFailure

    assert run(script, *short(script, tmp_path)) == (0, "")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(os, "fsync", fails)
    more = ["--resume", str(tmp_path / "checkpoint.pt"), "--total-steps", "600"]
    with pytest.raises(PowerFailure):
        run(script, *more)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    monkeypatch.undo()
    assert run(script, *more) == (0, "")
    assert state(tmp_path)["steps"] >= 600


@scripts(fast=[SCRIPTS[4]], scripts=SCRIPTS[2:])
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(script, tmp_path):
    """The limit on the size of a file stands for it; here the log's file reaches it."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it: an OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    small = ["--hidden-sizes", "4"]  # so that the checkpoint has room
    given = [*training(script, tmp_path, steps=1_000_000), *small]
    process = start(script, *given, preexec_fn=limit)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and output == ""
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"{script.__name__}.py: stopped in iteration ")
    assert "File too large" in last and str(tmp_path) in last
    saved = state(tmp_path)
    assert saved["iteration"] > 3
    # with room again it goes on
    more = ["--resume", str(tmp_path / "checkpoint.pt"), "--eval-episodes", "1"]
    more += ["--total-steps", str(saved["steps"] + 100)]
    assert run(script, *more) == (0, "")


def test_a_disk_too_full_for_the_first_checkpoint_is_an_error(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    process = start(SCRIPTS[4], *training(SCRIPTS[4], tmp_path), preexec_fn=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in errors
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/run"])
def test_a_folder_that_can_not_be_written_is_an_error(folder):
    status, message = run(SCRIPTS[0], *short(SCRIPTS[0], folder))
    assert status == 2 and folder in message


@scripts(fast=[SCRIPTS[1], SCRIPTS[3]])
def test_a_resumed_runs_curves_are_one_curve(script, tmp_path):
    """No gap and no step twice, in every scalar; returns are of 100 episodes again."""
    given, path = short(script, tmp_path), tmp_path / "checkpoint.pt"
    assert run(script, *given) == (0, "")
    for steps in 600, 900:
        time.sleep(1.1)  # TensorBoard orders event files by the second
        assert run(script, "--resume", path, "--total-steps", steps) == (0, "")
    events = EventAccumulator(str(tmp_path), {"scalars": 0}).Reload()
    saved = state(tmp_path)
    for name in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(name)]
        assert (np.diff(steps) > 0).all() and steps[-1] == saved["steps"]
        if not name.startswith("rollout/"):  # which begins with the first episode's end
            assert len(steps) == saved["iteration"]
    lengths = [length for _, length in saved["episodes"]]
    assert sum(lengths) > 600 or len(lengths) == 100  # from before resuming, too
