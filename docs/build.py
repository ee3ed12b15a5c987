#!/usr/bin/env python3
"""Build docs/index.html, the page that shows the five scripts side by side.

    pip install jinja2 latex2mathml pygments
    python docs/build.py

It reads the scripts, the names of the tests in tests/lecture, the learning curves in
benchmarks/results, and slides.toml (formulas, claims). template.html and style.css give
the page its shape.
"""

import csv
import re
import tomllib
from difflib import SequenceMatcher
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert
from pygments.lexers import PythonLexer
from pygments.token import Token

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
CONTEXT = 2  # unchanged lines that are shown above and below a change
SHORTEST_FOLD = 5  # fewer unchanged lines are not folded
SIMILAR = 0.5  # changed lines with this share of common words stand beside each other
COLOURS = {  # CSS classes; the first kind of token that fits counts
    Token.Literal.String.Doc: "d",
    Token.Literal.String: "s",
    Token.Literal.Number: "m",
    Token.Comment: "c",
    Token.Keyword: "k",
    Token.Operator.Word: "k",
    Token.Name.Function: "f",
    Token.Name.Class: "f",
}
LADDER = [("CartPole-v1", 200_000, 10), ("LunarLander-v3", 1_000_000, 5)]
POINTS = 50  # of a learning curve


class Line(NamedTuple):
    number: int
    text: str
    words: tuple
    colours: tuple  # the CSS class of each word


GAP = Line(0, None, (), ())  # stands beside a line that has no partner


class Script:
    """A script in lines, and the lines that belong to its steps (1), (2), ..."""

    def __init__(self, name):
        self.name = name
        self.source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
        lines = coloured_lines(self.source)
        docstring = self.source.split('"""')[1]
        end = docstring.count("\n") + 1
        self.docstring, self.code = lines[:end], lines[end:]
        self.paragraphs = docstring.split("\n\n")
        # What everybody reads ends where the next section begins after train().
        top = re.search(r".*\ndef train\(.*?\n(?=# ---)", self.source, re.DOTALL)
        last = top[0].count("\n") if top else len(lines)
        self.top, self.below = lines[:last], lines[last:]
        self.pseudocode, self.symbols = [], []
        for paragraph in self.paragraphs:
            if re.search(r"^ +\(1\) ", paragraph, re.MULTILINE):
                first = docstring[: docstring.index(paragraph)].count("\n")
                last = first + paragraph.count("\n")
                blank = next(x.number for x in lines[last + 2 :] if not x.text)
                self.pseudocode = lines[first : last + 1]
                self.symbols = lines[last + 2 : blank - 1]
        # Links of a line: {"(1)": the number of the line it leads to}. A step of the
        # pseudocode leads to the last line that begins with its tag, every tag back.
        self.links = {}
        steps = {}
        for line in self.pseudocode:
            if match := re.match(r" +(\(\d\)) ", line.text):
                steps[match[1]] = line.number
                self.links[line.number] = {}
        for line in self.code:
            for word, colour in zip(line.words, line.colours):
                if word in steps and colour in ("c", "d"):
                    self.links.setdefault(line.number, {})[word] = steps[word]
                    if line.text.lstrip(' #"').startswith(word):
                        self.links[steps[word]][word] = line.number


def coloured_lines(source):
    """The lines of a source, each word in the colour that Pygments gives its token."""
    lines = [[]]
    for token, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        colour = next((css for kind, css in COLOURS.items() if token in kind), "")
        for word in re.findall(r"\n|\(\d\)|[\w\u0300-\u036f]+|[^\S\n]+|.", text):
            if word == "\n":
                lines.append([])
            else:
                lines[-1].append((word, colour))
    return [
        Line(number, text, tuple(w for w, _ in line), tuple(c for _, c in line))
        for number, (text, line) in enumerate(zip(source.splitlines(), lines), 1)
    ]


@cache
def similarity(old, new):
    """The share of words that two lines have in common; a blank line has none."""
    old, new = [w for w in old if w.strip()], [w for w in new if w.strip()]
    return SequenceMatcher(None, old, new, False).ratio() if old and new else 0.0


def align(left, right):
    """Rows (old, new) of two lists of lines that stand beside each other."""

    def align_changed(left, right):
        pairs = [
            (similarity(old.words, new.words), i, j)
            for i, old in enumerate(left)
            for j, new in enumerate(right)
        ]
        score, i, j = max(pairs, default=(0, 0, 0))
        if score < SIMILAR:
            return list(zip_longest(left, right, fillvalue=GAP))
        above = align_changed(left[:i], right[:j])
        below = align_changed(left[i + 1 :], right[j + 1 :])
        return [*above, (left[i], right[j]), *below]

    def has_no_word(text):
        return not re.search(r"\w", text)

    texts = [line.text for line in left], [line.text for line in right]
    matcher = SequenceMatcher(has_no_word, *texts, autojunk=False)
    rows = []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        old, new = left[i:i_end], right[j:j_end]
        rows += zip(old, new) if kind == "equal" else align_changed(old, new)
    return rows


def passages(left, right):
    """The rows of two scripts' code, cut where a change or a fold begins or ends."""
    rows = align(left.code, right.code)
    changed = [n for n, (old, new) in enumerate(rows) if old.text != new.text]
    shown = {m for n in changed for m in range(n - CONTEXT, n + CONTEXT + 1)}
    for n, (old, new) in enumerate(rows):
        if old.number in left.links or new.number in right.links:
            shown.update([n - 1, n])  # with the line above it
        elif old.text == new.text == "":
            shown.discard(n)
    kinds = ["changed" if n in changed else n in shown for n in range(len(rows))]
    for kind, run in groupby(range(len(rows)), kinds.__getitem__):
        part = [rows[n] for n in run]
        fold = kind is False and len(part) >= SHORTEST_FOLD
        yield part, kind == "changed", fold


def definitions(rows):
    """The names of the functions and classes that begin in these rows."""
    text = "\n".join(new.text for _, new in rows)
    return re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)


def pieces(row, side, links):
    """The text of row[side] in pieces of one colour, mark and link each.

    Marked are the words that the other side, if it is a similar line, does not have.
    """
    line = row[side]
    same = set(range(len(line.words)))
    words = row[0].words, row[1].words
    if similarity(*words) >= SIMILAR:
        blocks = SequenceMatcher(None, *words, autojunk=False).get_matching_blocks()
        same = {n for b in blocks for n in range(b[side], b[side] + b.size)}
    styles = [
        (colour, n not in same and (n > 0 or word.strip() != ""), links.get(word))
        for n, (word, colour) in enumerate(zip(line.words, line.colours))
    ]
    for style, run in groupby(range(len(styles)), styles.__getitem__):
        yield "".join(line.words[n] for n in run), *style


def typeset(latex, marked=None):
    """MathML of a formula, in pieces: between two of them the line may break."""
    for name in ("new", "gone"):
        start = rf"{{\color{{{name}}}" if name == marked else "{"
        latex = latex.replace(rf"\{name}{{", start)
    for piece in latex.split(r"\allowbreak"):
        mathml = convert(piece, display="block").replace("mathcolor=", "class=")
        mathml = mathml.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
        yield mathml.replace("&#x0007E;", "∼")


def tests_of(claim):
    """The test files that show a claim of the lecture; there must be one."""
    files = sorted((ROOT / "tests" / "lecture").glob("test_*.py"))
    found = [f.name for f in files if f"def test_{claim}_" in f.read_text("utf-8")]
    assert found, f"no test in tests/lecture shows {claim}"
    return found


def curves(*names):
    """The ladder's learning curves, for environments for which all seeds are there."""
    path = ROOT / "benchmarks" / "results" / "curves.csv"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = list(csv.DictReader(text.splitlines()))
    for env, steps, seeds in LADDER:
        runs = {name: [] for name in names}
        for row in rows:
            setting = row["env"], row["steps"], row["flags"]
            if row["script"] in runs and setting == (env, str(steps), ""):
                points = [row[str(n)] for n in range(1, POINTS + 1)]
                runs[row["script"]].append([float(y) for y in points if y])
        if all(len(found) >= seeds for found in runs.values()):
            means = {name: mean_curve(found) for name, found in runs.items()}
            yield env, steps, seeds, runs, means


def mean_curve(runs):
    """The mean of runs that end at the same step, from where all have begun."""
    shortest = min(map(len, runs))
    return [round(fmean(ys), 2) for ys in zip(*(run[-shortest:] for run in runs))]


def build():
    """The text of index.html."""
    environment = Environment(
        loader=FileSystemLoader(DOCS),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (align, curves, definitions, passages, pieces, tests_of, typeset):
        environment.globals[function.__name__] = function
    slides = tomllib.loads((DOCS / "slides.toml").read_text(encoding="utf-8"))
    names = [*(step["script"] for step in slides["steps"]), "common"]
    slides["scripts"] = {name: Script(name) for name in names}
    slides["pages"] = sorted(path.name for path in DOCS.glob("*.md"))
    return environment.get_template("template.html").render(slides) + "\n"


if __name__ == "__main__":
    (DOCS / "index.html").write_text(build(), encoding="utf-8", newline="\n")
