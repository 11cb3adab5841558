"""The built-in backends with faults: ``faulty-NAME`` is NAME, except in cells with a fault.

The environment variable ``FAULTS`` is JSON that maps a cell (``SPEC DTYPE``) to a function of this
file, or to a function of ``tests/support/process_faults`` and the time of its call (``open:VERB``,
``gradients:VERB``). If the file named by ``FAULTY_MARK`` exists, this module fails to import once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.program.ir import Program
from harness.runtime import plugins
from harness.runtime.backend import Backend
from harness.runtime.hookspecs import hookimpl
from harness.runtime.session import Session

PREFIX = "faulty-"
MARK = Path(os.environ.get("FAULTY_MARK", os.devnull))
LARGEST_ALLOCATION = 8 << 30

if MARK.is_file():
    MARK.unlink()
    raise ImportError("libfaulty.so: cannot open shared object file")


def segfault(session: Session) -> None:
    _instead(session, "gradients", lambda _: ctypes.string_at(0))


def sigkill_in_mid_cell(session: Session) -> None:
    """Answer the first check, and kill the process in the forward passes of the next check."""
    _instead(session, "forward", lambda _: os.kill(os.getpid(), signal.SIGKILL))


def hang_with_gil(session: Session) -> None:
    # PyDLL keeps the GIL: no other thread and no signal handler runs.
    _instead(session, "gradients", lambda _: ctypes.PyDLL(None).sleep(3600))


def exit_0(session: Session) -> None:
    _instead(session, "gradients", lambda _: os._exit(0))


def allocate(session: Session) -> None:
    def grow(_: Any) -> None:
        held: list[Any] = []
        while sum(array.nbytes for array in held) < LARGEST_ALLOCATION:
            held.append(np.ones(32 << 20, np.uint8))

    _instead(session, "gradients", grow)


def print_megabytes(session: Session) -> None:
    def talk(_: Any) -> None:
        for _ in range(8):
            os.write(1, b"x" * (1 << 20))

    _instead(session, "gradients", talk, then=lambda results: results)


def wrong_shape(session: Session) -> None:
    _outputs(session, lambda array: array[None])


def nan(session: Session) -> None:
    _outputs(session, lambda array: array * np.nan)


def none(session: Session) -> None:
    _outputs(session, lambda array: None)


def view_of_own_buffer(session: Session) -> None:
    """Return the same memory from every call, overwritten with the newest results."""
    buffers: dict[str, Any] = {}

    def reuse(results: dict[str, Any]) -> dict[str, Any]:
        for name, array in results.items():
            buffers.setdefault(name, np.empty_like(array))[...] = array
        return {name: buffers[name] for name in results}

    _instead(session, "forward", lambda _: None, then=reuse)


def indices_of_four_bits(session: Session) -> None:
    """Truncate indices to four bits, so that results are right if no index exceeds 15."""
    right = session.arguments

    def wrong(phase: Any, inputs: Any, *others: Any) -> Any:
        kept = {n: a & 15 if a.dtype.kind == "i" else a for n, a in inputs.items()}
        return right(phase, kept, *others)

    session.arguments = wrong  # type: ignore[method-assign]


def lose_modules(session: Session) -> None:
    """Return the right answer, and then break the process."""

    def lose(results: Any) -> Any:
        sys.modules.clear()
        return results

    _instead(session, "gradients", lambda _: None, then=lose)


def killed_and_no_import(session: Session) -> None:
    """Kill the process, and make the next process fail at its start."""
    MARK.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def process_fault(session: Session, when: str, verb: str) -> None:
    """Run a fault of ``process_faults`` in this process."""
    from process_faults import verbs

    if when == "open":
        verbs.verb(verb)()
    else:
        _instead(session, when, lambda _: verbs.verb(verb)())


def _instead(
    session: Session,
    method: str,
    fault: Callable[[Any], Any],
    then: Callable[[Any], Any] | None = None,
) -> None:
    """Run ``fault`` before a method of the session, and ``then`` on what the method returns."""
    right = getattr(session, method)

    def wrong(*arguments: Any, **named: Any) -> Any:
        fault(session)
        results = right(*arguments, **named)
        return then(results) if then else results

    setattr(session, method, wrong)


def _outputs(session: Session, change: Callable[[Any], Any]) -> None:
    def changed(answer: tuple[dict[str, Any], Any]) -> tuple[dict[str, Any], Any]:
        results, gradients = answer
        outputs = {n: change(a) for n, a in results.items() if n.startswith("output.")}
        return {**results, **outputs}, gradients

    _instead(session, "gradients", lambda _: None, then=changed)


@hookimpl
def harness_environment(name: str) -> Mapping[str, str]:
    return plugins.environment(name.removeprefix(PREFIX))


@hookimpl
def harness_backend(name: str) -> Backend:
    backend = plugins.load(name.removeprefix(PREFIX))
    backend.name = name
    right = backend.session
    faults = json.loads(os.environ.get("FAULTS", "{}"))

    def session(training: Program, inference: Program, **choices: Any) -> Session:
        own = right(training, inference, **choices)
        made = Session(backend, training, inference, **choices) if own is None else own
        fault = faults.get(f"{training.name} {choices['dtype']}")
        if fault is not None and ":" in fault:
            when, _, verb = fault.partition(":")
            process_fault(made, when, verb)
        elif fault is not None:
            globals()[fault](made)
        return made

    backend.session = session  # type: ignore[method-assign]
    return backend
