"""Measurement of how often ``harness localise`` finds a planted fault, written to a table.

    python tests/localised.py                     # all planted faults: docs/localisation.md
    python tests/localised.py leaky-relu ...      # only some faults, printed

The place of each planted fault is known: of an altered definition the altered lines, of a wrong
primitive its name, of a wrong session its entry in :data:`PLANTED`, of a broken property its check.
A search is right if its first cause is at this place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS / name) for name in ("checking", "support")]

from fault_places import PLANTED, at_altered, at_operation  # noqa: E402
from test_mutants import BACKENDS, MUTANTS, PLAIN, installed  # noqa: E402

from harness.checking.causes.cause import Cause  # noqa: E402
from harness.checking.causes.localise import localise  # noqa: E402
from harness.checking.checks import FINDINGS  # noqa: E402
from harness.checking.engine import Engine  # noqa: E402
from harness.checking.request import Request  # noqa: E402
from harness.results.cell import Cell  # noqa: E402

PAGE = TESTS.parent / "docs" / "localisation.md"
MARK = "<!-- measured -->"
END = "<!-- end of measured -->"
# The checks that a normal check of a cell runs before the check that detects the fault.
ORDINARY = ("values", "cotangents", "inference", "carried-state", "training", "training-sgd")


@dataclass(frozen=True)
class Judged:
    """The answer of a search for a planted fault."""

    name: str
    family: str
    precision: str
    right: bool
    proved: bool
    said: str


def altered() -> dict[str, dict[str, Any]]:
    """Return the entries of all altered definitions by name."""
    rows: dict[str, dict[str, Any]] = {}
    for file in sorted((TESTS / "mutants" / "harness_mutants" / "altered").iterdir()):
        rows |= yaml.safe_load(file.read_text(encoding="utf-8"))
    return rows


def operation(name: str) -> str:
    """Return the primitive that a fault replaces; empty for a fault of another kind."""
    from harness.backends.numpy.primitives import PRIMITIVES

    made = MUTANTS[name].make()
    other = [op for op, f in made.primitives.items() if PRIMITIVES.get(op) is not f]
    return other[0] if len(other) == 1 else ""


def judged(name: str, cause: Cause | None, proved: bool, rows: dict[str, Any]) -> Judged:
    """Decide whether the first cause is at the place of the planted fault."""
    mutant = MUTANTS[name]
    if cause is None:
        return Judged(name, "nothing", "", False, False, "nothing differs")
    said = f"{cause} {' '.join(cause.names)}"
    check = cause.phase == "property" and mutant.check in cause.names
    op = operation(name)
    if name in rows:
        family, right = f"altered {rows[name]['kind']}", at_altered(mutant.spec, rows[name], cause)
    elif name in PLANTED:
        family, right = "session", any(word in said for word in PLANTED[name])
    elif op:
        family, right = "primitive", at_operation(mutant.spec, op, cause)
    else:
        family, right = "seen by one check", mutant.check in said
    precision = "check" if check else cause.phase
    return Judged(name, family, precision, right or check, proved, said)


def measured(names: Iterable[str]) -> Iterator[Judged]:
    """Search for each fault, and yield the answer."""
    rows, names = altered(), list(names)
    specs = tuple(dict.fromkeys(MUTANTS[name].spec for name in names))
    with installed(), Engine(Request(specs, BACKENDS[:1])) as engine:
        for name in names:
            mutant = MUTANTS[name]
            checks = dict.fromkeys(("primitives", *ORDINARY, FINDINGS[mutant.check]))
            engine.request = replace(engine.request, checks=tuple(checks))
            cell = Cell(mutant.spec, BACKENDS[0], name, mutant.dtypes[0], "native")
            try:
                causes = localise(engine, cell, None).causes
            except Exception as error:  # an exception of any kind counts as not found
                yield Judged(name, "failed", "", False, False, f"{type(error).__name__}: {error}")
                continue
            cause = causes.items[0] if causes else None
            yield judged(name, cause, bool(causes and causes.proved), rows)


def table(found: list[Judged]) -> str:
    """Return the table, and a list of the faults that were not found."""
    lines = ["| planted | how many | found | proved by substitution | named by the check only |"]
    lines += ["|---|---|---|---|---|"]
    families = sorted({one.family for one in found})
    for family in [*families, ""]:
        own = [one for one in found if family in ("", one.family)]
        counts = [sum(test(one) for one in own) for test in (_right, _proved, _check)]
        share = f"{counts[0]} ({100 * counts[0] / len(own):.0f}%)"
        lines.append(
            f"| {family or '**all**'} | {len(own)} | {share} | {counts[1]} | {counts[2]} |"
        )
    lines += ["", "The faults that were not found:", ""]
    lines += [f"- `{one.name}`: {MUTANTS[one.name].summary}" for one in found if not one.right]
    return "\n".join(lines)


def _right(one: Judged) -> bool:
    return one.right


def _proved(one: Judged) -> bool:
    return one.right and one.proved


def _check(one: Judged) -> bool:
    return one.right and one.precision == "check"


def main(names: list[str]) -> None:
    """Measure the faults; write the page if all faults were measured."""
    started, found = time.monotonic(), []
    for one in measured(names or PLAIN):
        found.append(one)
        verdict = "right" if one.right else "WRONG"
        how = "proved" if one.proved else one.precision
        print(f"{verdict} {one.name} ({one.family}, {how}): {one.said}", flush=True)
    right = sum(one.right for one in found)
    print(f"{right} of {len(found)} in {time.monotonic() - started:.0f} s")
    if not names:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{MARK}\n{table(found)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
