"""Base classes of backends for frameworks that compute later: when a value is needed, or in a
graph that was compiled before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np

from harness.arrays import Array
from harness.program.dims import Dim
from harness.program.infer import infer
from harness.program.ir import Kind, Type
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Table
from harness.runtime.native import Advance, F, Function, Tensors

Run = Callable[[Sequence[Array]], Sequence[Array]]


def tensors_of(results: Any) -> list[Any]:
    """Return the tensors in the results of a function that the harness compiles: in a dictionary by
    name, or in a tuple of such dictionaries."""
    groups = (results,) if isinstance(results, Mapping) else results
    return [tensor for group in groups for tensor in group.values()]


def with_tensors(results: Any, tensors: Sequence[Any]) -> Any:
    """Return results of the same form as ``results``, with other tensors. The order is that of
    :func:`tensors_of`."""
    remaining = iter(tensors)
    if isinstance(results, Mapping):
        return {name: next(remaining) for name in results}
    return tuple({name: next(remaining) for name in group} for group in results)


class LazyBackend(Backend):
    """The base class of a backend whose framework computes a tensor when its value is needed.

    The results of each compiled function are computed together. Otherwise the graph of pending
    operations would grow with each training step.
    """

    @abstractmethod
    def evaluate(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Compute tensors together. Return the computed tensors, in the same order."""

    def numpy(self, tensor: Any) -> Array:
        return np.array(self.evaluate([tensor])[0])

    def wait(self, tensors: Tensors) -> None:
        self.evaluate(list(tensors.values()))

    def compile(self, function: F) -> F:
        def run(*groups: Tensors) -> Any:
            results = function(*groups)
            return with_tensors(results, self.evaluate(tensors_of(results)))

        return cast(F, run)

    def advance(self, step: Advance) -> Advance:
        return cast(Advance, self.compile(cast(Function, step)))


@dataclass(frozen=True, eq=False)
class Symbol:
    """A value of a graph: its type, and the framework's node."""

    type: Type
    node: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dim.constant for dim in self.type.shape)


class GraphBackend(Backend):
    """The base class of a backend whose framework builds a graph of nodes, compiles the graph, and
    runs it on arrays.

    A tensor is a numpy array, or in a traced function a :class:`Symbol`. A primitive that is called
    with arrays runs a graph of one operation. Compiled graphs are kept for each set of shapes.
    """

    @property
    @abstractmethod
    def kernels(self) -> Table:
        """The primitives as functions of nodes, which return a node."""

    @abstractmethod
    def placeholder(self, array: Array) -> Any:
        """Return a new input node, with the shape and dtype of ``array``."""

    @abstractmethod
    def constant(self, array: Array) -> Any:
        """Return a node with a constant value."""

    @abstractmethod
    def build(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Run:
        """Compile a graph. Return a function from the arrays of the input nodes to the arrays of
        the output nodes."""

    @cached_property
    def primitives(self) -> Table:
        return {op: partial(self._call, op) for op in self.kernels}

    @cached_property
    def _built(self) -> dict[Hashable, Run]:
        return {}

    def tensor(self, array: Array) -> Array:
        return np.array(array)

    def numpy(self, tensor: Array) -> Array:
        return np.array(tensor)

    def compile(self, function: F) -> F:
        traces: dict[Hashable, tuple[Any, Run]] = {}

        def run(*groups: Tensors) -> Any:
            arrays: list[Any] = tensors_of(groups)
            if any(isinstance(array, Symbol) for array in arrays):
                return function(*groups)  # another traced function calls this function
            key = (*(tuple(group) for group in groups), *map(_form, arrays))
            if key not in traces:
                traces[key] = self._trace(function, groups)
            results, built = traces[key]
            return with_tensors(results, built(arrays))

        return cast(F, run)

    def advance(self, step: Advance) -> Advance:
        return cast(Advance, self.compile(cast(Function, step)))

    def _trace(self, function: Callable[..., Any], groups: Sequence[Tensors]) -> tuple[Any, Run]:
        symbols = [self._input(array) for array in tensors_of(groups)]
        results = function(*with_tensors(groups, symbols))
        outputs = [self._symbol(tensor).node for tensor in tensors_of(results)]
        if not outputs:  # many frameworks have no graphs without outputs
            return results, lambda arrays: []
        return results, self.build([symbol.node for symbol in symbols], outputs)

    def _call(self, op: str, *operands: Any, **attributes: Any) -> Any:
        listed = operands[0] if op == "concat" else operands
        if any(isinstance(operand, Symbol) for operand in listed):
            return self._apply(op, [self._symbol(operand) for operand in listed], attributes)
        key = (op, *map(_form, listed), *sorted(attributes.items()))
        if key not in self._built:
            symbols = [self._input(array) for array in listed]
            node = self._apply(op, symbols, attributes).node
            self._built[key] = self.build([symbol.node for symbol in symbols], [node])
        return self._built[key](listed)[0]

    def _apply(self, op: str, symbols: Sequence[Symbol], attributes: Mapping[str, Any]) -> Symbol:
        nodes = [symbol.node for symbol in symbols]
        node = self.kernels[op](*([nodes] if op == "concat" else nodes), **attributes)
        return Symbol(result_type(op, [symbol.type for symbol in symbols], attributes), node)

    def _input(self, array: Array) -> Symbol:
        return Symbol(type_of(array), self.placeholder(array))

    def _symbol(self, tensor: Any) -> Symbol:
        if isinstance(tensor, Symbol):
            return tensor
        return Symbol(type_of(tensor), self.constant(tensor))


def _form(array: Array) -> tuple[Any, ...]:
    return array.shape, array.dtype.str


def type_of(array: Array) -> Type:
    """Return the type of an array as a value of a program."""
    kinds: Mapping[str, Kind] = {"f": "float", "b": "bool"}
    return Type(tuple(map(Dim, array.shape)), kinds.get(array.dtype.kind, "index"))


def result_type(op: str, types: Sequence[Type], attributes: Mapping[str, Any]) -> Type:
    """Return the type of the result of a primitive. Symbols have no bounds of indices: the harness
    has checked all indices."""
    numbers = dict(attributes)
    for name in ("classes", "rows"):
        if name in numbers:
            numbers[name] = Dim(numbers[name])
    if "shape" in numbers:
        numbers["shape"] = tuple(map(Dim, numbers["shape"]))
    operands = list(types)
    if op == "one_hot":
        operands[0] = replace(operands[0], bound=numbers["classes"])
    elif op in ("take", "take_along_axis"):
        axis = 0 if op == "take" else -1
        operands[1] = replace(operands[1], bound=operands[0].shape[axis])
    return replace(infer(op, tuple(operands), numbers), bound=None)
