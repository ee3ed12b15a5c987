"""README shows what the committed results say, and nothing else."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
sys.path.append(str(ROOT / "benchmarks"))


def test_the_reliability_table_is_that_of_the_results():
    assert importlib.import_module("reliability").filled(README) == README


def test_the_tables_of_learning_and_speed_are_those_of_the_results():
    for package in "matplotlib", "scipy":
        pytest.importorskip(package)
    assert importlib.import_module("report").filled(README) == README
