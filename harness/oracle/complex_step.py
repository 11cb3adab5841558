"""Test of the oracle's gradients by the complex-step method, a numerical derivative.

For an analytic f, f'(x) v = Im f(x + ihv) / h. This formula subtracts no nearly equal numbers, so
with h = 1e-30 it is exact up to rounding (Squire and Trapp, 1998). The complex step runs only the
forward program, on complex numbers. It therefore does not depend on the derivative rules that it
tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

import numpy as np

from harness.arrays import Array, widen
from harness.caching import noise_store
from harness.caching.noise_store import Noise
from harness.errors import HarnessError
from harness.language.initializers import generator
from harness.oracle import oracle
from harness.oracle.case import HUGE, Case, values_of_ports
from harness.oracle.time_limit import within_limits
from harness.oracle.tolerance import K, scales
from harness.program.ir import Program, needed_nodes
from harness.program.serial import digest
from harness.program.signature import ONE_BY_ONE, by_kind, variable_ports

STEP = 1e-30
# Largest allowed relative gap. Measured gaps are about 1e-15 for all models and definitions.
ALLOWED = 1e-12
# The number of directions in a model with more than HUGE numbers, whose passes take long.
DIRECTIONS = 4


def complex_step_gap(case: Case) -> float:
    """Return the largest relative difference (gap) between the oracle's gradients and the complex
    step. If a gap is too large, the oracle's gradients are wrong, and the function raises
    :class:`HarnessError`.

    For each parameter, float input and state, the derivative of the loss along a random direction
    is computed in two ways: by the gradient and by the complex step. In a model with many
    variables, several variables share a direction. The difference is divided by the sum of the
    absolute terms of the inner product of gradient and direction. Directions with an infinite or
    NaN derivative are skipped. The result is NaN if all directions are skipped, and 0 for a model
    without a loss.
    """
    if case.training.loss is None:
        return 0.0
    program, loss_value = case.training, case.training.loss

    def measure() -> Noise:
        # Measured: up to 37 bytes for each number, most of them for complex values and parameters.
        with within_limits(case.entries * 40):
            return {"gap": _largest_gap(case, program, loss_value)}

    return noise_store.kept(_identity(case) if noise_store.current() else b"", measure)["gap"]


def _identity(case: Case) -> bytes:
    """Return a checksum of everything that determines the gap."""
    start = f"complex step {_most_directions(case)} {case.seed} {digest(case.training)}"
    checksum = hashlib.blake2b(start.encode() + noise_store.origin())
    gradients = case.gradients(case.material, "main").values
    for array in (*_environment(case)[0].values(), *gradients.values()):
        noise_store.add_array(checksum, array)
    return checksum.digest()


def _largest_gap(case: Case, program: Program, loss_value: int) -> float:
    """Return the largest relative difference between gradient and complex step over all directions.
    ``loss_value`` is the number of the loss in the program."""
    expected = case.gradients(case.material, "main")
    gradients = expected.values
    values, sizes = _environment(case)
    nodes = needed_nodes(program.nodes, [loss_value])
    gaps: list[float] = []
    ports = variable_ports(program)
    for names in _variable_groups(list(ports), _most_directions(case)):
        directions = {
            n: generator(case.seed, f"direction {n}").normal(size=values[ports[n].value].shape)
            for n in names
        }
        shifted = {
            ports[n].value: values[ports[n].value] + 1j * STEP * directions[n] for n in names
        }
        known_values = {**values, **shifted}
        results = oracle.run(nodes, known_values, sizes, "complex128", ends=[loss_value])
        loss = results[loss_value]
        inner_product = magnitude = 0.0
        with np.errstate(all="ignore"):  # overflow on purpose
            for name in names:
                terms = gradients[f"gradient.{name}"] * directions[name]
                inner_product += float(terms.sum())
                magnitude += float(np.abs(terms).sum())
            gap = abs(float(np.imag(loss)) / STEP - inner_product)
        if not np.isfinite(gap):
            continue
        if gap > ALLOWED * magnitude:
            # If a gradient is zero except for rounding errors (e.g. of a bias before a
            # normalisation), compare the gap with the measured rounding error.
            for name in names:
                key = f"gradient.{name}"
                rounding = K * expected.noise("float64")[key] * scales(gradients)[key]
                magnitude += rounding * float(np.abs(directions[name]).sum()) / ALLOWED
        gaps.append(gap / max(magnitude, 1e-300) if gap else 0.0)
    worst = max(gaps, default=float("nan") if ports else 0.0)
    if worst > ALLOWED:
        raise HarnessError(
            f"{program.name}: the oracle's gradient and the complex step differ by {worst:.1e} "
            f"(allowed: {ALLOWED:.0e}); a derivative rule is wrong, so no backend can be checked"
        )
    return worst


def _most_directions(case: Case) -> int:
    return DIRECTIONS if case.entries > HUGE else ONE_BY_ONE


def _variable_groups(names: Sequence[str], most: int) -> list[list[str]]:
    """Divide the variables (parameters, inputs, states) into at most ``most`` groups; the variables
    of a group share a direction.

    If there are few variables, each is a group. If there are many, a group has the same variable
    (e.g. ``W``) of all blocks. Each group costs a pass through the whole model. With a group for
    every variable, the time would grow with the square of the depth. A wrong gradient is still
    visible in the sum over its group, because the gradients of the same variable have similar sizes
    in all blocks.
    """
    if len(names) <= most:
        return [[name] for name in names]
    similar = by_kind(names)
    return [[*chain(*similar[start::most])] for start in range(min(most, len(similar)))]


def _environment(case: Case) -> tuple[dict[int, Array], dict[str, int]]:
    """Return two dictionaries: the arrays of the test case by value number, and all sizes by name.
    The arrays are real. If a variable is shifted by an imaginary step, numpy makes the values that
    depend on it complex."""
    program = case.training
    values = {v: widen(array) for v, array in values_of_ports(program, case.material).items()}
    return values, {**program.sizes, "batch": case.batch, "time": case.time}
