"""What the tests in this folder share: short runs of every script, in this process."""

import contextlib
import io
import signal

import faulty  # noqa: F401  registers Faulty-v0
import pytest

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

SCRIPTS = [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)


def scripts(fast, scripts=SCRIPTS):
    """Parametrizes over scripts; the tests of those that are not in fast are slow."""
    marks = {True: [], False: pytest.mark.slow}
    params = [pytest.param(s, marks=marks[s in fast], id=s.__name__) for s in scripts]
    return pytest.mark.parametrize("script", params)


def short(script, run_dir):
    """The flags of a run of 300 steps on Faulty-v0, saved after every iteration."""
    flags = ["--env", "Faulty-v0", "--run-dir", str(run_dir), "--total-steps", "300"]
    flags += ["--num-envs", "2", "--eval-episodes", "2", "--checkpoint-every", "1"]
    if script in SCRIPTS[2:]:
        flags += ["--rollout-steps", "25"]
    return flags


def run(script, *argv):
    """main(argv), as from the command line: its exit code, and the last line of stderr.

    The progress bar, which goes there too, is left out.
    """
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    errors, status = io.StringIO(), 0
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(None):
            script.main([str(word) for word in argv])
    except SystemExit as stopped:
        status = stopped.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    lines = [line for line in lines if "step/s" not in line and "?step" not in line]
    assert len(lines) <= 1, lines  # one line, and no traceback
    return status, "".join(lines)
