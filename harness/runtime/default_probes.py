"""Functions with which a plugin measures the defaults of its framework, e.g. the epsilon of its
batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from harness.runtime.hookspecs import Measured, Probe


class Probes(dict[str, Probe]):
    """The functions of a plugin that measure its framework's defaults, for :mod:`harness.defaults`.

    Each function has no arguments and is decorated with ``@PROBES``. A function measures the
    default whose name in the catalogue is the function's name with hyphens, e.g. ``gru_reset``
    measures ``gru-reset``.
    """

    def __call__(self, function: Probe) -> Probe:
        """Add a function (as a decorator) under its own name, with hyphens instead of
        underscores."""
        self[function.__name__.replace("_", "-")] = function
        return function

    def looked_up(self, row: Callable[[int], Measured]) -> None:
        """Add two measurements: the result of looking up an index that is too large, and of a
        negative index, in a table with three rows.

        ``row(index)`` looks up the index, 3 or -1. It returns which row the framework read (e.g.
        ``row 2``), or ``NaN``, or ``error``.
        """
        self["index-too-large"] = partial(row, 3)
        self["index-negative"] = partial(row, -1)

    def observe(self, observations: Mapping[str, Callable[..., Any]]) -> None:
        """Add a measurement for each name in ``observations``, which are names of the catalogue of
        defaults.

        The function of a name runs the framework, and returns a number or an array that numpy can
        convert. :data:`READINGS` has the functions that turn this number or array into the text of
        the result.
        """
        for entry, observe in observations.items():
            self[entry] = partial(READINGS[entry], observe)


def _choice(yes: str, no: str) -> Callable[[Callable[[], Any]], Measured]:
    """Return a function that gets a function without arguments, calls it, and returns the text
    ``yes`` if its result is true, else ``no``."""
    return lambda observe: yes if observe() else no


def _number(observe: Callable[[], Any]) -> float:
    return float(np.ravel(observe())[0])


def _average_offset(normalise: Callable[[Any], Any]) -> Measured:
    """Test whether a framework's normalisation is accurate for data with a large mean.
    ``normalise`` is applied to a batch with mean 1e4. Return ``lost`` if rounding errors make the
    result wrong, otherwise ``kept``."""
    x = np.random.default_rng(0).normal(size=(64, 1)).astype("float32") + np.float32(1e4)
    true = (x.astype("float64") - x.mean(dtype="float64")) / x.astype("float64").std()
    return "kept" if np.abs(np.asarray(normalise(x)) - true).max() < 0.05 else "lost"


def _gru_gates(state_with: Callable[[int], Any]) -> Measured:
    """Return the order of the gates in a GRU's arrays, e.g. ``z, r, n``.

    ``state_with(block)`` returns the state after one step from state 3, if the block with this
    number (a third of the bias array) has a large bias. The result shows which gate the block
    belongs to.
    """
    gates = {3.0: "z", 1.5: "r", 2.0: "n"}
    return ", ".join(gates[round(float(state_with(block)), 3)] for block in range(3))


def _lstm_gates(states_with: Callable[[int], Any]) -> Measured:
    """Return the order of the gates in an LSTM's arrays, e.g. ``i, f, g, o``.

    ``states_with(block)`` returns (h, c) after one step from (0, 3), if the block with this number
    (a quarter of the bias array) has a large bias. The result shows which gate the block belongs
    to.
    """
    gates = []
    for block in range(4):
        h, c = map(float, states_with(block))
        gates.append({3.0: "f", 2.0: "g"}.get(round(c, 3)) or ("o" if h > 0.6 else "i"))
    return ", ".join(gates)


def _sharing(convert: Callable[[Any], Any]) -> Measured:
    """Return ``shares`` if a tensor shares the memory of the numpy array from which it was made. To
    find out, the array is changed after its conversion.

    ``convert`` converts an array and returns a function that reads the tensor.
    """
    source = np.zeros(1, "float32")
    read = convert(source)
    source[0] = 1
    return "shares" if float(read()[0]) else "copies"


def _reduction(observe: Callable[[], Any]) -> Measured:
    """Return how a framework's cross entropy reduces the losses of several rows by default:
    ``none``, ``mean`` or ``sum``. ``observe`` computes it for four rows, each of which has the loss
    log 2."""
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
