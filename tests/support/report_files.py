"""Files for reports: a real small check with a planted fault, speeds, and a training.

The check and the training run once for all processes of pytest; tests get copies of their files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench_results import REQUEST, refused, result
from places import TESTS

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.timing import json_file
from harness.training.request import TrainRequest, prepare
from harness.training.run import TrainingRun

MUTANTS = TESTS / "mutants"
TEXT = 60 * "the quick brown fox jumps over the lazy dog. "
WRONG = "leaky-relu"
CHECKS = ("values", "training", "batch-independence")


@contextmanager
def installed() -> Iterator[None]:
    """Install the planted faults as plugins, in this process and in workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(MUTANTS)
        patch.setenv("PYTHONPATH", str(MUTANTS))
        yield


def copied(name: str, make: Callable[[Path], None], path: Path) -> Path:
    """Copy a file that is made at its first use, into the cache folder of the tests."""
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "report_files"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    if not file.exists():
        new = folder / str(os.getpid()) / name
        new.parent.mkdir(exist_ok=True)
        make(new)
        new.replace(file)
    shutil.copy(file, path)
    return path


def records(path: Path) -> Path:
    """Write records of a system on numpy, and of the same system with a planted fault."""
    return copied("run.jsonl", _check, path)


def _check(path: Path) -> None:
    asked: dict[str, Any] = {"specs": ("lesson6/first_rnn",), "records": path, "jobs": 1}
    with installed():
        for backend, device in (("numpy", "cpu"), ("mutants-1", WRONG)):
            request = Request(backends=(backend,), device=device, checks=CHECKS, **asked)
            with Engine(request) as engine:
                engine.run(["check", "--backend", backend])


def changed(records: Path, path: Path, change: Mapping[str, Any], **where: Any) -> Path:
    """Copy records, with changed fields in the lines whose fields equal those in ``where``."""
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        if all(line.get(name) == value for name, value in where.items()):
            line |= {n: v(line[n]) if callable(v) else v for n, v in change.items()}
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    path.write_text(text)
    return path


def many(records: Path, path: Path, cells: int) -> Path:
    """Copy records, with their four cells repeated under many names of systems."""
    head, *lines = records.read_text().splitlines()
    with path.open("w") as file:
        file.write(head + "\n")
        for number in range(cells // 4):
            for line in map(json.loads, lines):
                if line["kind"] != "head":
                    line["spec"] = f"system_{number}"
                    file.write(json.dumps(line, separators=(",", ":")) + "\n")
    return path


def speeds(path: Path, factor: float = 1.0) -> Path:
    """Write speeds of three backends, one of them without a speed."""
    fast, slow = result("numpy", 0.001), result("torch", 0.002 * factor)
    json_file.write(path, json_file.document(REQUEST, [fast, slow, refused("jax")]))
    return path


def weights(path: Path) -> Path:
    """Write the weights of a model after a training of two epochs."""
    return copied("w.safetensors", _train, path)


def _train(path: Path) -> None:
    text = path.with_suffix(".txt")
    text.write_text(TEXT)
    sizes = {"hidden": 6, "factors": 4}
    request = TrainRequest(
        "lesson6/sequence_rnn", "numpy", text=str(text), epochs=2, batch=4, sizes=sizes
    )
    with TrainingRun(prepare(request), path) as training:
        training.run()
