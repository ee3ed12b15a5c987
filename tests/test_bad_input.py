"""What a user gets wrong costs one line that says what to mend, and exit code 2.

Most tests call main() in this process, which is fast; the last ones start the scripts
as a user does.
"""

import importlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

ROOT = Path(reinforce.__file__).parent
SCRIPTS = [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)


class BrokenEnv(gym.Env):
    """Five steps an episode; from one step of its life on, it gives what is no number.

    Its tenth episode ends with step 50.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, broken="nothing", step=1, observation_space=None):
        self.broken, self.first_broken_step, self.steps_of_life = broken, step, 0
        self.observation_space = observation_space or spaces.Box(
            -1, 1, (3,), np.float32
        )

    def observation(self):
        broken = self.broken == "observation"
        if broken and self.steps_of_life >= self.first_broken_step:
            return np.full(3, np.nan, np.float32)
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.step_of_episode = 0
        return self.observation(), {}

    def step(self, action):
        self.step_of_episode += 1
        self.steps_of_life += 1
        reward = 1.0
        if self.broken == "reward" and self.steps_of_life >= self.first_broken_step:
            reward = np.nan
        return self.observation(), reward, self.step_of_episode == 5, False, {}


class ActionSpaceEnv(BrokenEnv):
    def __init__(self, action_space):
        super().__init__()
        self.action_space = action_space


def without_its_package():
    raise gym.error.DependencyNotInstalled("Box2D is missing: pip install swig box2d")


def same_step_autoreset(num_envs, **kwargs):
    mode = AutoresetMode.SAME_STEP
    return SyncVectorEnv([CartPoleEnv] * num_envs, autoreset_mode=mode)


CHOICES = spaces.MultiDiscrete([2, 3])
WHOLE_NUMBERS = spaces.Box(0, 9, (2,), np.int64)
SEQUENCE = spaces.Sequence(spaces.Box(-1, 1, (2,), np.float32))

register = partial(gym.register, disable_env_checker=True)
register("Broken-v0", BrokenEnv)
register("Choices-v0", partial(ActionSpaceEnv, CHOICES))
register("WholeNumbers-v0", partial(ActionSpaceEnv, WHOLE_NUMBERS))
register("Sequence-v0", partial(BrokenEnv, observation_space=SEQUENCE))
register("NotInstalled-v0", without_its_package)
register("SameStep-v0", CartPoleEnv, vector_entry_point=same_step_autoreset)


@pytest.fixture(autouse=True)
def a_place_of_its_own(tmp_path, monkeypatch):
    """Runs go into tmp_path; main()'s signal handlers don't outlive the test."""
    monkeypatch.chdir(tmp_path)
    numbers = signal.SIGINT, signal.SIGTERM
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers):
        signal.signal(number, handler)


@pytest.fixture
def error(capsys):
    """error(script, *argv) is the one line that main(argv) leaves on stderr."""

    def call_main(script, *argv):
        with pytest.raises(SystemExit) as stopped:
            script.main([str(word) for word in argv])
        assert stopped.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return one_line(script, printed.err)

    return call_main


def one_line(script, stderr):
    """The message, without the script's name, which goes before it."""
    (line,) = (line for line in stderr.splitlines() if line.strip())
    name, _, message = line.partition(": ")
    assert name == f"{script.__name__}.py"
    return message


def short_run(script, *more):
    """The flags of a short run into ./run, saved after every iteration."""
    given = ["--env", "Broken-v0", "--run-dir", "run", "--num-envs", "2"]
    given += ["--total-steps", "600", "--checkpoint-every", "1"]
    if script in (actor_critic, ppo_kl, ppo_clip):
        given += ["--rollout-steps", "11"]
    return [*given, *more]


class StopAfter:
    """For train()'s stop, which it looks at before each iteration: n may begin."""

    def __init__(self, n):
        self.left = n

    def __bool__(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def contents_of_a_checkpoint(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("checkpoint")
    given = short_run(reinforce, "--run-dir", str(run_dir))
    reinforce.train(reinforce.parse_args(given), StopAfter(2))
    return (run_dir / "checkpoint.pt").read_bytes()


@pytest.fixture
def saved(contents_of_a_checkpoint):
    """run/checkpoint.pt, by reinforce.py, of an unfinished run on Broken-v0."""
    Path("run").mkdir()
    path = Path("run", "checkpoint.pt")
    path.write_bytes(contents_of_a_checkpoint)
    return path


# The environment


def test_an_unknown_environment_comes_with_gymnasiums_suggestion(error):
    message = error(ppo_clip, "--env", "CartPol-v1")
    assert "CartPol-v1" in message and "Did you mean: `CartPole`?" in message


def test_an_unknown_version_comes_with_the_known_ones(error):
    message = error(ppo_clip, "--env", "CartPole-v7")
    assert "v7" in message and "`v1`" in message


@pytest.mark.parametrize("name", ["", "Cart", "a b", "no_such_module:CartPole-v1"])
def test_a_malformed_name_or_an_unknown_module_is_an_error(error, name):
    assert error(ppo_clip, "--env", name).startswith(f"cannot make {name}".strip())


def test_a_name_without_a_version_is_the_latest_one_with_a_warning(tmp_path):
    given = ["--env", "CartPole", "--run-dir", str(tmp_path), "--total-steps", "2048"]
    with pytest.warns(UserWarning, match="CartPole-v1"):
        ppo_clip.main([*given, "--eval-episodes", "1"])
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
def test_an_unsupported_action_space_is_named_with_what_is_supported(
    error, vectorization
):
    given = ["--env", "Choices-v0", "--vectorization", vectorization]
    message = error(reinforce, *given)
    assert str(CHOICES) in message and "Box" in message and "Discrete" in message


def test_box_actions_of_whole_numbers_are_not_supported(error):
    assert str(WHOLE_NUMBERS) in error(ppo_clip, "--env", "WholeNumbers-v0")


def test_observations_of_no_fixed_length_are_not_supported(error):
    assert str(SEQUENCE) in error(ppo_clip, "--env", "Sequence-v0")


def test_a_missing_package_is_named_with_the_command_that_installs_it(error):
    message = error(ppo_clip, "--env", "NotInstalled-v0")
    assert "pip install swig box2d" in message


@pytest.mark.parametrize("text", ["is_slippery", "{", "{'a': 1}", ""])
def test_env_kwargs_that_are_not_json_are_an_error(error, text):
    assert "--env-kwargs" in error(ppo_clip, "--env-kwargs", text)


@pytest.mark.parametrize("text", ["[1]", "1", "null", '"text"', "true"])
def test_env_kwargs_that_are_no_json_object_are_an_error(error, text):
    assert error(ppo_clip, "--env-kwargs", text).startswith("argument --env-kwargs")


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
def test_an_unknown_keyword_of_the_environment_is_named(error, vectorization):
    keyword = json.dumps({"gravitty": 9.8})
    given = ["--env-kwargs", keyword, "--vectorization", vectorization]
    message = error(ppo_clip, *given, "--env", "Pendulum-v1")
    assert "Pendulum-v1" in message and "gravitty" in message


def test_an_autoreset_mode_other_than_next_step_is_an_error(error):
    assert "autoreset mode" in error(ppo_clip, "--env", "SameStep-v0")


# Flags

NOT_COUNTS = ["0", "-1", "1.5", "nan", "inf", "many", ""]
NOT_WEIGHTS = ["-1", "-1e-9", "nan", "-inf", "much", ""]
NOT_FRACTIONS = ["-0.1", "1.01", "nan", "inf", "much", ""]
NONSENSE = {
    "--max-episode-steps": NOT_COUNTS,
    "--seed": ["-1", "1.5", "nan", "inf", "none", "", "100_000_000_000_000_000_000"],
    "--total-steps": NOT_COUNTS,
    "--num-envs": NOT_COUNTS,
    "--eval-episodes": NOT_COUNTS,
    "--checkpoint-every": NOT_COUNTS,
    "--gamma": NOT_FRACTIONS,
    "--learning-rate": NOT_WEIGHTS,
    "--hidden-sizes": NOT_COUNTS,
    "--initial-variance": ["0", "-1", "1e7", "inf", "nan", "much", ""],
    "--max-grad-norm": NOT_WEIGHTS,
    "--entropy-coefficient": NOT_WEIGHTS,
    "--baseline-epochs": NOT_COUNTS,
    "--critic-epochs": NOT_COUNTS,
    "--baseline-learning-rate": NOT_WEIGHTS,
    "--rollout-steps": NOT_COUNTS,
    "--n-steps": NOT_COUNTS,
    "--gae-lambda": NOT_FRACTIONS,
    "--epochs": NOT_COUNTS,
    "--minibatch-size": NOT_COUNTS,
    "--beta": NOT_WEIGHTS,
    "--target-kl": NOT_WEIGHTS,
    "--clip-epsilon": NOT_WEIGHTS,
}


def flag_names(script):
    return [f"--{name.replace('_', '-')}" for name in vars(script.parse_args([]))]


NUMERIC = [(s, flag) for s in SCRIPTS for flag in flag_names(s) if flag in NONSENSE]


@every_script
def test_every_flag_with_a_number_for_its_default_is_in_the_table_of_nonsense(script):
    defaults = vars(script.parse_args([])).values()
    numeric = {
        f for f, d in zip(flag_names(script), defaults) if type(d) in (int, float)
    }
    assert len(numeric) >= 9 and numeric <= set(NONSENSE)


@pytest.mark.parametrize(
    "script, flag", NUMERIC, ids=[f"{s.__name__}{flag}" for s, flag in NUMERIC]
)
def test_nonsense_numbers_are_errors_that_name_the_flag(error, script, flag):
    for text in NONSENSE[flag]:
        assert flag in error(script, f"{flag}={text}")


@pytest.mark.parametrize("script", [actor_critic, ppo_kl, ppo_clip])
def test_fewer_total_steps_than_one_batch_are_an_error(error, script):
    """Else nothing would be learned, in silence."""
    given = ["--num-envs", "4", "--rollout-steps", "25"]
    message = error(script, *given, "--total-steps", "99")
    assert "--total-steps" in message and "--num-envs" in message
    assert script.parse_args([*given, "--total-steps", "100"]).total_steps == 100


@every_script
def test_an_unknown_flag_is_named(error, script):
    assert "--gama" in error(script, "--gama", "0.9")


@pytest.mark.parametrize(
    "flag", ["--vectorization", "--device", "--weight", "--optimizer"]
)
def test_a_wrong_choice_comes_with_the_right_ones(error, flag):
    message = error(reinforce, flag, "banana")
    right = str(vars(reinforce.parse_args([]))[flag.removeprefix("--")])
    assert flag in message and "banana" in message and right in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_cuda_device_is_an_error(error):
    assert "CUDA" in error(ppo_clip, "--device", "cuda")


# The run folder


def test_a_run_folder_that_is_not_empty_is_left_as_it_is(error, tmp_path):
    Path("notes").mkdir()
    Path("notes", "thesis.txt").write_text("do not touch")
    message = error(ppo_clip, "--run-dir", "notes")
    assert "notes" in message and "--run-dir" in message and "--resume" in message
    assert os.listdir("notes") == ["thesis.txt"]


def test_resuming_into_another_run_that_is_not_empty_is_an_error_too(error, saved):
    Path("other").mkdir()
    Path("other", "checkpoint.pt").write_text("another run's")
    message = error(reinforce, "--resume", saved, "--run-dir", "other")
    assert "other is not empty" in message
    assert Path("other", "checkpoint.pt").read_text() == "another run's"


def test_a_run_folder_that_is_a_file_is_an_error(error):
    Path("file").write_text("")
    assert "file" in error(ppo_clip, "--run-dir", "file")
    assert "file" in error(ppo_clip, "--run-dir", "file/run")


# Checkpoints


@pytest.mark.parametrize("flag", ["--evaluate", "--resume", "--watch"])
def test_a_missing_checkpoint_is_named(error, flag):
    assert "no/where.pt" in error(reinforce, flag, "no/where.pt")


@every_script
def test_two_checkpoints_at_a_time_are_an_error(error, script):
    two = [["--resume", "a", "--evaluate", "b"], ["--watch", "a", "--evaluate", "b"]]
    for given in two:
        message = error(script, *given)
        assert all(flag in message for flag in given[::2]) and "only one" in message


@pytest.mark.parametrize("flag", ["--evaluate", "--resume"])
def test_a_folder_is_no_checkpoint(error, flag, saved):
    assert error(reinforce, flag, saved.parent).startswith("cannot load run: ")


@pytest.mark.parametrize("flag", ["--evaluate", "--resume"])
def test_a_damaged_checkpoint_is_an_error(error, flag, saved):
    whole = saved.read_bytes()
    noise = np.random.default_rng(0).bytes(1000)
    for damaged in b"", noise, whole[: len(whole) // 2], whole[:-1], b"hello\n":
        Path("damaged.pt").write_bytes(damaged)
        assert error(reinforce, flag, "damaged.pt").startswith("cannot load damaged.pt")


@pytest.mark.parametrize("contents", [{}, [], 3.0, {"weights": [1.0]}], ids=str)
def test_another_programs_file_is_no_checkpoint(error, contents):
    torch.save(contents, "other.pt")
    assert error(reinforce, "--evaluate", "other.pt").startswith("cannot load other.pt")


@pytest.mark.parametrize("flag", ["--evaluate", "--resume"])
def test_a_checkpoint_of_another_script_is_named_with_that_script(error, flag, saved):
    message = error(ppo_clip, flag, saved)
    assert "reinforce.py" in message and "run/checkpoint.pt" in message


@pytest.mark.parametrize("flag", ["--evaluate", "--resume"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
def test_a_checkpoint_does_not_fit_an_environment_with_other_spaces(
    error, flag, env, saved
):
    """Pendulum-v1 has observations of the same length, but continuous actions."""
    before = saved.read_bytes()
    message = error(reinforce, flag, saved, "--env", env)
    assert message.startswith("cannot load run/checkpoint.pt")
    assert saved.read_bytes() == before


@pytest.mark.parametrize("script", [reinforce, vpg_baseline])
@pytest.mark.parametrize("first, other", [("adam", "sgd"), ("sgd", "adam")])
def test_a_run_can_not_go_on_with_another_optimizer(
    error, capsys, script, first, other
):
    """Adam has moments, which SGD has not."""
    script.train(script.parse_args(short_run(script, "--optimizer", first)))
    capsys.readouterr()
    before = Path("run/checkpoint.pt").read_bytes()
    more = ["--optimizer", other, "--total-steps", "900"]
    message = error(script, "--resume", "run/checkpoint.pt", *more)
    expected = f"it has no '{other}': give the flags of its run"
    assert message == f"cannot load run/checkpoint.pt: {expected}"
    assert Path("run/checkpoint.pt").read_bytes() == before


@every_script
def test_a_run_can_not_go_on_with_statistics_that_it_has_not_taken(
    error, capsys, script
):
    off = ["--no-normalize-observations", "--no-normalize-rewards"]
    script.train(script.parse_args(short_run(script, *off)))
    capsys.readouterr()
    for name, flag in [
        ("observation", "--normalize-observations"),
        ("return", "--normalize-rewards"),
    ]:
        message = error(script, "--resume", "run/checkpoint.pt", flag)
        assert message.startswith(f"cannot load run/checkpoint.pt: it has no '{name}'")


class Harmful:
    """Unpickling it as pickle does would write a file."""

    def __reduce__(self):
        return open, ("harm.txt", "w")


@pytest.mark.parametrize("flag", ["--evaluate", "--resume", "--watch"])
@pytest.mark.parametrize("as_torch_does", [False, True])
def test_code_in_a_checkpoint_is_not_executed(error, flag, as_torch_does):
    contents = {"script": "reinforce.py", "args": {}, "parts": Harmful()}
    if as_torch_does:
        torch.save(contents, "harmful.pt")
    else:
        Path("harmful.pt").write_bytes(pickle.dumps(contents))
    assert error(reinforce, flag, "harmful.pt").startswith("cannot load harmful.pt")
    assert not Path("harm.txt").exists()
    pickle.loads(pickle.dumps(Harmful())).close()  # it would have been harmful
    assert Path("harm.txt").exists()


# Numbers that are none, while training


def stopped_in(capsys, script, *argv):
    """The iteration in which main(argv) says that it stopped, and the message."""
    with pytest.raises(SystemExit) as stopped:
        script.main(list(argv))
    assert stopped.value.code == 2
    stderr = capsys.readouterr().err
    messages = re.findall(rf"{script.__name__}.py: (stopped in iteration .*)", stderr)
    assert len(messages) == 1 and "Traceback" not in stderr
    return int(re.search(r"\d+", messages[0])[0]), messages[0]


@every_script
def test_the_message_has_a_line_for_itself_below_the_progress_bar(script, capsys):
    with pytest.raises(SystemExit):
        script.main(short_run(script, "--learning-rate", "inf"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert "600" in lines[0]  # the bar, which goes to stderr too
    assert lines[-1].startswith(f"{script.__name__}.py: stopped in iteration 1; ")


def all_finite(contents):
    if isinstance(contents, dict):
        return all(all_finite(value) for value in contents.values())
    if isinstance(contents, list):
        return all(all_finite(value) for value in contents)
    return not isinstance(contents, torch.Tensor) or bool(contents.isfinite().all())


@pytest.mark.parametrize("broken, step", [("observation", 48), ("reward", 48)])
@every_script
def test_what_is_not_a_number_stops_the_run_and_spares_the_checkpoint(
    script, broken, step, capsys
):
    """The message names the iteration and what it was; the last checkpoint is good."""
    kwargs = json.dumps({"broken": broken, "step": step})
    given = short_run(script, "--env-kwargs", kwargs)
    iteration, message = stopped_in(capsys, script, *given)
    assert broken in message and "not finite" in message
    saved = torch.load("run/checkpoint.pt", weights_only=True)
    assert saved["state"]["iteration"] == iteration - 1 > 0
    assert all_finite(saved["parts"]) and all_finite(saved["statistics"])


@every_script
def test_a_final_observation_that_is_not_a_number_spares_the_checkpoint_too(
    script, capsys
):
    """No action depends on it, so the policy never sees it; the statistics do."""
    kwargs = json.dumps({"broken": "observation", "step": 50})
    given = short_run(script, "--env-kwargs", kwargs)
    iteration, message = stopped_in(capsys, script, *given)
    assert "observation" in message
    saved = torch.load("run/checkpoint.pt", weights_only=True)
    assert saved["state"]["iteration"] == iteration - 1 > 0
    assert all_finite(saved["parts"]) and all_finite(saved["statistics"])


@every_script
def test_a_first_observation_that_is_not_a_number_ends_train_in_one_line(
    script, capsys
):
    """Also where nothing but train() is called, as in a notebook."""
    kwargs = json.dumps({"broken": "observation", "step": 0})
    with pytest.raises(SystemExit) as stopped:
        script.train(script.parse_args(short_run(script, "--env-kwargs", kwargs)))
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "stopped in iteration" in last and "observation is not finite" in last


@pytest.mark.parametrize("learning_rate", ["1e10", "1e30", "1e300", "inf"])
@every_script
def test_a_huge_learning_rate_ends_in_advice_and_not_in_a_traceback(
    script, learning_rate, capsys
):
    given = ["--env", "CartPole-v1", "--learning-rate", learning_rate]
    iteration, message = stopped_in(capsys, script, *short_run(script, *given))
    assert iteration == 1 and "Try a lower --learning-rate" in message
    assert not Path("run/checkpoint.pt").exists()


# As a user starts it


@pytest.mark.parametrize(
    "script, argv",
    [
        ("reinforce", ["--env", "CartPol-v1"]),
        ("vpg_baseline", ["--baseline-epochs", "0"]),
        ("actor_critic", ["--resume", "nowhere.pt"]),
    ],
)
def test_a_process_with_bad_input_writes_one_line_and_ends_with_2(script, argv):
    command = [sys.executable, ROOT / f"{script}.py", *argv]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert process.stdout == ""
    assert one_line(importlib.import_module(script), process.stderr)
    assert os.listdir() == []  # nothing was begun
