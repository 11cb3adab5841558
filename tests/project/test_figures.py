"""A figure that stands on several pages is on each of them what its source says."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import dependencies
import pytest
from pages import PAGES
from places import DOCS, TESTS

from harness.defaults.catalogue import catalogue
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle import complex_step, tolerance
from harness.program.primitives import EVERY, OFFERED, TABLE
from harness.text.corpus import LENGTH

with pytest.MonkeyPatch.context() as _path:
    _path.syspath_prepend(TESTS / "mutants")
    from harness_mutants import MUTANTS

ALARMS = (DOCS / "false-alarms.md").read_text(encoding="utf-8").partition("<!-- narrow -->")[0]
RATE = json.loads((DOCS / "lesson6/record.json").read_text(encoding="utf-8"))["mistakes"]["rate"]
# Those that the extra ``all`` brings.
BACKENDS = dependencies.project()["project"]["entry-points"]["harness.backends"].keys() - {"flax"}
WORDS = {
    6: "six",
    9: "nine",
    10: "ten",
    12: "twelve",
    16: "sixteen",
    31: "thirty-one",
    41: "forty-one",
}


def worst_alarm() -> str:
    """Return the largest error over yardstick in float64 and float32."""
    with (TESTS / "false_alarms.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wide = [row for row in rows if row["dtype"] in ("float64", "float32")]
    return f"{max(float(row['largest error over yardstick']) for row in wide):.2f}"


def compared() -> int:
    """How many comparisons the measured tables are of, in both dtypes."""
    counts = re.findall(r"^([\d,]+) comparisons", ALARMS, re.MULTILINE)
    return sum(int(count.replace(",", "")) for count in counts)


# Where a figure may stand: words of the page around it, with `()` for the figure, and its source.
FIGURES: dict[str, str] = {
    r"([\d,]+) comparisons over": f"{compared():,}",
    r"(\d+) seeds": re.findall(r"(\d+) seeds", ALARMS)[0],
    r"largest\serror\sis\s(\d\.\d+)\syardsticks": worst_alarm(),
    r"K = (\d+)(?=\*\*| yardsticks| about once)": f"{tolerance.K:.0f}",
    r"([a-z]+teen) times the (?:measured )?rounding error": WORDS[int(tolerance.K)],
    r"stops if it is above (\S+?)\.\s": f"{complex_step.ALLOWED:g}",
    r"(\d+) planted faults(?=,| show)": str(len(MUTANTS)),
    r"(\d+) defaults in which": str(len(catalogue())),
    r"file with ([\w-]+) primitives \|": WORDS[len(TABLE)],
    r"#stage-1-the-table\) \| (\d+) primitives": str(len(TABLE)),
    r"calls one of ([\w-]+)\sprimitives": WORDS[len(EVERY)],
    r"(\w+) of\swhich are optional for a backend": WORDS[len(OFFERED)],
    r"([Tt]welve|\w+) systems of(?: fast\.ai| Lesson)": WORDS[len(lesson6())],
    r"(\w+) backends run them": WORDS[len(BACKENDS)].capitalize(),
    r"([\d,]+) characters, (?:84|and a checksum)": f"{LENGTH:,}",
    r"ended? at\s+(3\.\d+)": f"{RATE['stays'][-1]:.3f}",
    r"has a mean loss\s+of\s+(\d\.\d+)": f"{RATE['applied'][4]:.3f}",
}


def found(pattern: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for match in re.finditer(pattern, page.read_text(encoding="utf-8")):
            yield page, match[1]


@pytest.mark.parametrize("pattern", FIGURES)
def test_a_figure_is_that_of_its_source(pattern: str) -> None:
    places = list(found(pattern))
    assert places
    wrong = [f"{p.name}: {n}" for p, n in places if n.lower() != FIGURES[pattern].lower()]
    assert not wrong, f"is to be {FIGURES[pattern]}"


def test_the_sizes_of_systems_are_those_of_their_specs() -> None:
    text = (DOCS / "semantics.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+)(?:, of which .*)? \|$", text, re.MULTILINE)
    )
    sizes = {name: load_spec(name).model.parameters for name in lesson6()}
    assert {f"lesson6/{n}": int(count.replace(",", "")) for n, count in rows.items()} == sizes


def test_what_is_localised_adds_up() -> None:
    text = (DOCS / "localisation.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"\*\*all\*\* \| (\d+) \| (\d+) \([\d%]+\) \| \d+ \| (\d+) \|", text)
    count, right, others = map(int, row)
    said = re.search(r"the\s(\d+)\sother\sfaults,[^.]*\sin\s(\d+)\scases\.", text)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (count - others, right - others)


def test_the_method_shows_systems_on_all_backends() -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    shown = re.findall(r"^ (lesson6/\w+) +(float64|float32) (.*)$", text, re.MULTILINE)
    names = [name for name in lesson6() if name in {row[0] for row in shown}]
    assert [row[:2] for row in shown] == [
        (name, dtype) for name in names for dtype in ("float64", "float32")
    ]
    assert f"stands for {WORDS[len(lesson6()) - len(names)]} models" in text
    heading = re.findall(r"^ system +(.*?) *$", text, re.MULTILINE)[0].split()
    assert set(heading) == set(BACKENDS)
    assert all(len(re.findall(r"\d+\.\d", cells)) == len(BACKENDS) for *_, cells in shown)
    assert f"{2 * len(lesson6()) * len(BACKENDS)} cells:" in text
