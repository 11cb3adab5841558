"""Faults for arrays that are not in C order, e.g. transposed views."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.runtime.session import Session
from harness_mutants import registry
from harness_mutants.registry import BOTH, Faulty

session = partial(registry.session, everywhere=True)
backend = partial(registry.backend, everywhere=True)
primitive = partial(registry.primitive, everywhere=True)


def in_memory_order(array: Any) -> Any:
    """Return an array with its numbers in memory order instead of index order."""
    return np.ravel(array, "K").reshape(np.shape(array))


@backend("stateful_lstm", "strides", BOTH)
class TensorsByMemory(Faulty):
    """Tensors copy an array's memory and ignore its strides."""

    def tensor(self, array: Array) -> Array:
        return np.array(in_memory_order(array))


@session("theano_rnn", "strides")
class StateByMemory(Session):
    """The trainable initial state ``h0`` is read in memory order."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        read = {n: in_memory_order(a) if n == "h0" else a for n, a in inputs.items()}
        return super().arguments(phase, read, state, targets)


@session("stateful_lstm", "strides")
class CarriedStateByMemory(Session):
    """The state that a batch starts from is read in memory order."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        read = {n: in_memory_order(a) for n, a in state.items()}
        return super().arguments(phase, inputs, read, targets)


@session("simple_rnn", "strides")
class IndicesByMemory(Session):
    """Inputs of a session are read in memory order."""

    def arguments(self, phase: Any, inputs: Any, state: Any, targets: Any) -> Any:
        read = {n: in_memory_order(a) for n, a in inputs.items()}
        return super().arguments(phase, read, state, targets)


@session("keras_gru", "strides")
class ParametersByMemory(Session):
    """Parameters are loaded in memory order."""

    def load(self, parameters: Any, statistics: Any) -> None:
        super().load({n: in_memory_order(a) for n, a in parameters.items()}, statistics)


@primitive("take", "sequence_rnn", "strides")
def take_by_memory(x: Array, indices: Array) -> Array:
    """The primitive ``take`` reads its indices in memory order."""
    return np.asarray(x[in_memory_order(indices)])
