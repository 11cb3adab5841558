"""The engine: its plan, its exit codes, what it refuses, and who may import what."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from harness.check.cell import Cell, CellResult
from harness.check.checks import CHECKS
from harness.check.events import Events, Report
from harness.check.findings import VERDICTS, Finding, Verdict
from harness.check.records import read_records
from harness.check.request import Request, choose_checks
from harness.check.run import Engine
from harness.errors import UsageError
from harness.runtime.plugins import available
from harness.spec.library import lesson6
from harness.worker.process import kill_all

ROOT = Path(__file__).parents[1]
SPEC = "lesson6/simple_rnn"
CELL = Cell(SPEC, "numpy", "cpu", "float32", "native")
FRAMEWORKS = frozenset(
    {"torch", "jax", "jaxlib", "optax", "keras", "tensorflow", "onnx", "onnxruntime"}
)
# What a backend may use of the harness: the same for ours as for anybody's.
PUBLIC = frozenset(
    f"harness.{name}"
    for name in (
        "contract",
        "convert",
        "dims",
        "errors",
        "files",
        "formats",
        "hookspecs",
        "layout",
        "packing",
        "plan",
        "ports",
        "program",
        "session",
        "tape",
        "walk",
    )
)
# Backend files by the start of their names -> the frameworks that they may import.
OWN = {
    "numpy": frozenset[str](),
    "torch": frozenset({"torch"}),
    "jax": frozenset({"jax", "optax"}),
    "keras": frozenset({"keras", "tensorflow", "torch", "jax"}),
    "onnx": frozenset({"onnx", "onnxruntime"}),
}


def report(*verdicts: Verdict | None, could_not_run: bool = False) -> Report:
    """A report of cells with one finding each; None is a cell without any."""
    return Report(
        [
            CellResult(CELL, [Finding("c", verdict=v)] if v else [], could_not_run=could_not_run)
            for v in verdicts
        ]
    )


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (report("agree", "agree"), 0),
        (report("agree", "known-difference", "unsupported"), 0),
        (report("agree", None), 0),
        (report("agree", "differ"), 1),
        (report("agree", "error"), 1),
        (report("differ", "crashed"), 3),
        (report("agree", "timeout"), 3),
        (report("agree", "out-of-memory"), 3),
        (report("error", could_not_run=True), 3),
        (report("unsupported"), 3),
        (report(None, None), 3),
        (report(), 3),
    ],
)
def test_exit_code(found: Report, code: int) -> None:
    assert found.exit_code == code


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_verdict_but_the_passing_ones_is_a_success(verdict: Verdict) -> None:
    passes = verdict in ("agree", "known-difference", "unsupported")
    assert (report("agree", verdict).exit_code == 0) is passes


def test_plan_is_every_spec_on_every_backend_dtype_and_path() -> None:
    request = Request(backends=("numpy", "torch", "numpy"), paths=("native", "equations"))
    with Engine(request) as engine:
        cells = engine.cells()
    assert len(cells) == len(set(cells)) == 12 * 2 * 2 * 2
    assert {c.spec for c in cells} == set(lesson6())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checks": ("nothing",)}, "unknown check 'nothing'"),
        ({"checks": ()}, "no check"),
        ({"dtypes": ("float16",)}, "unknown dtype 'float16'"),
        ({"dtypes": ()}, "no dtype"),
        ({"paths": ("nativ",)}, "unknown path 'nativ'; did you mean 'native'"),
        ({"paths": ()}, "no path"),
        ({"timeout": -1.0}, "positive number of seconds"),
        ({"memory_limit": 0}, "a memory limit is a positive size"),
        ({"pythons": {"torch": "python"}}, "'torch', which is not checked"),
        ({"sizes": {"hiden": 3}}, "did you mean 'hidden'"),
    ],
)
def test_request_that_cannot_be_run_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Engine(Request(specs=(SPEC,), backends=("numpy",), **options))  # type: ignore[arg-type]


def test_checks_are_chosen_by_patterns_in_the_order_of_the_run() -> None:
    assert choose_checks(("*",)) == tuple(CHECKS)
    assert choose_checks(("training*", "values")) == ("values", "training", "training-sgd")


def test_events_tell_the_run_in_order_and_the_worker_stays_warm() -> None:
    class Kept(Events):
        def __init__(self) -> None:
            self.told: list[str] = []

        def planned(self, cells: object) -> None:
            self.told.append("planned")

        def began(self, cell: Cell) -> None:
            self.told.append(f"began {cell.dtype}")

        def found(self, cell: Cell, finding: Finding) -> None:
            self.told.append(finding.check)

        def ended(self, result: CellResult) -> None:
            self.told.append(f"ended {result.verdict}")

    events = Kept()
    request = Request(specs=(SPEC,), backends=("numpy",), checks=("inference",))
    with Engine(request, events) as engine:
        engine.run()
        assert engine.workers["numpy"].starts == 1
    cells = [[f"began {d}", "inference", "ended agree"] for d in ("float64", "float32")]
    assert events.told == ["planned", *cells[0], *cells[1]]


def test_cell_that_is_interrupted_gets_no_verdict(tmp_path: Path) -> None:
    """Its worker is killed from here, which must not be told as a crash."""
    records = tmp_path / "r.jsonl"
    request = Request(specs=(SPEC,), backends=("numpy",), records=records)

    class Interrupt(Events):
        def began(self, cell: Cell) -> None:
            if cell.dtype == "float32":
                threading.Timer(0.0, stop).start()

    with Engine(request, Interrupt()) as engine:

        def stop() -> None:
            engine._stopping.set()
            kill_all()

        found = engine.run()
    assert [r.cell.dtype for r in found.results] == ["float64"]
    assert [r["dtype"] for r in read_records(records).of_kind("end")] == ["float64"]
    assert len(read_records(records).of_kind("begin")) == 2


@pytest.mark.parametrize(("kind", "offered"), [("dtypes", ["float64"]), ("devices", ["tpu"])])
def test_what_a_backend_does_not_offer_is_unsupported(
    kind: str, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(specs=(SPEC,), backends=("numpy",), dtypes=("float32",))
    with Engine(request) as engine:
        hello = engine.workers["numpy"].start().value
        monkeypatch.setattr(engine.workers["numpy"], "_hello", {**hello, kind: offered})
        (result,) = engine.run().results
    assert [f.verdict for f in result.findings] == ["unsupported"]
    assert f"is not offered (offered: {offered[0]})" in result.findings[0].detail


def test_check_from_python_is_the_check_of_the_command_line() -> None:
    found = harness.check([SPEC], backends=["numpy"], checks=("values",))
    assert found.exit_code == 0
    assert len(found.results) == 2


# Who may import what.


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, inside functions and under TYPE_CHECKING too.

    Only backends import relatively.
    """
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2
            parts = ["harness.backends"] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_of_a_backend(module: str) -> bool:
    return module.partition(".")[0] in FRAMEWORKS or (module + ".").startswith("harness.backends.")


def named_backend_modules(path: Path) -> list[str]:
    """Strings that name a module of a backend, as a call to ``import_module`` would."""
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("harness.backends.")
    ]


HARNESS_FILES = sorted((ROOT / "harness").rglob("*.py"))
BACKEND_FILES = sorted(p for p in (ROOT / "backends").glob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", HARNESS_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_harness_names_no_backend_and_no_framework(path: Path) -> None:
    assert [m for m in imports(path) if is_of_a_backend(m)] == []
    assert named_backend_modules(path) == []


@pytest.mark.parametrize("path", BACKEND_FILES, ids=lambda p: p.name)
def test_backend_imports_the_contract_and_its_own_framework(path: Path) -> None:
    family = path.stem.partition("_")[0]
    # Keras on JAX compiles as the jax backend does, and on torch plans run as in the torch backend.
    siblings = {"keras": "keras|jax|torch"}.get(family, family)
    for module in imports(path):
        top = module.partition(".")[0]
        if top in FRAMEWORKS:
            assert top in OWN[family], module
        elif module.startswith("harness.backends."):
            assert re.match(rf"harness\.backends\.({siblings})(_\w+)?(\.|$)", module), module
        elif top == "harness" and module not in ("harness", "harness.backends"):
            assert any((module + ".").startswith(f"{p}.") for p in PUBLIC), module


def test_the_scan_sees_what_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(
        "from harness.backends import numpy\n"
        "def f():\n    import torch.nn\n    import_module('harness.backends.jax.backend')\n"
    )
    found = [m for m in imports(file) if is_of_a_backend(m)]
    assert found == ["harness.backends", "harness.backends.numpy.backend", "torch.nn"]
    assert named_backend_modules(file) == ["harness.backends.jax.backend"]
    assert len(HARNESS_FILES) > 50
    assert len(BACKEND_FILES) >= 4


def test_own_backends_have_the_entry_points_of_anybody() -> None:
    own = {n: o for n, o in available().items() if o.distribution == "backend-comparison-harness"}
    assert set(own) == {"numpy", "torch", "jax", "keras", "keras-torch", "keras-jax"}
    for name, origin in own.items():
        assert origin.module == f"harness.backends.{name.partition('-')[0]}"
        assert not origin.rivals
