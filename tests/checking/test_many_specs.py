"""Runs of very many specs: memory stays what it is after the first of them."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sampling import sampled
from small_models import ONE_LAYER

from harness.checking import shared_cases
from harness.checking.engine import Engine
from harness.checking.request import Request, make_case
from harness.checking.runner import CheckEvents
from harness.checking.shared_cases import SharedCases
from harness.files.system import resident_memory
from harness.language.library import Library
from harness.language.model import ModelCollection, load_spec
from harness.oracle.case import Case
from harness.results.cell import CellResult

# In bytes a spec: what the report says of the 44 findings of its two cells, and no array.
ALLOWED = 64 << 10


def folder_of(path: Path, count: int) -> tuple[str, ...]:
    (path / "models").mkdir()
    names = tuple(f"m{number:05}" for number in range(count))
    for name in names:
        (path / "models" / f"{name}.yaml").write_text(ONE_LAYER.format(name=name))
    return names


@pytest.fixture
def default_collector() -> Iterator[None]:
    """Python's own thresholds of garbage collection, as in the command. Tests have larger ones, so
    that more garbage scatters the memory that stays."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("default_collector")
@pytest.mark.parametrize(
    ("count", "checks"),
    [(150, ("values",)), *sampled([(200, ("*",))], ())],
)
def test_memory_of_a_run_is_flat(tmp_path: Path, count: int, checks: tuple[str, ...]) -> None:
    marks: list[int] = []

    class Marks(CheckEvents):
        ended_cells = 0

        def ended(self, result: CellResult) -> None:
            self.ended_cells += 1
            if self.ended_cells in (count, 2 * count):  # half, and all
                gc.collect()
                marks.append(resident_memory())

    names = folder_of(tmp_path, count)
    request = Request(names, ("numpy",), folders=(tmp_path,), checks=checks)
    with Engine(request, Marks()) as engine:
        report = engine.run()
        assert report.exit_code == 0
        assert len(report.results) == 2 * count
        assert len(engine.cases.proofs) == count
        assert not any(result.outputs for result in report.results)
    grown = (marks[1] - marks[0]) / (0.5 * count)
    assert grown < ALLOWED, f"{grown / 1024:.1f} KiB a spec"


def test_shelf_gives_what_loading_gives(tmp_path: Path) -> None:
    names = folder_of(tmp_path, 6)
    shelf = ModelCollection(Library((tmp_path,)), limit=2)
    for name in (*names, "lesson6/simple_rnn"):
        shelf.add(name)
    # What is made again is what was read, whatever has become of the file.
    (tmp_path / "models" / "m00000.yaml").write_text("model: another")
    assert shelf.names == (*names, "lesson6/simple_rnn")
    assert len(shelf) == 7
    for spec in shelf:
        if spec.name != "m00000":
            loaded = load_spec(spec.name, (tmp_path,))
            assert spec.programs == loaded.programs
            assert spec.model == loaded.model
            assert spec.document == loaded.document
        assert len(shelf._loaded) == 2
    assert shelf["m00000"].name == "m00000"


def made(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, bool]]:
    """How often each case is made."""
    counted: Counter[tuple[str, bool]] = Counter()

    def counting(spec: Any, request: Request, *, own: bool) -> Case:
        counted[spec.name, own] += 1
        return make_case(spec, request, own=own)

    monkeypatch.setattr(shared_cases, "make_case", counting)
    return counted


def test_a_usual_run_makes_each_case_once_and_keeps_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = made(monkeypatch)
    names = folder_of(tmp_path, 12)
    # More backends than go side by side.
    request = Request(names, ("numpy", "torch"), folders=(tmp_path,), checks=("values",), jobs=1)
    with Engine(request) as engine:
        assert engine.run().exit_code == 0
        assert engine.cases._cases == {}
        assert engine.cases._turns == {}
    assert set(counted.values()) == {1}
    assert len(counted) == 24


def test_with_more_specs_than_are_kept_a_case_is_made_once_for_each_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = made(monkeypatch)
    names = folder_of(tmp_path, 5)
    specs = [load_spec(name, (tmp_path,)) for name in names]
    cases = SharedCases(Request(), capacity=2)
    cases.plan(name for name in names for _ in range(2))
    for _ in range(2):
        for spec in specs:
            first = cases.get(spec, "small")
            assert cases.get(spec, "small") is first
            assert len(cases._cases) <= 2
            cases.done(spec.name)
    assert cases._cases == {}
    # The last one was still there as its second turn came.
    assert [counted[name, False] for name in names] == [2, 2, 2, 2, 1]
    assert set(cases.proofs) == set(names)


def test_several_threads_that_ask_at_once_get_one_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = made(monkeypatch)
    (name,) = folder_of(tmp_path, 1)
    spec = load_spec(name, (tmp_path,))
    cases, found = SharedCases(Request()), []
    threads = [
        threading.Thread(target=lambda: found.append(cases.get(spec, "small"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(case) for case in found}) == 1
    assert counted[name, False] == 1
