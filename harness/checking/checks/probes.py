"""Models of the harness' own, ``specs/probes/``: what a framework does, whatever the model.

What is found with one holds for every cell of a process: it is asked for once, and all cells of
one dtype, device and path have the same finding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from harness.checking.checks.context import Context
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.program.ir import Program
from harness.runtime.arguments import Arguments
from harness.worker.worker import Worker

T = TypeVar("T")
_known: WeakKeyDictionary[Worker, dict[Hashable, Any]] = WeakKeyDictionary()


def once(context: Context, key: Hashable, ask: Callable[[], T]) -> T:
    """What was asked of a worker's process, in the settings of a cell, when it was asked first."""
    worker = context.remote.worker
    known = _known.setdefault(worker, {})
    full = (worker.starts, context.device, context.dtype, context.path, key)
    if full not in known:
        known[full] = ask()
    found: T = known[full]
    return found


@cache
def probe(name: str) -> Spec:
    """A model of ``specs/probes/``."""
    text = files("harness.specs.probes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return load_spec(f"probe/{name}", overrides={("model", f"probe/{name}"): text})


def probe_case(name: str, batch: int, make: Callable[[Program], Arguments]) -> Case:
    """The case of a probe: its material is made by ``make``, not drawn."""

    def made(training: Program, _: Program, seed: int) -> tuple[int, Arguments]:
        return seed, make(training)

    return Case(probe(name), {}, batch, 1, drawing=made)
