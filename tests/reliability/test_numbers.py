"""Strange numbers: the run goes on with finite parameters, or stops and says why."""

import json
import math

import faulty  # noqa: F401  registers Faulty-v0
import pytest
import torch
from runs import SCRIPTS, every_script, run, scripts, short

GOES_ON = {
    "huge rewards": {"fault": "reward=1e30"},
    "huge rewards now and then": {"fault": "reward=1e30", "at": 150},
    "the smallest rewards": {"fault": "reward=1e-300"},
    "large observations": {"fault": "observation=1e10"},
    "huge observations": {"fault": "observation=1e30"},
    "constant observations": {"fault": "constant"},
    "episodes of one step": {"fault": "one_step"},
    "no rewards at all": {"fault": "no_rewards"},
}
STOPS = {
    "a NaN observation": ({"fault": "observation=nan", "at": 150}, "observation"),
    "an infinite observation": ({"fault": "observation=inf", "at": 150}, "observation"),
    "a NaN reward": ({"fault": "reward=nan", "at": 150}, "reward"),
    "an infinite reward": ({"fault": "reward=-inf", "at": 150}, "reward"),
}


FAST = (SCRIPTS[0], True), (SCRIPTS[4], False)
slow = pytest.mark.slow
FAST_AND_SLOW = [
    pytest.param(script, box, marks=[] if (script, box) in FAST else slow)
    for script in SCRIPTS
    for box in (False, True)
]


@pytest.fixture(autouse=True)
def counted(record_property):
    record_property("strange_runs", 1)


def all_finite(x):
    if isinstance(x, dict):
        return all(map(all_finite, x.values()))
    if isinstance(x, (list, tuple)):
        return all(map(all_finite, x))
    if isinstance(x, torch.Tensor):
        return bool(x.isfinite().all())
    return not isinstance(x, float) or math.isfinite(x)


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("name", GOES_ON)
@pytest.mark.parametrize("script, continuous", FAST_AND_SLOW)
def test_the_run_goes_on_with_finite_parameters(script, name, continuous, tmp_path):
    kwargs = json.dumps(GOES_ON[name] | {"continuous": continuous})
    status, message = run(script, *short(script, tmp_path), "--env-kwargs", kwargs)
    assert (status, message) == (0, "")
    saved = checkpoint(tmp_path)
    assert saved["state"]["steps"] >= 300
    for part in "state", "parts", "statistics":
        assert all_finite(saved[part])


@slow
@pytest.mark.parametrize("switch", ["rewards", "observations", "advantages"])
@pytest.mark.parametrize("fault", ["reward=1e30", "observation=1e30", "one_step"])
@every_script
def test_without_normalisation_it_goes_on_or_says_what_is_not_finite(
    script, fault, switch, tmp_path
):
    kwargs = json.dumps({"fault": fault})
    more = ["--env-kwargs", kwargs, f"--no-normalize-{switch}"]
    status, message = run(script, *short(script, tmp_path), *more)
    if status:
        assert status == 2 and "stopped in iteration" in message
        assert " is nan" in message or " is inf" in message
    if (tmp_path / "checkpoint.pt").exists():
        assert all_finite(checkpoint(tmp_path)["parts"])


@pytest.mark.parametrize("name", STOPS)
@scripts(fast=[SCRIPTS[0], SCRIPTS[3]])
def test_the_run_stops_and_names_what_is_not_finite(script, name, tmp_path):
    kwargs, what = STOPS[name]
    more = ["--env-kwargs", json.dumps(kwargs)]
    status, message = run(script, *short(script, tmp_path), *more)
    assert status == 2
    assert f"the environment's {what} is not finite" in message
    assert "stopped in iteration" in message
    assert all_finite(checkpoint(tmp_path)["parts"])  # of the iteration before


@slow
@pytest.mark.parametrize("script", SCRIPTS[2:], ids=lambda s: s.__name__)
def test_episodes_that_never_end_are_no_problem_to_partial_trajectories(
    script, tmp_path
):
    more = ["--env-kwargs", '{"fault": "never_ends"}']
    more += ["--eval-episodes", "1"]
    stopped, message = run(script, *short(script, tmp_path), *more)
    assert (
        stopped == 2 and "--max-episode-steps" in message
    )  # its evaluation has no end
    assert all_finite(checkpoint(tmp_path)["parts"])


@every_script
def test_minibatches_of_one_row_work(script, tmp_path):
    more = ["--minibatch-size", "1"] if script.SCRIPT.startswith("ppo") else []
    given = [*short(script, tmp_path), "--num-envs", "1", "--total-steps", "60"]
    assert run(script, *given, *more, "--env-kwargs", '{"fault": "one_step"}')[0] == 0
    assert all_finite(checkpoint(tmp_path)["parts"])


@pytest.mark.parametrize("script", SCRIPTS[2:], ids=lambda s: s.__name__)
def test_the_shortest_rollouts_work_though_half_of_their_rows_are_resets(
    script, tmp_path
):
    more = ["--num-envs", "1", "--rollout-steps", "2", "--total-steps", "60"]
    given = [*short(script, tmp_path), *more, "--env-kwargs", '{"fault": "one_step"}']
    assert run(script, *given) == (0, "")
    assert all_finite(checkpoint(tmp_path)["parts"])


@pytest.mark.parametrize("rate", ["1e6", "1e20"])
@scripts(fast=[SCRIPTS[1], SCRIPTS[4]])
def test_a_huge_learning_rate_never_leaves_a_checkpoint_that_is_not_finite(
    script, rate, tmp_path
):
    more = ["--learning-rate", rate, "--checkpoint-every", "1"]
    huge_steps(script, tmp_path, more)


@pytest.mark.parametrize("rate", ["1e6", "1e20"])
@scripts(fast=[SCRIPTS[1]], scripts=SCRIPTS[:2])
def test_nor_does_one_without_Adam(script, rate, tmp_path):
    more = ["--learning-rate", rate, "--checkpoint-every", "1", "--optimizer", "sgd"]
    huge_steps(script, tmp_path, more)


def huge_steps(script, tmp_path, more):
    status, message = run(script, *short(script, tmp_path), *more)
    assert status in (0, 2)
    if status == 2:
        assert "stopped in iteration" in message and "--learning-rate" in message
    if (tmp_path / "checkpoint.pt").exists():
        assert all_finite(checkpoint(tmp_path)["parts"])
