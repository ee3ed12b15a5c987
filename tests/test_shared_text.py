"""The five scripts are one text; from one to the next only the idea changes."""

import argparse
import ast
import re
from functools import cache

import pytest
from support import PARTIAL, ROOT, SCRIPTS, WHOLE, WITH_V, each, every_script

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

SOURCES = {script: (ROOT / f"{script.__name__}.py").read_text() for script in SCRIPTS}
TREES = {script: ast.parse(source) for script, source in SOURCES.items()}

DIFFERENT = ["ALGORITHM", "update", "train", "parse_args"]  # the idea is in these
SHARED = """
    Adam mlp Policy Rollout gradient_step STATS COMMANDS UsageError to_tensor
    check_finite set_seed OwnProcess make_envs open_log log save_checkpoint
    load_checkpoint evaluate number JSON main
""".split()
SOME = {  # these scripts have it, and in the same words
    "ValueFunction": WITH_V,
    "collect_trajectories": WHOLE,
    "collect_rollout": PARTIAL,
    "adapt_beta": [ppo_kl],
    "clipped_surrogate": [ppo_clip],
}
OWN_FLAGS = {
    reinforce: ["--weight", "--optimizer"],
    vpg_baseline: ["--optimizer", "--critic-epochs", "--normalize-advantages"],
    actor_critic: ["--advantage", "--n-steps", "--gae-lambda", "--rollout-steps"]
    + ["--critic-epochs", "--normalize-advantages"],
    ppo_kl: ["--beta", "--target-kl", "--epochs", "--minibatch-size", "--gae-lambda"]
    + ["--rollout-steps", "--normalize-advantages"],
    ppo_clip: ["--clip-epsilon", "--epochs", "--minibatch-size", "--gae-lambda"]
    + ["--rollout-steps", "--normalize-advantages"],
}


@cache
def definitions(script):
    """{name: text} of what a script defines at top level, in its order."""
    found, lines = {}, SOURCES[script].splitlines()
    for node in TREES[script].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign):
            name = getattr(node, "name", None) or node.targets[0].id
            found[name] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("name", [*SHARED, *SOME])
def test_what_scripts_share_is_the_same_text_in_each(name):
    scripts = SOME.get(name, SCRIPTS)
    assert len({definitions(script)[name] for script in scripts}) == 1


@every_script
def test_each_script_defines_what_its_algorithm_needs_and_nothing_else(script):
    some = [name for name, scripts in SOME.items() if script in scripts]
    assert set(definitions(script)) == {*SHARED, *some, *DIFFERENT}
    assert definitions(script)["ALGORITHM"] == f'ALGORITHM = "{script.__name__}"'


def test_definitions_stand_in_the_same_order_everywhere():
    """For each two scripts, those of their definitions that both have."""
    for left in SCRIPTS:
        for right in SCRIPTS:
            one, other = list(definitions(left)), list(definitions(right))
            assert [n for n in one if n in other] == [n for n in other if n in one]


def outside_of_definitions(script):
    """A script's other lines, but for its docstring and the two imports of its own."""
    kinds = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.Expr
    nodes = [node for node in TREES[script].body if isinstance(node, kinds)]
    inside = {line for n in nodes for line in range(n.lineno, n.end_lineno + 1)}
    lines = enumerate(SOURCES[script].splitlines(), start=1)
    rest = [line for number, line in lines if number not in inside and line.strip()]
    own = "from common import", "import copy"
    return [line for line in rest if not line.startswith(own)]


def test_all_other_text_is_the_same_too():
    """Imports, rulers between the sections, and the lines that start a script."""
    texts = [outside_of_definitions(script) for script in SCRIPTS]
    assert all(text == texts[0] for text in texts)
    assert sum(line.startswith("# ---") for line in texts[0]) == 3
    assert texts[0][-1].strip() == "main()"


# Flags


def parse_args_without_own_flags(script):
    """The statements of parse_args; those that only some scripts have are left out."""
    (function,) = ast.parse(definitions(script)["parse_args"]).body
    statements = [ast.unparse(node) for node in function.body]
    own = [*OWN_FLAGS[script], "weights =", "estimators =", "batch", "rollout"]
    return [text for text in statements if not any(word in text for word in own)]


def test_shared_flags_are_the_same_to_the_letter_kinds_help_and_defaults():
    texts = [parse_args_without_own_flags(script) for script in SCRIPTS]
    assert all(text == texts[0] for text in texts)
    assert len(texts[0]) > 25


def test_a_flag_that_two_scripts_have_has_the_same_default_in_both():
    """But rollout_steps: data is used once, or in many steps."""
    found = {}
    for script in SCRIPTS:
        args = vars(script.parse_args([]))
        assert script.__name__ in args.pop("run_dir")
        for name, default in args.items():
            found.setdefault(name, set()).add(repr(default))
    differing = {name for name, defaults in found.items() if len(defaults) > 1}
    assert differing == {"rollout_steps"}
    steps = [script.parse_args([]).rollout_steps for script in PARTIAL]
    assert steps[0] < steps[1] == steps[2]


def test_the_defaults_are_the_lectures_algorithms():
    args = reinforce.parse_args([])
    assert args.weight == "reward-to-go" and args.entropy_coefficient == 0
    args = actor_critic.parse_args([])
    assert args.advantage == "n-step" and args.n_steps == 5
    assert all(script.parse_args([]).normalize_advantages for script in WITH_V)


@every_script
def test_flags_have_help_texts_and_switches_turn_off(script, monkeypatch):
    """As argparse has them, and so as --help shows them, with its default."""
    found, add_argument = {}, argparse._ActionsContainer.add_argument

    def watched_add_argument(parser, *names, **options):
        found[names[-1]] = options
        return add_argument(parser, *names, **options)

    parent = argparse._ActionsContainer
    monkeypatch.setattr(parent, "add_argument", watched_add_argument)
    args = script.parse_args([])
    del found["--help"]
    assert len(found) == len(vars(args)) and set(OWN_FLAGS[script]) <= set(found)
    switches = []
    for flag, options in list(found.items()):
        name = flag.removeprefix("--").replace("-", "_")
        assert options["help"].strip() and hasattr(args, name)
        if getattr(args, name) is True:
            switches.append(name)
            off = script.parse_args(["--no-" + flag.removeprefix("--")])
            assert getattr(off, name) is False
    assert len(switches) >= 3


# Imports


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


def test_common_imports_numpy_alone_and_offers_five_functions():
    tree = ast.parse((ROOT / "common.py").read_text())
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in nodes] == ["import numpy as np"]
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    public = {name for name in functions if not name.startswith("_")}
    assert public == {
        "rewards_to_go",
        "n_step_returns",
        "generalized_advantages",
        "normalize",
        "explained_variance",
    }


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
    text = docstring(script).replace("--no-", "--")
    named = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]*)", text)}
    assert named <= set(vars(script.parse_args([])))
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
        words = set(re.findall(r"[A-Za-z_]+", without_flags)) - {"or", "by"}
        assert words <= names, row


@every_script
def test_the_docstring_ends_with_two_commands_that_parse(script):
    first, second = docstring(script).splitlines()[-2:]
    assert first.strip() == f"python {script.__name__}.py"
    python, name, *argv = second.split()
    assert (python, name) == ("python", f"{script.__name__}.py") and argv
    assert script.parse_args(argv)  # else it would exit


@each(SCRIPTS[1:])
def test_the_docstring_names_the_script_that_it_is_compared_with(script):
    before = SCRIPTS[SCRIPTS.index(script) - 1].__name__
    assert f"New compared with {before}.py" in docstring(script)


@every_script
def test_the_pseudocodes_numbered_steps_are_marked_in_the_code(script):
    """(1) in collect, (2) and on in update or, for β, in adapt_beta."""
    text = docstring(script)
    steps = re.findall(r"^ +\((\d)\) ", text, re.MULTILINE)
    assert steps == [str(i + 1) for i in range(len(steps))] and len(steps) >= 3
    code = "".join(definitions(script).values())
    for step in steps:
        assert f"({step})" in code
