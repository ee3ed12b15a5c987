"""Runs the long campaigns of tests/reliability and puts their counts into README.

    pip install hypothesis
    python benchmarks/reliability.py

The counts are kept in benchmarks/results/reliability.csv; README's table is made from
that file alone.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from lecture import Collector

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.csv"
BEGIN, END = "<!-- reliability: begin -->\n", "<!-- reliability: end -->"


def table():
    """README's table, as Markdown."""
    counts = defaultdict(list)
    with open(RESULTS, newline="") as file:
        for row in csv.DictReader(file):
            counts[row["quantity"]].append(int(row["value"]))
    total = {name: sum(values) for name, values in counts.items()}
    rows = [
        ("what was tried", "how often", "what came of it"),
        ("---", "---", "---"),
        (
            "SIGKILL at a random moment",
            total["kills"],
            "every checkpoint loads and the run goes on; at most "
            f"{max(counts['iterations_lost'])} iteration after it is lost",
        ),
        (
            "checkpoints with flipped bits, or cut off",
            total["files"],
            f"{total['refused']} refused in one line, the others load unharmed",
        ),
        (
            "command lines at random, with nonsense in them",
            total["command_lines"],
            f"{total['ran']} run, the others end in one line that names the flag",
        ),
        (
            "runs with strange numbers, or steps that are far too large",
            total["strange_runs"],
            "finite parameters in every checkpoint, or one line that says why not",
        ),
    ]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def filled(readme):
    """README's text with its table made anew."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def main():
    collector = Collector()
    options = ["-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    status = pytest.main(
        [*options, str(ROOT / "tests" / "reliability")], plugins=[collector]
    )
    if status:
        sys.exit(status)
    with open(RESULTS, "w", newline="") as file:
        csv.writer(file).writerows([("test", "quantity", "value"), *collector.rows])
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))


if __name__ == "__main__":
    main()
