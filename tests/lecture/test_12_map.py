"""README's lecture map names what exists, and leaves out no claim that has a test."""

import importlib
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
sys.path.append(str(ROOT / "benchmarks"))
README = (ROOT / "README.md").read_text()
MAP = README.split("lecture map: begin")[1].split("lecture map: end")[0]
ROWS = {row[1]: row[0] for row in re.finditer(r"^\| ([SC]\d+) \|.*$", MAP, re.M)}
SYSTEMS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]


def sources():
    """{file name: text} of the tests in this folder."""
    return {path.name: path.read_text() for path in FOLDER.glob("test_*.py")}


def test_every_system_and_every_claim_with_a_test_has_its_row():
    tested = set(re.findall(r"def test_(C\d+)_", "".join(sources().values())))
    assert {f"S{k}" for k in range(1, 6)} | tested == set(ROWS)


def test_every_claim_of_the_lecture_has_a_test():
    assert {f"C{k}" for k in range(1, 22)} <= set(ROWS)


def test_what_readme_calls_measured_is_in_the_results():
    assert importlib.import_module("lecture").filled(README) == README


def test_every_claim_is_tested_in_the_files_of_its_row():
    for name, row in ROWS.items():
        files = re.findall(r"`(test_\w+\.py)`", row)
        assert files, name
        for file in files:
            text = sources()[file]
            if name.startswith("C"):
                assert f"def test_{name}_" in text, (name, file)
            else:  # a system: the test calls its script
                assert re.search(rf"\b{SYSTEMS[int(name[1]) - 1]}\b", text), (
                    name,
                    file,
                )


def test_every_function_in_the_map_exists():
    names = re.findall(r"`(\w+)\.(\w+)`", re.sub(r"`test_\w+\.py`", "", MAP))
    assert len(names) > 20
    for module, function in names:
        assert callable(getattr(importlib.import_module(module), function))


def test_every_claim_is_tested_on_the_code_that_its_row_names():
    """Its tests import it, or a script that calls it, so they could see it fail."""
    for name, row in ROWS.items():
        text = "".join(sources()[f] for f in re.findall(r"`(test_\w+\.py)`", row))
        imported = [x for x in SYSTEMS if re.search(rf"^import {x}$", text, re.M)]
        for module, function in re.findall(r"`(\w+)\.(\w+)`", row.split("|")[3]):
            modules = [importlib.import_module(x) for x in imported]
            callers = [x for x in modules if hasattr(x, function)]
            direct = re.search(rf"^(import|from) {module}\b", text, re.M)
            assert direct or (module == "common" and callers), (name, module, function)


def test_every_file_that_readme_names_exists():
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"\b((?:benchmarks|tests)/[\w/]*\w+\.\w+)\b", README):
        assert (ROOT / path).is_file(), path
