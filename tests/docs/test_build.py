"""docs/index.html: it is up to date, complete, and asks for nothing outside itself."""

import csv
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

for module in ("tomllib", "jinja2", "latex2mathml", "pygments"):
    pytest.importorskip(module, reason="docs/build.py needs it")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import build  # noqa: E402

SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
PAIRS = list(zip(SCRIPTS[:-1], SCRIPTS[1:]))
VOID = {"meta", "link", "br"}


class Node:
    """An element of the page: enough of a tree to ask what the tests ask."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.children = []  # nodes and texts

    @property
    def classes(self):
        return self.attributes.get("class", "").split()

    def text(self, without=()):
        """The text; of elements with a tag or class in without, nothing."""
        parts = []
        for child in self.children:
            if isinstance(child, str):
                parts.append(child)
            elif not {child.tag, *child.classes} & set(without):
                parts.append(child.text(without))
        return "".join(parts)

    def find(self, tag=None, cls=None, id=None):
        """All elements below this one with this tag, class and id, in order."""
        for child in self.children:
            if not isinstance(child, str):
                if (
                    tag in (None, child.tag)
                    and (cls is None or cls in child.classes)
                    and id in (None, child.attributes.get("id"))
                ):
                    yield child
                yield from child.find(tag, cls, id)

    def below(self, cls):
        return cls in self.classes or (self.parent and self.parent.below(cls))


class Tree(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.root = self.node = Node("root", [], None)
        self.feed(html)
        assert self.node is self.root, f"<{self.node.tag}> is not closed"

    def handle_starttag(self, tag, attributes):
        node = Node(tag, attributes, self.node)
        self.node.children.append(node)
        if tag not in VOID:
            self.node = node

    def handle_startendtag(self, tag, attributes):
        self.node.children.append(Node(tag, attributes, self.node))

    def handle_endtag(self, tag):
        assert tag == self.node.tag, f"</{tag}> closes <{self.node.tag}>"
        self.node = self.node.parent

    def handle_data(self, data):
        self.node.children.append(data)


@pytest.fixture(scope="module")
def html():
    return build.build()


@pytest.fixture(scope="module")
def page(html):
    return Tree(html).root


def only(nodes):
    (node,) = nodes
    return node


def lines_of(pre):
    return [node for node in pre.children if not isinstance(node, str)]


def numbers_of(pre):
    """The numbers that style.css counts out to the lines, from --n on."""
    count = int(pre.attributes["style"].removeprefix("--n:"))
    for line in lines_of(pre):
        count += line.tag != "i"
        yield count


def source_lines(name):
    return (ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines()


def rows_of(columns):
    """(left, right) elements of two columns; a gap is an element <i>."""
    old, new = (lines_of(pre) for pre in columns.find("pre"))
    assert len(old) == len(new) == int(columns.attributes["style"].split(":")[1])
    return list(zip(old, new))


def all_columns(page):
    return list(page.find("div", "columns"))


def test_the_committed_page_is_what_build_makes(html):
    committed = (ROOT / "docs" / "index.html").read_text(encoding="utf-8")
    assert committed == html, "docs/index.html is out of date: python docs/build.py"


def test_the_page_asks_for_nothing_outside_the_repository(page):
    for node in page.find():
        assert node.tag not in ("script", "img", "iframe", "object", "embed")
        for name, value in node.attributes.items():
            assert not name.startswith("on") and name not in ("src", "action")
            assert "//" not in value and "url(" not in value
    assert [node.attributes["href"] for node in page.find("link")] == ["data:,"]
    style = only(page.find("style")).text()
    assert "url(" not in style and "@import" not in style and "//" not in style


def test_every_link_leads_to_a_place_on_the_page_or_to_a_file_of_the_repository(page):
    ids = [node.attributes["id"] for node in page.find() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    links = [node.attributes["href"] for node in page.find("a")]
    assert len(links) > 100
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids, link
        else:
            assert (ROOT / "docs" / link).resolve().is_relative_to(ROOT), link
            assert (ROOT / "docs" / link).is_file(), link


def test_the_row_of_steps_leads_to_five_scripts_and_common(page):
    links = [link.attributes["href"] for link in only(page.find("nav")).find("a")]
    assert links == [f"#step-{name}" for name in [*SCRIPTS, "common"]]


@pytest.mark.parametrize("left, right", PAIRS)
def test_a_pair_shows_both_scripts_line_by_line(page, left, right):
    section = only(page.find("section", id=f"step-{right}"))
    assert [h.text() for h in section.find("h3")][:2] == [f"{left}.py", f"{right}.py"]
    rows = []
    for columns in section.find("div", "columns"):
        if not columns.below("slide"):
            rows += rows_of(columns)
    for side, name in enumerate((left, right)):
        lines = [row[side].text() for row in rows if row[side].tag != "i"]
        assert lines == source_lines(name)
    for pre in section.find("pre"):
        name = left if "old" in pre.classes else right
        for number, line in zip(numbers_of(pre), lines_of(pre)):
            assert line.tag == "i" or line.text() == source_lines(name)[number - 1]
    for old, new in rows:
        gap = "i" in (old.tag, new.tag)
        differs = gap or old.text() != new.text()
        for line in (old, new):
            assert ("x" in line.classes) == (differs and line.tag != "i")


@pytest.mark.parametrize("left, right", PAIRS)
def test_what_is_folded_is_the_same_in_both_and_says_how_long_it_is(page, left, right):
    section = only(page.find("section", id=f"step-{right}"))
    docstrings, *folds = section.find("details")
    assert "docstrings" in only(docstrings.find("summary")).text()
    assert len(folds) > 3
    for fold in folds:
        rows = rows_of(only(fold.find("div", "columns")))
        summary = only(fold.find("summary")).text()
        assert summary.startswith(f"{len(rows)} lines, the same in both")
        assert all(old.text() == new.text() for old, new in rows)
        names = [name.text() for name in only(fold.find("summary")).find("code")]
        text = "\n".join(old.text() for old, _ in rows)
        assert names == re.findall(r"^(?:class|def) (\w+)", text, re.MULTILINE)


def test_what_two_lines_share_is_what_is_left_without_the_marks(page):
    marked = 0
    for columns in all_columns(page):
        for old, new in rows_of(columns):
            if list(old.find("del")) or list(new.find("ins")):
                marked += 1
                assert old.text(["del"]).strip() == new.text(["ins"]).strip()
                assert old.text() != new.text()
    assert marked > 50


@pytest.mark.parametrize("left, right", PAIRS)
def test_what_two_formulas_share_is_what_is_left_without_the_marks(page, left, right):
    section = only(page.find("section", id=f"step-{right}"))
    old = [f for f in section.find("div", "formula") if "old" in f.classes]
    new = [f for f in section.find("div", "formula") if "new" in f.classes]
    assert len(old) == len(new) >= 4
    changes = 0
    for before, after in zip(old, new):
        shared = []
        for formula, mark in ((before, "gone"), (after, "new")):
            text = formula.text([mark])
            shared.append(re.sub(r"[\s,]", "", text))
            changes += len(list(formula.find(cls=mark)))
            assert "\\" not in text, "a command that latex2mathml does not know"
        assert shared[0] == shared[1]
    assert changes > 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_alone_is_complete_and_its_pseudocode_stands_beside_it(page, name):
    reader = only(page.find("div", id=f"alone-{name}"))
    code, aside = only(reader.find("div", "code")), only(reader.find("aside"))
    lines = [line.text() for pre in code.find("pre") for line in lines_of(pre)]
    assert lines == source_lines(name)
    numbers = [number for pre in code.find("pre") for number in numbers_of(pre)]
    assert numbers == list(range(1, len(lines) + 1))
    pseudocode, symbols = aside.find("pre")
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    for pre in (pseudocode, symbols):
        paragraph = "\n".join(line.text() for line in lines_of(pre))
        assert f"\n\n{paragraph}\n\n" in text
    assert "(1)" in pseudocode.text() and "policy.distribution(obs)" in symbols.text()


def test_common_is_complete(page):
    code = only(only(page.find("section", id="step-common")).find("div", "code"))
    lines = [line.text() for pre in code.find("pre") for line in lines_of(pre)]
    assert lines == source_lines("common")


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_step_of_the_pseudocode_leads_to_its_code_and_back(page, name):
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    steps = re.findall(r"^ +(\(\d\)) ", text.split('"""')[1], re.MULTILINE)
    assert steps and steps == [f"({n})" for n in range(1, len(steps) + 1)]
    ids = {n.attributes["id"]: n for n in page.find("span") if "id" in n.attributes}
    places = [only(page.find("div", id=f"alone-{name}"))]
    for left, right in PAIRS:
        if name in (left, right):
            section = only(page.find("section", id=f"step-{right}"))
            side = "old" if name == left else "new"
            places += [only(section.find("div", "pseudocode")), section]
            places[-2:] = [[section, side]]
    for place in places:
        section, side = place if isinstance(place, list) else (place, None)
        block = next(section.find("div", "pseudocode"))
        pre = next(block.find("pre", side))
        links = list(pre.find("a"))
        assert [link.text() for link in links] == steps
        for link in links:
            target = ids[link.attributes["href"][1:]]
            assert target.text().lstrip(' #"').startswith(link.text())
            back = [a for a in target.find("a") if a.text() == link.text()]
            step = ids[only(back).attributes["href"][1:]]
            assert link in list(step.find("a"))


def test_every_claim_of_the_lecture_is_on_the_page_with_its_test(page):
    tests = {}
    for path in (ROOT / "tests" / "lecture").glob("test_*.py"):
        for claim in re.findall(
            r"def test_(C\d+(?:_quiz_\d)?)_", path.read_text("utf-8")
        ):
            tests.setdefault(claim.replace("_", " "), set()).add(path.name)
    shown = {}
    for item in page.find("li"):
        if item.parent.classes == ["claims"]:
            shown[only(item.find("b")).text()] = {a.text() for a in item.find("a")}
    assert shown == tests


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Writes curves.csv of a stand-in for the repository, which has nothing else."""

    def write(rows):
        path = tmp_path / "benchmarks" / "results" / "curves.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["script", "env", "steps", "seed", "flags", *range(1, 51)])
            writer.writerows(rows)

    monkeypatch.setattr(build, "ROOT", tmp_path)
    return write


def run(script, seed, steps=200_000, flags="", first=1):
    points = [x * (seed - 999) if x >= first else "" for x in range(1, 51)]
    return [script, "CartPole-v1", steps, seed, flags, *points]


def test_curves_are_shown_as_soon_as_all_seeds_of_both_scripts_are_there(results):
    assert list(build.curves("ppo_kl", "ppo_clip")) == []
    rows = [run(s, 1000 + n) for s in ("ppo_kl", "ppo_clip") for n in range(10)]
    other = [
        run("ppo_clip", 1000, steps=100),
        run("ppo_clip", 1000, flags="--epochs 3"),
    ]
    results(rows[:-1] + other)
    assert list(build.curves("ppo_kl", "ppo_clip")) == []
    results(rows + other + [run("reinforce", 1000)])
    env, steps, seeds, runs, means = only(build.curves("ppo_kl", "ppo_clip"))
    assert (env, steps, seeds) == ("CartPole-v1", 200_000, 10)
    assert [len(runs[name]) for name in ("ppo_kl", "ppo_clip")] == [10, 10]
    assert means["ppo_kl"] == [5.5 * x for x in range(1, 51)]  # seeds 1 to 10 times x


def test_the_mean_curve_begins_where_every_seed_has_begun(results):
    late = [run("ppo_kl", 1000 + n, first=1 + 3 * (n == 4)) for n in range(10)]
    results(late + [run("ppo_clip", 1000 + n) for n in range(10)])
    *_, means = only(build.curves("ppo_kl", "ppo_clip"))
    assert means["ppo_kl"] == [5.5 * x for x in range(4, 51)]


def test_a_claim_without_a_test_stops_the_build():
    with pytest.raises(AssertionError, match="C99"):
        build.tests_of("C99")
