"""Measures the sizes of the lecture's claims, and puts them into docs/lecture.md.

    python benchmarks/lecture.py

Runs tests/lecture with its slow tests, and keeps what they report in
benchmarks/results/lecture.csv. From that file and from the names of the tests come the
parts of docs/lecture.md between <!-- C1: begin --> and <!-- C1: end -->. The figures in
it are made by benchmarks/figures.py.
"""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "lecture"
PAGE = ROOT / "docs" / "lecture.md"
RESULTS = ROOT / "benchmarks" / "results" / "lecture.csv"

# {quantity} is what a test reports under this name; :row makes the cells of a table.
MEASURED = {
    "C2": """With V^π as the baseline, {C2_variance_with_V_over_without} of the variance
is left (median of ten problems with rewards of one sign). Where rewards have both
signs, b = 0 may happen to be better: V^π wins in
{C2_mixed_signs_problems_of_10_in_which_V_is_better} of 10 such problems.""",
    "C3": """The reward-to-go leaves {C3_variance_reward_to_go_over_total_return} of the
variance (mean of four problems).""",
    "C4": """Means of 20 problems:

| n | 1 | 2 | 3 | ∞ |
| --- | --- | --- | --- | --- |
| squared bias | {C4_squared_bias_by_n:row} |
| variance | {C4_variance_by_n:row} |

| λ | 0 | 0.25 | 0.5 | 0.75 | 1 |
| --- | --- | --- | --- | --- | --- |
| squared bias | {C4_squared_bias_by_lambda:row} |
| variance | {C4_variance_by_lambda:row} |""",
    "C6": """A step of 1 in θ:

| from θ = | {C6_theta:row} |
| --- | --- | --- | --- | --- | --- |
| KL divergence | {C6_kl_of_a_step_of_1:row} |
| change of π(1) | {C6_change_of_probability:row} |""",
    "C7": """Expected return J, lowest and highest of ten seeds. K = {C7_K} and
α = {C7_alpha}; J is {C7_J_at_the_start} at the start and {C7_J_at_the_top} at the top.

| | after the first batch | after eight batches |
| --- | --- | --- |
| one vanilla step of Kα | {C7_one_step:row} |
| K steps of α, bare ratio | {C7_bare:row} |
| K steps of α, clip | {C7_clip:row} |
| K steps of α, penalty | {C7_penalty:row} |""",
    "C11": """In {C11_pairs} random problems and pairs of policies the error is at most
{C11_largest_error_as_a_share_of_the_bound} of the bound. It falls with the square of
the distance: {C11_mean_error_at_steps_1_01_001_0001} for steps of 1, 0.1, 0.01 and
0.001 towards the new policy.""",
    "C14": """The first step, median of three problems:

| γ | {C14_gammas:row} |
| --- | --- | --- | --- |
| KL divergence | {C14_kl_of_first_step:row} |""",
    "C15": """Variance of the weights of two policies that differ by at most
{C15_largest_difference_of_a_probability} in any probability:

| horizon | {C15_horizons:row} |
| --- | --- | --- | --- | --- | --- | --- |
| whole trajectory | {C15_variance_of_product:row} |
| one step | {C15_variance_of_single_ratio:row} |""",
    "C17": """On CartPole-v1, for the first and the tenth update of three seeds, the top
of the clipped objective is at α = {C17_top_of_the_clipped_objective_at}.""",
    "C18": """On CartPole-v1, from an initial β of 0.01 and of 100, the KL divergence
reaches its band, or jumps over it, in iteration {C18_iterations_to_the_band[0]} and
{C18_iterations_to_the_band[1]}. The share of iterations at or above 1.5 δ is
{C18_share_that_violates[0]} and {C18_share_that_violates[1]}.""",
    "C19": """By default `ppo_kl.py` and `ppo_clip.py` take {C19_steps_on_a_batch[0]}
and {C19_steps_on_a_batch[1]} steps on a batch, the other scripts one. Return on
CartPole-v1 after {C19_environment_steps} environment steps, for three seeds:

| | many steps on a batch | one step on a batch |
| --- | --- | --- |
| `ppo_kl.py` | {C19_ppo_kl} | {C19_ppo_kl_one_step} |
| `ppo_clip.py` | {C19_ppo_clip} | {C19_ppo_clip_one_step} |
| `vpg_baseline.py` | | {C19_vpg_baseline} |
| `actor_critic.py`, smaller batches | | {C19_actor_critic} |""",
    "C20": """The best α along the gradient is {C20_best_alpha[0]} at θ = −4 and
{C20_best_alpha[1]} at θ = −1.5. Of the step sizes {C20_step_sizes}, these end near the
top on each of three seeds:

| | rewards as they are | rewards × 100 |
| --- | --- | --- |
| SGD | {C20_sgd:row} |
| SGD, normalised advantages | {C20_sgd_normalised:row} |
| Adam | {C20_adam:row} |
| Adam, normalised advantages | {C20_adam_normalised:row} |""",
    "C21": """Gradient ascent can end on the lower of two hills, with J =
{C21_J_where_gradient_ascent_stays} where {C21_J_of_the_global_optimum} is in reach
(quiz 1, statement 4).""",
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


class Values(list):
    """Values as text: with commas between them, or bars, as the cells of a table."""

    def __format__(self, kind):
        return (" | " if kind == "row" else ", ").join(map(format, self))


def shown(value):
    """A number as text, and a list as Values."""
    if isinstance(value, list):
        return Values(map(shown, value))
    text = value if isinstance(value, str) else f"{value:,.9f}".rstrip("0").rstrip(".")
    return text.replace("-", "−")


def read():
    """{quantity: Values} of the results; those of several tests follow each other."""
    figures = {}
    with open(RESULTS, newline="") as file:
        for row in csv.DictReader(file):
            value = json.loads(row["value"])
            values = value if isinstance(value, list) else [value]
            figures.setdefault(row["quantity"], Values()).extend(shown(values))
    return figures


def tests():
    """{claim: {file: names of its tests}}."""
    found = {}
    for path in sorted(TESTS.glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for claim, name in re.findall(r"^def test_(C\d+)_(\w+)", text, re.M):
            found.setdefault(claim, {}).setdefault(path.name, []).append(name)
    return found


def filled(text):
    """The text of docs/lecture.md with the parts of all claims made anew."""
    figures = read()
    for claim, files in tests().items():
        parts = []
        if claim in MEASURED:
            parts.append("**Measured.** " + MEASURED[claim].format(**figures))
        for file, names in files.items():
            names = [f"- {name.replace('_', ' ')}" for name in names]
            link = f"[{file}](../tests/lecture/{file})"
            parts.append("\n".join([f"**Shown by** {link}:", "", *names]))
        begin, end = f"<!-- {claim}: begin -->", f"<!-- {claim}: end -->"
        before, rest = text.split(begin)
        text = "\n\n".join([before + begin, *parts, end + rest.split(end)[1]])
    return text


def main():
    collector = Collector()
    options = ["-q", "-p", "no:cacheprovider", "-m", "slow or not slow", str(TESTS)]
    status = pytest.main(options, plugins=[collector])
    if status:
        sys.exit(status)
    with open(RESULTS, "w", newline="") as file:
        rows = [("test", "quantity", "value"), *collector.rows]
        csv.writer(file, lineterminator="\n").writerows(rows)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
