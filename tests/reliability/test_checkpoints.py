"""Damaged and strange files: refused in one line, or they load as they were saved."""

import random

import pytest
import torch
from runs import SCRIPTS, run, short

FLIPS, CUTS = 30, 10  # in the fast test, for each of two scripts


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{script: the bytes of a checkpoint of its}."""
    contents = {}
    for script in SCRIPTS:
        folder = tmp_path_factory.mktemp(script.__name__)
        given = [*short(script, folder), "--hidden-sizes", "4"]
        assert run(script, *given) == (0, "")
        contents[script] = (folder / "checkpoint.pt").read_bytes()
    return contents


def mutated(contents, rng, kind):
    """The file with one to eight bits flipped, or cut off somewhere."""
    if kind == "cut":
        return contents[: rng.randrange(len(contents))]
    changed = bytearray(contents)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def try_mutations(script, contents, folder, rng, flips, cuts):
    """How many of the files were refused with one line; the others load unchanged."""
    path, original, refused = folder / "checkpoint.pt", folder / "original.pt", 0
    original.write_bytes(contents)
    expected = script.load_checkpoint(original)
    for kind in ["flip"] * flips + ["cut"] * cuts:
        path.write_bytes(mutated(contents, rng, kind))
        status, message = run(script, "--evaluate", path, "--eval-episodes", "1")
        assert status in (0, 2)
        if status == 2:
            assert "cannot load" in message and str(path) in message
            refused += 1
        else:  # a bit in the file's padding
            assert equal(script.load_checkpoint(path), expected)
    return refused


@pytest.mark.parametrize("script", [SCRIPTS[0], SCRIPTS[3]], ids=lambda s: s.__name__)
def test_damaged_checkpoints_are_refused_or_load_as_they_were(script, saved, tmp_path):
    rng = random.Random(0)
    refused = try_mutations(script, saved[script], tmp_path, rng, FLIPS, CUTS)
    assert refused > (FLIPS + CUTS) / 2


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_five_hundred_damaged_checkpoints(script, saved, tmp_path, record_property):
    rng = random.Random(1)
    refused = try_mutations(script, saved[script], tmp_path, rng, flips=80, cuts=20)
    record_property("files", 100)
    record_property("refused", refused)
    assert refused > 50


@pytest.mark.parametrize("contents", [b"", b"PK", b"\x80\x04.", bytes(range(256)) * 40])
def test_files_that_are_no_checkpoint_are_refused(contents, tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(contents)
    for flag in "--evaluate", "--resume", "--watch":
        status, message = run(SCRIPTS[4], flag, path)
        assert status == 2 and "cannot load" in message


def changed(contents, folder, change):
    """A checkpoint with something else in it, saved as torch saves it."""
    path = folder / "checkpoint.pt"
    path.write_bytes(contents)
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("key", ["script", "args", "state", "parts", "statistics"])
def test_a_file_without_a_part_is_refused_and_the_part_named(key, saved, tmp_path):
    path = changed(saved[SCRIPTS[4]], tmp_path, lambda checkpoint: checkpoint.pop(key))
    status, message = run(SCRIPTS[4], "--evaluate", path)
    assert status == 2 and key in message


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("num_envs", -3, "--num-envs"),
        ("gamma", "much", "--gamma"),
        ("hidden_sizes", [4, "x"], "--hidden-sizes"),
        ("env", "NoSuchEnvironment-v0", "NoSuchEnvironment"),
        ("flag_of_another_version", 1, "--flag-of-another-version"),
    ],
)
def test_flags_in_a_file_are_checked_as_typed_ones_are(
    name, value, says, saved, tmp_path
):
    def change(checkpoint):
        checkpoint["args"][name] = value

    path = changed(saved[SCRIPTS[4]], tmp_path, change)
    status, message = run(SCRIPTS[4], "--evaluate", path)
    assert status == 2 and says in message
