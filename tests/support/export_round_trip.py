"""A test of export and import in a format: outputs in both dtypes, and weights."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from format_cases import ALLOWED, Case, assert_comes_back, outputs, written
from needed import need

from harness.convert.formats import launch
from harness.language.model import Spec
from harness.worker.worker import Worker

# The package that each format needs, and the suffix of its files.
NEEDS = {"torch": "torch", "jax": "jax", "keras": "keras", "onnx": "onnxruntime"}
SUFFIXES = {"torch": ".pt", "jax": ".npz", "keras": ".keras", "onnx": ".onnx"}


def assert_round_trip(
    format_: str, spec: Spec, folder: Path, sizes: Iterable[tuple[int, int]]
) -> None:
    """Assert that outputs equal the oracle's for each (batch, time), and that weights are read back
    unchanged."""
    need(NEEDS[format_])
    environment = {"KERAS_BACKEND": "tensorflow"} if format_ == "keras" else {}
    with Worker(launch(format_, environment=environment)) as worker:
        for dtype in ALLOWED:
            case, path = Case.of(spec, dtype), folder / f"model{SUFFIXES[format_]}"
            assert path in written(worker, case, path)
            for batch, time in sizes:
                assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
            assert_comes_back(worker, case, path)


def torch_module(spec: Spec, path: Path, name: str) -> Any:
    """Import the Python module of a model that is written to ``path`` in float64."""
    with Worker(launch("torch")) as worker:
        written(worker, Case.of(spec, "float64"), path)
    return import_module(path, name)


def import_module(path: Path, name: str) -> Any:
    """Import the Python module beside an exported file."""
    found = spec_from_file_location(name, path.with_suffix(".py"))
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    sys.modules.pop(name, None)
    return module
