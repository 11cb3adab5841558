"""Record the calls of a user's modules during one pass, with their inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.runtime.answers import RecordedCall

# Once the recorded arrays of a pass hold this many bytes, further calls are recorded without them.
MOST_BYTES = 512 << 20


class Recorder:
    """The calls of a user's modules in one pass, in the order in which the calls start.

    Args:
        to_array: A function that copies a tensor to an array. It returns None for other objects,
            and for tensors that have no values yet.
    """

    def __init__(self, to_array: Callable[[Any], Array | None]) -> None:
        self._to_array = to_array
        self.calls: list[RecordedCall] = []
        self.arrays: ArrayDict = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._clock = self._bytes = 0

    def start(self, module: str, *given: Any) -> RecordedCall:
        """Record the start of a module's call with its arguments, and return the call."""
        inputs, start = self._record(given), self._tick()
        call = RecordedCall(module=module, start=start, end=-1, inputs=inputs, outputs=[])
        self.calls.append(call)
        return call

    def finish(self, call: RecordedCall, returned: Any) -> None:
        """Record the end of a call with its return value."""
        call["outputs"], call["end"] = self._record(returned), self._tick()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _record(self, values: Any) -> list[str]:
        arrays = (self._to_array(leaf) for leaf in _leaves(values))
        return [self._keep(a) for a in arrays if a is not None and self._bytes < MOST_BYTES]

    def _keep(self, array: Array) -> str:
        """Store an array, unless an equal array is stored already, and return its name."""
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._names:
            self._names[key] = str(len(self._names))
            self.arrays[self._names[key]] = np.array(array)
            self._bytes += array.nbytes
        return self._names[key]


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, Mapping):
        values = tuple(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)
    else:
        yield values
