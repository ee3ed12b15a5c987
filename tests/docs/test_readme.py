"""README.md is short, and what it and the other pages show exists and works."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_of(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands():
    """[program, argument, ...] of every command in README."""
    text = "".join(code_of(README, "bash")).replace("\\\n", " ")
    for line in text.splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words:
                yield words


def test_readme_takes_three_minutes():
    assert len(README.split()) <= 1800


@each_page
def test_every_link_and_picture_leads_to_a_file_and_a_title_in_it(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match("https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), target
        if anchor:
            there = path.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
            anchors = [
                re.sub(r"[^\w -]", "", x).lower().replace(" ", "-") for x in titles
            ]
            assert anchor in anchors or f'<a id="{anchor}"></a>' in there, target


def test_every_command_names_a_file_that_exists_and_flags_that_are_accepted():
    found = 0
    for words in commands():
        if words[0] != "python" or words[1] == "-m":
            continue
        assert (ROOT / words[1]).is_file(), words
        if Path(words[1]).stem in SCRIPTS:
            module = importlib.import_module(Path(words[1]).stem)
            flags = [x for x in words[2:] if x.startswith("--")]
            known = module.parse_args([])
            for flag in flags:
                name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
                assert hasattr(known, name), flag
            found += len(flags)
    assert found > 10


def test_readme_s_environment_is_one_that_a_policy_can_improve_in(
    tmp_path, monkeypatch
):
    (code,) = [x for x in code_of(README, "python") if "gym.Env" in x]
    (tmp_path / "walk.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    script = importlib.import_module("ppo_clip")
    flags = ["--env", "walk:Walk-v0", "--total-steps", "20_000"]
    args = script.parse_args([*flags, "--run-dir", str(tmp_path / "run")])
    _, history = script.train(args)
    returns = [episode for _, episode in history]
    assert sum(returns[-40:]) > 0.7 * sum(returns[:40])  # both are below 0


def test_readme_s_notebook_runs(tmp_path, monkeypatch):
    (code,) = [x for x in code_of(README, "python") if "parse_args" in x]
    code = code.replace('"--seed", "1"', '"--total-steps", "2100"')
    assert "2100" in code
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert len(names["returns"]) == 10
    assert len(names["history"]) >= 1


def test_the_table_beyond_the_lecture_names_flags_and_functions_that_exist():
    table = README.split("## Beyond the lecture")[1].split("\n## ")[0]
    script = (ROOT / "ppo_kl.py").read_text(encoding="utf-8")
    sources = "".join((ROOT / f"{x}.py").read_text(encoding="utf-8") for x in SCRIPTS)
    for text in re.findall(r"`([^`]+)`", table):
        if text.startswith("--"):
            name = text.split()[0].removeprefix("--no-").removeprefix("--")
            assert f'flag("--{name}"' in sources, text
        elif not text.endswith(".py"):
            assert re.search(rf"^(def )?{text}\b", script, re.MULTILINE), text


def test_the_defaults_that_readme_names_are_those_of_the_scripts():
    args = importlib.import_module("vpg_baseline").parse_args([])
    table = README.split("## Beyond the lecture")[1].split("\n## ")[0]
    assert f"gradient norm at most {args.max_grad_norm}" in table
    assert f"Σσ² = {args.initial_variance}" in table
    assert f"γ = {args.gamma}" in table
    assert args.critic_epochs == 10 and "ten passes" in table
    assert args.entropy_coefficient == 0 and "off by default" in table


def test_the_tested_versions_are_within_what_is_required():
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {}
    for line in lines:
        if not line.startswith("#"):
            requirement = requirements.Requirement(line)
            (version,) = requirement.specifier
            assert version.operator == "==", line
            tested[requirement.name] = version.version
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            requirement = requirements.Requirement(line)
            assert tested[requirement.name] in requirement.specifier, line


@each_page
def test_formulas_survive_markdown(page):
    text = page.read_text(encoding="utf-8")
    assert r"\operatorname" not in text  # GitHub does not allow it
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        for formula in re.findall(r"\$`(.+?)`\$", row):
            assert "|" not in formula, formula  # it would end the cell
