"""The five scripts are one text; from one to the next only the idea changes."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from support import PARTIAL, PPOS, ROOT, SCRIPTS, WHOLE, WITH_V, every_script

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
    "--weight": [reinforce],
    "--optimizer": WHOLE,
    "--critic-epochs": [vpg_baseline, actor_critic],
    "--normalize-advantages": WITH_V,
    "--advantage": [actor_critic],
    "--n-steps": [actor_critic],
    "--gae-lambda": PARTIAL,
    "--rollout-steps": PARTIAL,
    "--epochs": PPOS,
    "--minibatch-size": PPOS,
    "--beta": [ppo_kl],
    "--target-kl": [ppo_kl],
    "--clip-epsilon": [ppo_clip],
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
    """In the order of ppo_clip.py."""
    some = [name for name, scripts in SOME.items() if script in scripts]
    assert set(definitions(script)) == {*SHARED, *some, *DIFFERENT}
    one, other = list(definitions(script)), list(definitions(SCRIPTS[-1]))
    assert [n for n in one if n in other] == [n for n in other if n in one]
    assert definitions(script)["ALGORITHM"] == f'ALGORITHM = "{script.__name__}"'


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
    own = [*OWN_FLAGS, "weights =", "estimators =", "args.rollout_steps"]
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
        folders = Path(args.pop("run_dir")).parts[:-1]
        assert folders == ("runs", "CartPole-v1", script.__name__)
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
def test_flags_have_help_texts_and_switches_turn_off(script):
    (function,) = ast.parse(definitions(script)["parse_args"]).body
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    flags = {}
    for call in calls:
        if ast.unparse(call.func) == "flag":
            options = {option.arg: option.value for option in call.keywords}
            flags[call.args[0].value] = options["help"].value
    args = script.parse_args([])
    assert len(flags) == len(vars(args)) and all(flags.values())
    for name, scripts in OWN_FLAGS.items():
        assert (name in flags) == (script in scripts)
    switches = [name for name, value in vars(args).items() if value is True]
    assert len(switches) >= 3
    for name in switches:
        off = script.parse_args(["--no-" + name.replace("_", "-")])
        assert vars(off)[name] is False


def test_scripts_import_common_alone_and_common_numpy_alone():
    own = {path.stem for path in ROOT.glob("*.py")} | {"tests", "benchmarks"}
    imports = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
    for source in SOURCES.values():
        assert set(imports.findall(source)) & own == {"common"}
    assert imports.findall((ROOT / "common.py").read_text()) == ["numpy"]


# Each docstring: objective, gradient, pseudocode, symbols, what is new, usage


def docstring(script):
    return ast.get_docstring(TREES[script])


@every_script
def test_the_docstrings_symbols_are_flags_and_names_in_the_code(script):
    """policy.distribution(obs) is a name, an attribute and a name, and so on."""
    paragraphs = docstring(script).split("\n\n")
    (table,) = (text for text in paragraphs if text.startswith("    π_θ(a|s)"))
    rows = [re.split(r" {2,}", row.strip())[1] for row in table.splitlines()]
    assert any("--" in row for row in rows)
    names = {"distribution"}
    for node in ast.walk(TREES[script]):
        if isinstance(node, ast.Name | ast.arg):
            names.add(node.id if isinstance(node, ast.Name) else node.arg)
    for row in rows:
        without_flags = re.sub(r"--[a-z][a-z-]*", "", row)
        words = set(re.findall(r"[A-Za-z_]+", without_flags)) - {"or", "by"}
        assert words <= names, row
    text = docstring(script).replace("--no-", "--")
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]*)", text)}
    assert flags <= set(vars(script.parse_args([])))


@every_script
def test_the_docstring_names_its_neighbour_and_two_commands_that_parse(script):
    first, second = docstring(script).splitlines()[-2:]
    assert first.strip() == f"python {script.__name__}.py"
    python, name, *argv = second.split()
    assert (python, name) == ("python", f"{script.__name__}.py") and argv
    assert script.parse_args(argv)  # else it would exit
    index = SCRIPTS.index(script)
    if index > 0:
        neighbour = SCRIPTS[index - 1].__name__
        assert f"New compared with {neighbour}.py" in docstring(script)


@every_script
def test_the_pseudocodes_numbered_steps_are_marked_in_the_code(script):
    """(1) in collect, (2) and on in update or, for β, in adapt_beta."""
    steps = re.findall(r"^ +\((\d)\) ", docstring(script), re.MULTILINE)
    assert steps == [str(i + 1) for i in range(len(steps))] and len(steps) >= 3
    code = "".join(definitions(script).values())
    for step in steps:
        assert f"({step})" in code
