"""The same seed gives the same numbers, bit for bit, on one machine."""

import pytest
import torch
from runs import SCRIPTS, every_script, run, short
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def everything(folder):
    """All scalars but the speed, and the checkpoint but its flags."""
    events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    scalars = {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name != "time/steps_per_second"
    }
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    return scalars, {k: checkpoint[k] for k in ("state", "parts", "statistics")}


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@every_script
def test_async_and_sync_and_another_time_give_the_same_numbers(script, env, tmp_path):
    results = []
    for number, mode in enumerate(["sync", "sync", "async"]):
        folder = tmp_path / str(number)
        more = ["--env", env, "--vectorization", mode, "--max-episode-steps", "30"]
        assert run(script, *short(script, folder), *more)[0] == 0
        results.append(everything(folder))
    assert equal(results[0], results[1])
    assert equal(results[0], results[2])


@pytest.mark.parametrize("script", [SCRIPTS[0], SCRIPTS[3]], ids=lambda s: s.__name__)
def test_an_evaluation_in_between_changes_nothing(script, tmp_path):
    """It uses up no random numbers of the training that goes on after it."""
    results = []
    for number, interrupted in enumerate([False, True]):
        folder, original = tmp_path / str(number), script.log

        def log(*inputs, original=original, folder=folder, interrupted=interrupted):
            original(*inputs)
            path = folder / "checkpoint.pt"
            if interrupted and path.exists():
                args = script.parse_args(["--evaluate", str(path)])
                assert len(script.evaluate(args, path, greedy=False)) == 2

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(script, "log", log)
            assert run(script, *short(script, folder))[0] == 0
        results.append(everything(folder))
    assert equal(*results)


@every_script
def test_another_seed_gives_other_numbers(script, tmp_path):
    results = []
    for seed in "0", "1":
        folder = tmp_path / seed
        assert run(script, *short(script, folder), "--seed", seed)[0] == 0
        results.append(everything(folder)[1]["parts"]["policy"])
    assert not equal(*results)
    assert all(bool(p.isfinite().all()) for p in results[0].values())
