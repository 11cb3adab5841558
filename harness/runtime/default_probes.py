"""Functions with which a plugin measures the defaults of its framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from harness.runtime.hookspecs import Measured, Probe


class Probes(dict[str, Probe]):
    """The functions of a plugin that measure its framework's defaults, for :mod:`harness.defaults`.

    Each function has no arguments and is decorated with ``@PROBES``. The function ``gru_reset``
    measures the catalogue entry ``gru-reset``.
    """

    def __call__(self, function: Probe) -> Probe:
        """Add a function under its own name, with hyphens for underscores."""
        self[function.__name__.replace("_", "-")] = function
        return function

    def looked_up(self, row: Callable[[int], Measured]) -> None:
        """Add the two measurements of an index outside of a table with three rows.

        ``row`` looks up an index, here 3 (too large) and -1 (negative). It returns the row that the
        framework read (``row 2``), ``NaN`` or ``error``.
        """
        self["index-too-large"] = partial(row, 3)
        self["index-negative"] = partial(row, -1)

    def observe(self, observations: Mapping[str, Callable[..., Any]]) -> None:
        """Add measurements by the name of their catalogue entry.

        Each function returns what it observes, as a number or an array that numpy can convert. The
        result of the measurement is the text for this observation: see :data:`READINGS`.
        """
        for entry, observe in observations.items():
            self[entry] = partial(READINGS[entry], observe)


def _choice(yes: str, no: str) -> Callable[[Callable[[], Any]], Measured]:
    """Return a reading of an observation that is true or false (0)."""
    return lambda observe: yes if observe() else no


def _number(observe: Callable[[], Any]) -> float:
    return float(np.ravel(observe())[0])


def _average_offset(normalise: Callable[[Any], Any]) -> Measured:
    """Normalise a batch with mean 1e4; return ``lost`` if rounding makes the variance wrong."""
    x = np.random.default_rng(0).normal(size=(64, 1)).astype("float32") + np.float32(1e4)
    true = (x.astype("float64") - x.mean(dtype="float64")) / x.astype("float64").std()
    return "kept" if np.abs(np.asarray(normalise(x)) - true).max() < 0.05 else "lost"


def _gru_gates(state_with: Callable[[int], Any]) -> Measured:
    """Name the blocks of a GRU's arrays; ``state_with`` returns the state after one step from 3 if
    the bias of one block is large."""
    gates = {3.0: "z", 1.5: "r", 2.0: "n"}
    return ", ".join(gates[round(float(state_with(block)), 3)] for block in range(3))


def _lstm_gates(states_with: Callable[[int], Any]) -> Measured:
    """Name the blocks of an LSTM's arrays; ``states_with`` returns the state and the cell after one
    step from (0, 3) if the bias of one block is large."""
    gates = []
    for block in range(4):
        h, c = map(float, states_with(block))
        gates.append({3.0: "f", 2.0: "g"}.get(round(c, 3)) or ("o" if h > 0.6 else "i"))
    return ", ".join(gates)


def _sharing(convert: Callable[[Any], Any]) -> Measured:
    """Change a numpy array after its conversion; return whether the tensor changes too.

    ``convert`` returns a function that reads the tensor.
    """
    source = np.zeros(1, "float32")
    read = convert(source)
    source[0] = 1
    return "shares" if float(read()[0]) else "copies"


def _reduction(observe: Callable[[], Any]) -> Measured:
    """Name the reduction of the cross entropy of four rows, each of which has the loss log 2."""
    loss = observe()
    return "none" if np.ndim(loss) else "mean" if abs(float(loss) - np.log(2)) < 1e-6 else "sum"


def _drawn_or_constant(observe: Callable[[], Any]) -> Measured:
    values = np.asarray(observe())
    return "drawn" if values.std() > 0 else float(values[0])


def _cut_off(observe: Callable[[], Any]) -> Measured:
    drawn = np.asarray(observe())
    return "cut off" if np.abs(drawn).max() / drawn.std() < 2.5 else "whole"


def _orthogonal(observe: Callable[[], Any]) -> Measured:
    kernel = np.asarray(observe())
    square = kernel @ kernel.T
    return "orthogonal" if np.allclose(square, np.eye(len(square)), atol=1e-4) else "uniform"


# How the observation of a framework becomes the result of a measurement, for each catalogue entry
# that several frameworks measure in the same way.
READINGS: Mapping[str, Callable[[Callable[..., Any]], Measured]] = {
    "array-sharing": _sharing,
    "batch-norm-offset": _average_offset,
    "batch-norm-phase": _choice("training", "inference"),
    "batch-norm-variance": lambda observe: "unbiased" if _number(observe) > 1.5 else "biased",
    "cross-entropy-input": lambda observe: "logits" if _number(observe) > 0.1 else "probabilities",
    "dense-bias-initial": lambda observe: "drawn" if np.abs(observe()).max() > 0 else "zeros",
    "dense-kernel-layout": lambda observe: "out, in" if observe() == (3, 2) else "in, out",
    "gelu-form": lambda observe: "exact" if abs(_number(observe) - 0.841345) < 1e-5 else "tanh",
    "gru-gates": _gru_gates,
    "gru-reset": lambda observe: "before" if _number(observe) > 0.1 else "after",
    "he-normal-tail": _cut_off,
    "loss-reduction": _reduction,
    "lstm-forget-bias": _drawn_or_constant,
    "lstm-gates": _lstm_gates,
    "masked-steps": lambda observe: "zeros" if _number(observe) == 0 else "the output before",
    "order-of-data": _choice("shuffled", "as given"),
    "padding-index": lambda observe: "mask" if np.abs(observe()).max() else "row of zeros",
    "rate-dtype": lambda observe: "exact" if abs(_number(observe) - 0.1) < 1e-15 else "float32",
    "recurrent-kernel-initial": _orthogonal,
    "recurrent-layout": lambda observe: "batch first" if observe() == 5 else "time first",
    "recurrent-output": lambda observe: "every step" if observe() == 3 else "last step",
    "softmax-axis": lambda observe: {0.5: 0, 0.333: 1, 0.2: -1}[round(_number(observe), 3)],
}
