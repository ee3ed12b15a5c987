"""The five scripts are one text; from one to the next only the idea changes."""

import argparse
import ast
import difflib
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
SOURCES = {script: (ROOT / f"{script}.py").read_text() for script in SCRIPTS}
TREES = {script: ast.parse(source) for script, source in SOURCES.items()}

SHARED = dict.fromkeys(
    [
        "mlp",
        "Policy",
        "gradient_step",
        "Adam",
        "CheckedEnvs",
        "make_envs",
        "to_tensor",
        "iteration_seed",
        "open_log",
        "log",
        "save_checkpoint",
        "load_checkpoint",
        "evaluate",
        "number",
        "saved_flags",
        "fail",
        "main",
    ],
    SCRIPTS,
)
SHARED["ValueFunction"] = SCRIPTS[1:]
SHARED["collect_trajectories"] = SCRIPTS[:2]
SHARED["collect_rollout"] = SCRIPTS[2:]

OWN = {  # besides these, what each script must define under this name
    "reinforce": [],
    "vpg_baseline": [],
    "actor_critic": [],
    "ppo_kl": ["surrogate", "adapt_beta"],
    "ppo_clip": ["clipped_surrogate"],
}

COMMON_FLAGS = """
    --env --env-kwargs --max-episode-steps --seed --total-steps --num-envs
    --vectorization --device --run-dir --eval-episodes --checkpoint-every --resume
    --evaluate --watch --video --gamma --learning-rate --anneal-learning-rate
    --hidden-sizes --initial-variance --max-grad-norm --entropy-coefficient
    --normalize-observations --normalize-rewards --normalize-advantages
""".split()
TRAJECTORIES = ["--weight", "--optimizer"]
PPO = ["--rollout-steps", "--gae-lambda", "--epochs", "--minibatch-size"]
OWN_FLAGS = {
    "reinforce": TRAJECTORIES,
    "vpg_baseline": TRAJECTORIES + ["--baseline-epochs", "--baseline-learning-rate"],
    "actor_critic": ["--rollout-steps", "--critic-epochs", "--n-steps", "--gae-lambda"],
    "ppo_kl": PPO + ["--beta", "--target-kl"],
    "ppo_clip": PPO + ["--clip-epsilon"],
}

every_script = pytest.mark.parametrize("script", SCRIPTS)


@cache
def definitions(script):
    """{name: source} of the functions and classes of a script, in their order."""
    return {
        node.name: ast.get_source_segment(SOURCES[script], node)
        for node in TREES[script].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def flag_calls(script):
    """The calls of flag() in a script's parse_args, in their order."""
    (parse_args,) = (
        node
        for node in TREES[script].body
        if isinstance(node, ast.FunctionDef) and node.name == "parse_args"
    )
    return [
        node.value
        for node in parse_args.body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "flag"
    ]


def flag_names(script):
    return [ast.literal_eval(call.args[0]) for call in flag_calls(script)]


@pytest.mark.parametrize("name", SHARED)
def test_shared_definitions_are_the_same_text_wherever_they_stand(name):
    versions = {definitions(script)[name] for script in SHARED[name]}
    assert len(versions) == 1


@every_script
def test_each_script_defines_what_its_algorithm_needs_and_nothing_else(script):
    expected = {name for name, scripts in SHARED.items() if script in scripts}
    expected |= {"update", "train", "parse_args", *OWN[script]}
    assert set(definitions(script)) == expected


def test_definitions_stand_in_the_same_order_everywhere():
    """For each two scripts, those of their definitions that both have."""
    for left in SCRIPTS:
        for right in SCRIPTS:
            one, other = list(definitions(left)), list(definitions(right))
            assert [n for n in one if n in other] == [n for n in other if n in one]


@every_script
def test_the_first_block_of_flags_is_the_same_but_for_its_defaults(script):
    """Same flags, same kinds, same help, same order, up to --normalize-advantages."""
    blocks = []
    for one in SCRIPTS[0], script:
        block = []
        for call in flag_calls(one)[: len(COMMON_FLAGS)]:
            name, _, *rest = call.args  # the default is left out
            block.append([ast.unparse(part) for part in [name, *rest, *call.keywords]])
        blocks.append(block)
    assert blocks[0] == blocks[1]


@every_script
def test_each_script_has_exactly_its_flags(script):
    assert flag_names(script)[: len(COMMON_FLAGS)] == COMMON_FLAGS
    assert flag_names(script)[len(COMMON_FLAGS) :] == OWN_FLAGS[script]


@every_script
def test_each_flag_has_a_help_text_and_a_default(script, monkeypatch):
    """As argparse has them, and so as --help shows them."""
    found, add_argument = {}, argparse.ArgumentParser.add_argument

    def watched_add_argument(parser, *names, **options):
        found[names[-1]] = options
        return add_argument(parser, *names, **options)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", watched_add_argument)
    args = importlib.import_module(script).parse_args([])
    del found["--help"]
    assert list(found) == flag_names(script)
    for name, options in found.items():
        text, _, default = options["help"].partition(" (default: ")
        assert text.strip() and default == "%(default)s)"
        assert hasattr(args, name.removeprefix("--").replace("-", "_"))
    switches = [
        name for name in found if getattr(args, name[2:].replace("-", "_")) is True
    ]
    assert "--anneal-learning-rate" in switches
    for name in switches:  # on/off flags can be turned off
        off = importlib.import_module(script).parse_args(["--no-" + name[2:]])
        assert getattr(off, name[2:].replace("-", "_")) is False


def changed_lines(left, right):
    """Lines added and removed from one script to the next, its docstring left out."""
    bodies = []
    for script in left, right:
        docstring = TREES[script].body[0]
        bodies.append(SOURCES[script].splitlines()[docstring.end_lineno :])
    return sum(
        line[:1] in "+-" and line[:3] not in ("+++", "---")
        for line in difflib.unified_diff(*bodies, n=0, lineterm="")
    )


@pytest.mark.parametrize("left, right", list(zip(SCRIPTS[:-1], SCRIPTS[1:])))
def test_neighbours_differ_in_at_most_80_lines(left, right):
    count = changed_lines(left, right)
    print(f"{left}.py -> {right}.py: {count} changed lines")
    assert 0 < count <= 80


@every_script
def test_scripts_import_nothing_of_the_project_but_common(script):
    own = {path.stem for path in ROOT.glob("*.py")} | {"tests", "benchmarks"}
    imported = set()
    for node in ast.walk(TREES[script]):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    assert imported & own == {"common"}


def test_common_imports_nothing_of_the_project():
    tree = ast.parse((ROOT / "common.py").read_text())
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in nodes] == ["import numpy as np"]


@pytest.mark.parametrize("name", [*SCRIPTS, "common"])
def test_no_line_is_longer_than_88_characters(name):
    lines = (ROOT / f"{name}.py").read_text().splitlines()
    assert [line for line in lines if len(line) > 88] == []


# Each docstring: objective, gradient, pseudocode, symbols, what is new, usage


def docstring(script):
    return ast.get_docstring(TREES[script])


def symbols(script):
    """The right-hand column of the docstring's table of symbols."""
    (table,) = (
        paragraph
        for paragraph in docstring(script).split("\n\n")
        if paragraph.startswith("    π_θ(a|s)")
    )
    return [re.split(r" {2,}", row.strip())[1] for row in table.splitlines()]


@every_script
def test_the_docstring_names_flags_that_exist(script):
    named = re.findall(r"--[a-z][a-z-]*", docstring(script))
    assert named and set(named) <= set(flag_names(script))
    assert any("--" in row for row in symbols(script))


@every_script
def test_the_docstrings_symbols_are_names_in_the_code(script):
    """policy.distribution(obs) is a name, an attribute and a name, and so on."""
    names = {"distribution"}
    for node in ast.walk(TREES[script]):
        if isinstance(node, ast.Name | ast.arg):
            names.add(node.id if isinstance(node, ast.Name) else node.arg)
    for row in symbols(script):
        without_flags = re.sub(r"--[a-z][a-z-]*", "", row)
        for word in re.findall(r"[A-Za-z_]+", without_flags):
            assert word in names, row


@every_script
def test_the_docstring_ends_with_two_commands_that_parse(script):
    first, second = docstring(script).splitlines()[-2:]
    assert first.strip() == f"python {script}.py"
    python, name, *argv = second.split()
    assert (python, name) == ("python", f"{script}.py") and argv
    assert importlib.import_module(script).parse_args(argv)  # else it would exit


@every_script
def test_the_pseudocodes_numbered_steps_are_marked_in_the_code(script):
    """(1) in collect, (2) and on in update or, for β, in adapt_beta."""
    text = docstring(script)
    steps = re.findall(r"^        \((\d)\) ", text, re.MULTILINE)
    assert steps == [str(i + 1) for i in range(len(steps))] and len(steps) >= 3
    code = "".join(definitions(script).values())
    for step in steps:
        assert f"({step})" in code
