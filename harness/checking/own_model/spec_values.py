"""The oracle's values of a spec's pass, and the search for an array of a user's model in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from harness.arrays import Array
from harness.checking.first_difference import DECISIVE
from harness.checking.own_model.checks import ModelContext
from harness.oracle import oracle
from harness.oracle.tolerance import FLOOR, PRECISION, VOID, K, relative_error
from harness.oracle.yardstick import FEW, Expected, Reference
from harness.program.ir import Node, Port, Program, inline_calls, needed_nodes, reads
from harness.program.signature import result_ports
from harness.runtime.answers import Arguments
from harness.runtime.own_model.renames import fits
from harness.runtime.session import Session

# Equal arrays with fewer entries may be equal by chance.
LEAST_ENTRIES = 8


class SpecValues:
    """The oracle's values of a forward pass in inference, by their numbers in the program.

    Values inside loops and weights are left out. A value is compared in ``dtype`` with the same
    yardsticks as outputs.
    """

    def __init__(self, context: ModelContext, material: Arguments, dtype: str) -> None:
        self.program: Program = context.case.inference
        self.batch, self.time = context.case.batch, context.case.time
        # The inputs, state and weights of the pass, by value.
        self.given = {
            port.value: arrays[port.name]
            for ports, arrays in (
                (self.program.inputs, material.inputs),
                (self.program.state, material.state),
                (self.program.parameters, material.parameters),
                (self.program.statistics, material.statistics),
            )
            for port in ports
        }
        results = result_ports(self.program, "forward").values()
        self.nodes = needed_nodes(inline_calls(self.program.nodes), results)
        expected = self._expected(context.case.training, material)
        noise = expected.noise(dtype)
        self.arrays: dict[int, Array] = {}
        self._tolerances: dict[int, float] = {}
        self._equal: dict[int, int] = {}
        for port in (*self.program.inputs, *self.program.state):
            self.arrays[port.value] = self.given[port.value]
            self._tolerances[port.value] = K * FLOOR
        for name, array in expected.values.items():
            allowed = K * max(noise[name], FLOOR * PRECISION[dtype])
            if allowed < VOID:
                self.arrays[int(name.partition(".")[0])] = array
                self._tolerances[int(name.partition(".")[0])] = allowed

    def _with_all_outputs(self) -> Program:
        values = [
            value
            for node in self.nodes
            for value in node.outputs
            if self.program.types[value].kind == "float" and self.program.types[value].shape
        ]
        ports = tuple(Port(f"{value}", value) for value in values)
        return replace(
            self.program, nodes=self.nodes, outputs=ports, new_state=(), new_statistics=()
        )

    def _expected(self, training: Program, material: Arguments) -> Expected:
        def run(session: Session) -> list[Mapping[str, Array]]:
            session.load(material.parameters, material.statistics)
            results = session.forward("inference", material.inputs, material.state)
            # Each value is a kind of its own: a mask of -1e30 is no measure for other values.
            return [{f"{n.removeprefix('output.')}.value": a for n, a in results.items()}]

        with np.errstate(all="ignore"):
            return Reference(training, self._with_all_outputs(), orders=FEW).expect(run)

    def error(self, array: Array, value: int) -> float | None:
        """Return the smallest error of an array in any order of axes, relative to the largest entry
        of a value; None if the array does not have the value's shape."""
        expected = self.arrays.get(value)
        if expected is None:
            return None
        errors = [self._error(each, value) for each in arrangements(array, expected.shape)]
        return min(errors, default=None)

    def _error(self, array: Array, value: int) -> float:
        expected = self.arrays[value]
        if expected.dtype.kind != "f" or array.dtype.kind != "f":
            return 0.0 if np.array_equal(array, expected) else np.inf
        return relative_error(array, expected, self._scale(value))

    def _scale(self, value: int) -> float:
        return float(np.abs(self.arrays[value]).max(initial=0.0)) or 1.0

    def agrees(self, array: Array, value: int) -> bool:
        """Return whether an array has a value's numbers, in any order of axes."""
        error = self.error(array, value)
        return error is not None and error <= self._tolerances[value]

    def find(self, array: Array, among: Iterable[int] | None = None) -> int | None:
        """Return the first value whose numbers an array has; None if there is none. Arrays that are
        small or constant prove nothing, and are not searched for."""
        if array.dtype.kind != "f" or array.size < LEAST_ENTRIES or np.ptp(array) == 0:
            return None
        length = float(np.linalg.norm(array.astype(np.float64)))
        for value in self._lengths if among is None else among:
            if value not in self._lengths or self.arrays[value].size != array.size:
                continue
            # The order of axes does not change the length of a vector.
            most = self._tolerances[value] * self._scale(value) * np.sqrt(array.size)
            if abs(length - self._lengths[value]) <= most and self.agrees(array, value):
                return value
        return None

    def first_equal(self, value: int) -> int:
        """Return the first value with the same numbers as a value, in any order of axes."""
        if value not in self._equal:
            array = self.arrays.get(value)
            found = None if array is None else self.find(array)
            self._equal[value] = value if found is None else found
        return self._equal[value]

    @cached_property
    def _lengths(self) -> dict[int, float]:
        return {
            value: float(np.linalg.norm(array))
            for value, array in self.arrays.items()
            if array.dtype.kind == "f"
        }

    def first_wrong_step(self, array: Array, value: int) -> int | None:
        """Return the first time step in which an array differs from a value; None if the value has
        no time axis."""
        dims = [str(dim) for dim in self.program.types[value].shape]
        if "time" not in dims:
            return None
        expected, allowed = self.arrays[value], self._tolerances[value]
        each = self.arrange(array, value)
        with np.errstate(all="ignore"):
            wrong = ~(np.abs(each - expected) <= allowed * self._scale(value))
        axis = dims.index("time")
        steps = np.flatnonzero(wrong.any(axis=tuple(n for n in range(wrong.ndim) if n != axis)))
        return int(steps[0]) if steps.size else None

    @cached_property
    def varying(self) -> set[int]:
        """The values that depend on the inputs or the state. The others depend on weights only."""
        found = {port.value for port in (*self.program.inputs, *self.program.state)}
        for node in self.nodes:
            if not found.isdisjoint(reads(node)):
                found.update(node.outputs)
        return found

    def recompute(
        self, values: Iterable[int], arrays: Mapping[int, Array], program: Program | None = None
    ) -> dict[int, Array]:
        """Return some values as the spec computes them after arrays replace other values.

        Args:
            values: The values to compute.
            arrays: Value -> the array that replaces it.
            program: A changed program to run instead, with the same numbers of values.
        """
        ends = set(values)
        nodes = self.nodes if program is None else inline_calls(program.nodes)
        computed = [node for node in nodes if not arrays.keys() >= set(node.outputs)]
        results = oracle.run(
            needed_nodes(computed, ends),
            {**self.given, **arrays},
            {**self.program.sizes, "batch": self.batch, "time": self.time},
            watch=lambda value, _array, _step: arrays.get(value),
            ends=ends,
        )
        return {value: results[value] for value in ends}

    def arrange(self, array: Array, value: int) -> Array:
        """Return an array in the order of axes with the smallest error."""
        each = arrangements(array, self.arrays[value].shape)
        return min(each, key=lambda array: self._error(array, value))

    def is_explained(self, array: Array, value: int, expected: Array) -> bool:
        """Return whether an array agrees with ``expected``, and clearly differs from a value."""
        allowed, scale = self._tolerances[value], self._scale(value)
        each = arrangements(array, expected.shape)
        error = min((relative_error(a, expected, scale) for a in each), default=np.inf)
        return (
            error <= allowed
            and relative_error(expected, self.arrays[value], scale) > DECISIVE * allowed
        )

    def sources(self, values: Iterable[int]) -> set[int]:
        """Return the values from which some values are computed, and these values themselves."""
        found = set(values)
        for node in reversed(self.nodes):
            if not found.isdisjoint(node.outputs):
                found.update(reads(node))
        return found

    def inner_values(self, call: Node) -> list[int]:
        """Return the values that a call computes, the last value first."""
        inner = [v for node in inline_calls(call.block.nodes) for v in node.outputs]
        return inner[::-1]


def arrangements(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield an array in each usual order of axes that has a shape. Axes of length 1 do not count.
    Neighbouring axes may be split or joined. Axes of equal length keep their order, so that a
    transposed image differs, unless channels or time come first."""
    squeezed = array.reshape([n for n in array.shape if n != 1])
    wanted = tuple(n for n in shape if n != 1)
    if sorted(squeezed.shape) != sorted(wanted):
        if fits(array.shape, shape):
            yield array.reshape(shape)
        return
    axes = tuple(range(squeezed.ndim))
    kept = tuple(np.argsort(squeezed.shape, kind="stable")[np.argsort(_ranks(wanted))])
    usual = {kept, axes, (*axes[:1], *axes[2:], *axes[1:2]), (*axes[1:2], *axes[:1], *axes[2:])}
    for order in usual:
        if tuple(squeezed.shape[axis] for axis in order) == wanted:
            yield squeezed.transpose(order).reshape(shape)


def _ranks(lengths: tuple[int, ...]) -> Array:
    """Return the positions of the lengths in sorted order; equal lengths keep their order."""
    return np.argsort(lengths, kind="stable")
