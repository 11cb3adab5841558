"""Variants of the numpy backend, each with one mistake of the Lesson 6 notebook.

``notebook-scalar`` and ``notebook-in-place`` can run only ``lesson6/pure_python_rnn``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import notebook_rnn
import numpy as np

from harness.program.ir import Program
from harness.runtime import plugins
from harness.runtime.backend import Backend
from harness.runtime.hookspecs import hookimpl
from harness.runtime.session import Session

Answer = tuple[dict[str, Any], dict[str, Any]]


def scalar(session: Session) -> None:
    """Make the mistake of In[266]: the gradient of ``w_h`` is a single number, an inner product."""
    right = session.gradients

    def wrong(phase: Any, inputs: Any, state: Any, targets: Any, cotangents: Any = None) -> Answer:
        results, gradients = right(phase, inputs, state, targets, cotangents)
        if cotangents is None:
            moves = _moves(session, inputs, targets, scalar=True)
            gradients["rnn.U"] = moves["rnn.U"].astype(gradients["rnn.U"].dtype)
        return results, gradients

    session.gradients = wrong  # type: ignore[method-assign]


def in_place(session: Session) -> None:
    """Make the mistake of In[266]: the loop over time updates weights that later steps read."""

    def wrong(inputs: Any, state: Any, targets: Any, learning_rate: float) -> dict[str, Any]:
        results = session.forward("training", inputs, state, targets)
        moves = _moves(session, inputs, targets, scalar=False, rate=learning_rate)
        for name, move in moves.items():
            old = session.variables[name]
            session.variables[name] = (old - learning_rate * move).astype(old.dtype)
        return results

    session.step = wrong  # type: ignore[method-assign]


def rate(session: Session) -> None:
    """Make the mistake of In[29] to In[36]: later assignments do not change the learning rate."""
    right, load = session.step, session.load
    given: list[float] = []

    def begin(*arguments: Any) -> None:
        given.clear()
        load(*arguments)

    def wrong(inputs: Any, state: Any, targets: Any, learning_rate: float) -> dict[str, Any]:
        given.append(learning_rate)
        return right(inputs, state, targets, given[0])

    session.load, session.step = begin, wrong  # type: ignore[method-assign]


def types(session: Session) -> None:
    """Make the mistake of In[144]: subtract a float64 rate times the gradient from float32 weights.
    The weights become float64."""
    right = session.step

    def wrong(inputs: Any, state: Any, targets: Any, learning_rate: float) -> dict[str, Any]:
        before = dict(session.variables)
        results = right(inputs, state, targets, learning_rate)
        for name, old in before.items():
            gradient = (old - session.variables[name]) / np.float32(learning_rate)
            session.variables[name] = old - np.array([learning_rate]) * gradient
        return results

    session.step = wrong  # type: ignore[method-assign]


MISTAKES: Mapping[str, Callable[[Session], None]] = {
    "notebook-scalar": scalar,
    "notebook-in-place": in_place,
    "notebook-rate": rate,
    "notebook-types": types,
}


def _moves(session: Session, inputs: Any, targets: Any, **choices: Any) -> dict[str, Any]:
    """Return the sum of the notebook's weight changes over all sequences of a batch."""
    found = [
        notebook_rnn.moves(x, y, session.variables, **choices)
        for x, y in zip(inputs["chars"], targets["target"], strict=True)
    ]
    return {name: sum(moves[name] for moves in found) for name in found[0]}


@hookimpl
def harness_backend(name: str) -> Backend:
    backend = plugins.load("numpy")
    backend.name = name

    def session(training: Program, inference: Program, **choices: Any) -> Session:
        made = Session(backend, training, inference, **choices)
        # The harness checks functions and optimizers with models named probe/...
        if not training.name.startswith("probe/"):
            MISTAKES[name](made)
        return made

    backend.session = session  # type: ignore[method-assign]
    return backend
