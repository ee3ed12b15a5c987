"""Environments that fail: in their own words, no process left, the checkpoint kept."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import faulty  # noqa: F401  registers Faulty-v0
import pytest
import torch
from runs import SCRIPTS, every_script, run, scripts, short

ROOT = Path(SCRIPTS[0].__file__).parent


def steps_saved(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["state"]["steps"]


@every_script
def test_a_step_that_raises_ends_the_run_in_its_own_words(script, tmp_path):
    more = ["--env-kwargs", '{"fault": "raises", "at": 130}']
    status, message = run(script, *short(script, tmp_path), *more)
    assert status == 2
    assert "ZeroDivisionError('the pole has no length')" in message
    assert "stopped in iteration" in message and str(tmp_path) in message
    assert 100 <= steps_saved(tmp_path) < 300


@pytest.mark.parametrize("script", [SCRIPTS[0], SCRIPTS[4]], ids=lambda s: s.__name__)
def test_observations_outside_their_space_end_the_run_too(script, tmp_path):
    more = ["--env-kwargs", '{"fault": "outside", "at": 130}']
    status, message = run(script, *short(script, tmp_path), *more)
    assert status == 2
    assert "the environment: it failed: IndexError" in message
    assert 100 <= steps_saved(tmp_path) < 300


def in_a_process(script, folder, *more):
    """A script's process on faulty:Faulty-v0: its exit code and its stderr."""
    given = [*short(script, folder), "--env", "faulty:Faulty-v0", *more]
    process = subprocess.run(
        [sys.executable, str(ROOT / f"{script.__name__}.py"), *given],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return process.returncode, process.stderr


def processes_of(folder):
    """Those that have this folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in path.read_text():
                found.append(path.parent.name)
        except OSError:  # it has just ended
            pass
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    "fault", [pytest.param("raises", marks=pytest.mark.slow), "dies"]
)
@scripts(fast=[SCRIPTS[4]])
def test_no_process_is_left_over_when_one_of_an_async_environment_fails(
    script, fault, tmp_path
):
    kwargs = json.dumps({"fault": fault, "at": 130})
    more = ["--env-kwargs", kwargs, "--vectorization", "async"]
    status, stderr = in_a_process(script, tmp_path, *more)
    assert status == 2
    last = stderr.splitlines()[-1]
    assert "stopped in iteration" in last
    said = "a process of it died" if fault == "dies" else "the pole has no length"
    assert said in last
    assert 100 <= steps_saved(tmp_path) < 300
    for _ in range(50):
        if not processes_of(tmp_path):
            break
        time.sleep(0.1)
    assert processes_of(tmp_path) == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    "missing, flags", [("pygame", ["--watch"]), ("moviepy", ["--video", "film"])]
)
def test_a_missing_renderer_is_named_with_the_command_that_installs_it(
    missing, flags, tmp_path, monkeypatch
):
    script = SCRIPTS[4]
    given = [*short(script, tmp_path), "--env", "CartPole-v1"]
    assert run(script, *given) == (0, "")
    monkeypatch.setitem(sys.modules, missing, None)  # its import fails from here on
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    more = [] if missing == "pygame" else ["--evaluate"]
    status, message = run(script, *flags, *more, checkpoint)
    assert status == 2 and missing in message.lower() and "pip install" in message
