"""Planted faults: every wrong backend is caught, by the check that names its fault.

The mutants are installed as any third-party plugin is: an importable package beside its metadata,
on ``PYTHONPATH``. They run through the engine, at the tolerances that ship; each is a device of a
backend, so that a few workers serve them all. By hand:

    export PYTHONPATH=tests/mutants
    harness check lesson6/first_rnn --backend mutants-1 --device leaky-relu
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import Distribution
from typing import TYPE_CHECKING

import pytest
from places import TESTS
from sampling import sampled

from harness.checking.checks import CHECKS, FINDINGS
from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.language.library import lesson6
from harness.results.cell import Cell, CellResult
from harness.results.findings import BROKEN, Finding

FOLDER = TESTS / "mutants"
with pytest.MonkeyPatch.context() as _path:
    _path.syspath_prepend(FOLDER)
    from harness_mutants import BACKENDS, CONTROL, MUTANTS
    from harness_mutants.registry import ODD, OTHERS

if TYPE_CHECKING:
    from harness_mutants.registry import Mutant

DTYPES = ("float64", "float32")
PLAIN = {name: mutant for name, mutant in MUTANTS.items() if not mutant.dear}
DEAR = {name: mutant for name, mutant in MUTANTS.items() if mutant.dear}
# Every so manieth mutant and system: odd numbers, so that both dtypes have their turn; and one of
# the check that has nothing to see in Lesson 6.
FEW = (*tuple(PLAIN)[::31], "sixteen-experts")
CONTROLLED = lesson6()[::6]
Results = Mapping[tuple[str, str, str], CellResult]


class Planned(Engine):
    """Runs every mutant on the one system that it is meant for, by the check that is for it, and
    the control on all, by all checks. Where they are ``few``, :data:`FEW` run, each in one of its
    dtypes, and the control on :data:`CONTROLLED`."""

    few = False

    def cells(self) -> list[Cell]:
        wanted = [
            (mutant.name, mutant.spec, dtype)
            for number, mutant in enumerate(PLAIN.values())
            if mutant.name in FEW or not self.few
            for dtype in (
                [mutant.dtypes[number % len(mutant.dtypes)]] if self.few else mutant.dtypes
            )
        ]
        # The control comes last: it shows that no mutant leaves anything behind for the next.
        wanted += [
            (CONTROL, spec, dtype)
            for number, spec in enumerate(CONTROLLED if self.few else lesson6())
            for dtype in (DTYPES[number % 2 :][:1] if self.few else DTYPES)
        ]
        return [
            Cell(spec, BACKENDS[number % len(BACKENDS)], device, dtype, "native")
            for number, (device, spec, dtype) in enumerate(wanted)
        ]

    def run_cell(self, cell: Cell, checks: tuple[str, ...] = ()) -> CellResult:
        # Some faults come with the second call, or with another one's gradients.
        before = ("values", "cotangents")
        own = () if cell.device == CONTROL else (*before, FINDINGS[MUTANTS[cell.device].check])
        return super().run_cell(cell, own)


class PlannedDear(Engine):
    """Runs the mutants that a plain run passes."""

    def cells(self) -> list[Cell]:
        wanted = [(m.name, m.spec, dtype) for m in DEAR.values() for dtype in m.dtypes]
        return [Cell(spec, BACKENDS[0], device, dtype, "native") for device, spec, dtype in wanted]


@contextmanager
def installed() -> Iterator[None]:
    """The mutants as plugins; one thread a worker: as many workers as cores run at once."""
    variables = {"PYTHONPATH": str(FOLDER), "OPENBLAS_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@cache
def results(few: bool, /) -> Results:
    """Every cell's result, by mutant, system and dtype."""
    # By a pattern, all checks are made in all dtypes: some faults have one of them only.
    specs = (*lesson6(), *OTHERS, *map(str, ODD.values()))
    with installed(), Planned(Request(specs=specs, backends=BACKENDS, checks=("**",))) as engine:
        engine.few = few
        found = engine.run().results
    return {(r.cell.device, r.cell.spec, r.cell.dtype): r for r in found}


def findings(mutant: Mutant, dtype: str, few: bool) -> dict[str, Finding]:
    """A mutant's findings by check."""
    result = results(few)[mutant.name, mutant.spec, dtype]
    return {f.check: f for f in result.findings}


@pytest.mark.parametrize(
    ("name", "few"),
    sampled([*((n, True) for n in FEW), *((n, False) for n in PLAIN)], [(n, True) for n in FEW]),
)
def test_is_caught_by_the_check_that_names_it(name: str, few: bool) -> None:
    mutant = MUTANTS[name]
    dtypes = [d for d in mutant.dtypes if (mutant.name, mutant.spec, d) in results(few)]
    assert dtypes
    for dtype in dtypes:
        found = findings(mutant, dtype, few)
        assert mutant.check in found, f"{dtype}: {mutant.check} did not run"
        caught = [check for check, f in found.items() if f.verdict == "differ"]
        assert mutant.check in caught, f"{dtype}: {mutant.check} did not fire; {caught} did"
        accidents = {c: f.detail for c, f in found.items() if f.verdict in BROKEN}
        assert not accidents, f"{dtype}: {accidents}"


@pytest.mark.parametrize(
    ("spec", "few"),
    sampled(
        [*((s, True) for s in CONTROLLED), *((s, False) for s in lesson6())],
        [(s, True) for s in CONTROLLED],
    ),
)
def test_the_control_agrees(spec: str, few: bool) -> None:
    every = results(few)
    found = [every[key] for d in DTYPES if (key := (CONTROL, spec, d)) in every]
    assert found
    for result in found:
        assert result.verdict == "agree", [f.detail for f in result.findings if f.detail]


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 300


@pytest.mark.parametrize("thorough", [False, True])
def test_what_is_dear_to_find_is_found_on_request(thorough: bool) -> None:
    options = {"thorough": True, "repeat": 600} if thorough else {}
    with installed(), PlannedDear(Request(backends=BACKENDS[:1], **options)) as engine:
        for result in engine.run().results:
            caught = [f.check for f in result.findings if f.verdict != "agree"]
            assert caught == ([MUTANTS[result.cell.device].check] if thorough else [])


def test_every_check_has_a_mutant_that_names_it() -> None:
    checks = {f.check for result in results(True).values() for f in result.findings}
    assert checks == {m.check for m in PLAIN.values()}
    assert len(checks | {m.check for m in DEAR.values()}) >= len(CHECKS)


def test_every_mutant_says_what_is_wrong_and_no_two_say_the_same() -> None:
    summaries = [m.summary for m in MUTANTS.values()]
    assert all(summaries)
    assert len(set(summaries)) == len(summaries)


def test_the_metadata_name_exactly_these_backends() -> None:
    (metadata,) = FOLDER.glob("*.dist-info")
    entries = Distribution.at(metadata).entry_points
    assert {e.name for e in entries} == set(BACKENDS)
    assert {(e.group, e.value) for e in entries} == {("harness.backends", "harness_mutants")}


def test_no_worker_path_leaks_into_other_tests() -> None:
    assert str(FOLDER) not in sys.path
    assert str(FOLDER) not in os.environ.get("PYTHONPATH", "")
