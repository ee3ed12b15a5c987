"""docs/lecture.md names what exists, and leaves out no claim that has a test."""

import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "lecture"
sys.path.append(str(ROOT / "benchmarks"))
PAGE = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
NAMES = [f"S{k}" for k in range(1, 6)] + [f"C{k}" for k in range(1, 22)]
SECTIONS = {part[: part.index(":")]: part for part in PAGE.split("\n### ")[1:]}
SYSTEMS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]


def sources():
    """{file name: text} of the lecture's tests."""
    paths = TESTS.glob("test_*.py")
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def code(section):
    """(module, function) of what the section says about the code."""
    return re.findall(r"\[`(\w+)\.(\w+)`\]\(\.\./\1\.py\)", section)


def test_every_system_and_every_claim_has_a_section_and_every_claim_a_test():
    tested = set(re.findall(r"def test_(C\d+)_", "".join(sources().values())))
    assert list(SECTIONS) == NAMES
    assert tested == set(NAMES[5:])


def test_the_sizes_and_the_names_of_the_tests_on_the_page_are_those_of_today():
    assert importlib.import_module("lecture").filled(PAGE) == PAGE


def test_every_function_on_the_page_exists_and_is_used_by_the_tests_of_its_claim():
    for name, section in SECTIONS.items():
        assert code(section), name
        text = "".join(sources()[f] for f in re.findall(r"\[(test_\w+\.py)\]", section))
        text += (TESTS / "measured.py").read_text(encoding="utf-8")
        imported = [x for x in SYSTEMS if re.search(rf"^import {x}$", text, re.M)]
        for module, function in code(section):
            assert callable(getattr(importlib.import_module(module), function))
            # the tests import it, or a script that calls it: they could see it fail
            modules = [importlib.import_module(x) for x in imported]
            called = module == "common" and any(hasattr(x, function) for x in modules)
            direct = re.search(rf"^(import|from) {module}\b", text, re.M)
            assert called or direct or name.startswith("S"), (name, module, function)


def test_formulas_are_written_so_that_GitHub_shows_them():
    # in a block, or inside $`...`$: elsewhere Markdown takes backslashes for its own
    outside = re.sub(r"```math\n.*?\n```|\$`[^`]*`\$", "", PAGE, flags=re.DOTALL)
    assert "$" not in outside and "\\" not in outside
