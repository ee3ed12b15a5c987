"""Measures the sizes of the lecture's claims and puts them into README's lecture map.

    python benchmarks/lecture.py

Runs tests/lecture and keeps what its tests report in benchmarks/results/lecture.csv;
README's column "measured" is made from that file alone.
"""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "lecture.csv"
BEGIN, END = "<!-- lecture map: begin -->", "<!-- lecture map: end -->"
MEASURED = {
    "C2": "V^π leaves {C2_variance_with_V_over_without} of the variance (median of 15)",
    "C3": "G_t leaves {C3_variance_reward_to_go_over_total_return} of the variance "
    "(mean of 5)",
    "C4": "n = 1, 2, 3, ∞: bias² {C4_squared_bias_by_n}, variance {C4_variance_by_n}"
    "; [figure](benchmarks/figures/bias_variance.png)",
    "C6": "KL of Δθ = 1 at θ = 0, 2, 4, 6, 8: {C6_kl_of_a_step_of_1}"
    "; [figure](benchmarks/figures/sigmoid.png)",
    "C7": "J from {C7_J_at_the_start} to {C7_J_after_one_large_step} in one step; "
    "{C7_J_with_small_steps_and_the_clip} and "
    "{C7_J_with_small_steps_and_the_KL_penalty} by small steps with the clip and the "
    "penalty, which end at the top on {C7_seeds_of_ten_that_end_at_the_top} of ten "
    "seeds; without them the same steps fall to {C7_least_J_without}"
    "; [figure](benchmarks/figures/collapse.png)",
    "C11": "the error is at most {C11_largest_error_as_a_share_of_the_bound} of the "
    "bound, {C11_pairs} pairs",
    "C14": "KL of the step for γ = 0.5, 0.8, 0.95: {C14_kl_of_first_step}",
    "C15": "variance for T = 1, 10, 100, 200, 500, 1000: {C15_variance_of_product}; "
    "of one step's ratio {C15_variance_of_single_ratio}"
    "; [figure](benchmarks/figures/importance_weights.png)",
    "C16": "[figure](benchmarks/figures/clip.png)",
    "C17": "top at {C17_maximum_of_the_clipped_objective_at} of the way to θ_{{k+1}}"
    "; [figure](benchmarks/figures/interpolation.png)",
    "C18": "reaches the band, or leaps over it, in {C18_iterations_to_the_band} "
    "iterations from β_0 = 0.01 and 100; {C18_share_that_violates} violate",
    "C19": "steps a batch, by default: 1, PPOs {C19_steps_on_a_batch}; return after "
    "30,000 environment steps: PPOs {C19_return}, with one step on a batch "
    "{C19_return_of_one_step}; vanilla policy gradient {C19_return_of_vpg_baseline}, "
    "actor-critic, whose batches are an eighth, {C19_return_of_actor_critic}",
    "C20": "best α at θ = −4 and −1.5: {C20_best_alpha}",
}


class Collector:
    """A pytest plugin: keeps what the tests report."""

    def __init__(self):
        self.rows = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            test = report.nodeid.split("/")[-1]
            for name, value in report.user_properties:
                self.rows.append((test, name, json.dumps(value, default=float)))


def read():
    """{name: value, as text} of the results; values of one name in a row."""
    figures = {}
    with open(RESULTS, newline="") as file:
        for row in csv.DictReader(file):
            values = json.loads(row["value"])
            values = values if isinstance(values, list) else [values]
            shown = [f"{x:,.0f}" if x >= 1000 else str(x) for x in values]
            figures.setdefault(row["quantity"], []).extend(shown)
    return {name: ", ".join(shown).replace("-", "−") for name, shown in figures.items()}


def filled(readme):
    """README's text with the last column of its lecture map made anew."""
    before, rest = readme.split(BEGIN)
    table, after = rest.split(END)
    figures, lines = read(), []
    for line in table.split("\n"):
        name = re.match(r"\| ([SC]\d+) \|", line)
        if name:
            measured = MEASURED.get(name[1], "").format(**figures)
            line = " |".join([*line.split(" |")[:4], f" {measured}".rstrip(), ""])
        lines.append(line)
    return before + BEGIN + "\n".join(lines) + END + after


def main():
    collector = Collector()
    options = ["-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    options += [str(ROOT / "tests" / "lecture")]
    skip = ["--ignore", str(ROOT / "tests" / "lecture" / "test_12_map.py")]
    status = pytest.main([*options, *skip], plugins=[collector])
    if status:
        sys.exit(status)
    with open(RESULTS, "w", newline="") as file:
        csv.writer(file).writerows([("test", "quantity", "value"), *collector.rows])
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))


if __name__ == "__main__":
    main()
