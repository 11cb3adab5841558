"""Checks of two models on three backends with a history file, for tests that change it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from record_lines import lines_of

from harness.checking.engine import Engine
from harness.checking.history import seal
from harness.checking.request import Request
from harness.checking.runner import CheckEvents
from harness.language.library import Library
from harness.results.cell import Cell
from harness.results.file import encode_line, parse_line

MODEL = Library(()).find("model", "lesson6/simple_rnn").path
DENSE = Library(()).find("layer", "dense").path
BACKEND = """
from harness.backends.numpy.backend import Numpy
from harness.runtime.hookspecs import hookimpl
from own_{name} import kernels


class Own(Numpy):
    name = "own-{name}"


@hookimpl
def harness_backend(name):
    return Own()
"""


class RecordedEvents(CheckEvents):
    """A listener that records the messages of a check, and the cells that it runs."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.ran: list[str] = []

    def rerunning(self, reasons: Sequence[str]) -> None:
        self.reasons += reasons

    def began(self, cell: Cell) -> None:
        self.ran.append(f"{cell.spec} on {cell.backend}")


class Run:
    """A check of two models on numpy and two backends of another distribution, with a history."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, folder / "history"
        text = Path(str(MODEL)).read_text()
        self.specs = tuple(folder / f"{name}.yaml" for name in ("one", "two"))
        for path in self.specs:
            path.write_text(text.replace("model: lesson6/simple_rnn", f"model: {path.stem}"))
        self.site = folder / "site"
        entries = "[harness.backends]\n"
        for name in ("a", "b"):
            package = self.site / f"own_{name}"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text("")
            (package / "kernels.py").write_text("")
            (package / "backend.py").write_text(BACKEND.format(name=name))
            entries += f"own-{name} = own_{name}.backend\n"
        info = self.site / "own-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        self.more: dict[str, Any] = {}

    def __call__(self, **more: Any) -> RecordedEvents:
        given: dict[str, Any] = {
            "specs": tuple(map(str, self.specs)),
            "backends": ("own-a", "own-b", "numpy"),
            "dtypes": ("float64",),
            "checks": ("values",),
            "history": self.history,
            **self.more,
            **more,
        }
        told = RecordedEvents()
        with Engine(Request(**given), told) as engine:
            self.report = engine.run()
            self.starts = sum(worker.starts for worker in engine.workers.values())
        return told

    @property
    def files(self) -> list[Path]:
        return sorted(self.history.glob("*.jsonl"))

    def rewrite(self, change: Callable[[dict[str, Any]], None], *, honest: bool = False) -> None:
        """Edit all lines of the history; with ``honest``, compute their checksums again."""
        for path in self.files:
            lines = lines_of(path)
            for line in lines:
                change(line)
            if honest:
                lines = list(renew_checksums(lines))
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def renew_checksums(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a record file, with a new checksum for each cell."""
    fields = ("spec", "backend", "device", "dtype", "path")
    open_cells: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] in ("begin", "result", "end"):
            key = tuple(line[name] for name in fields)
            line.pop("checksum", None)
            open_cells.setdefault(key, []).append(line)
            if line["kind"] == "end":
                begin, *results, end = (
                    parse_line(json.dumps(x).encode()) for x in open_cells.pop(key)
                )
                line = json.loads(encode_line(seal(begin, results, end).plain()))
        yield line
