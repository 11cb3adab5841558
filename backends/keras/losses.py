"""The Keras losses that replace losses of a spec."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from harness.extend import Native, Packing, Tensors


def claimed(keras: Any, definition: str, without: Collection[str]) -> Native | None:
    """Return Keras' cross-entropy of logits as the native loss; None for definitions in
    ``without``, which the engine computes wrongly. The loss gets a copy of the logits. If a softmax
    had computed the logits, Keras would otherwise use the input of that softmax."""
    functions = {
        "sparse_cross_entropy": keras.losses.sparse_categorical_crossentropy,
        "cross_entropy": keras.losses.categorical_crossentropy,
    }
    if definition not in functions or definition in without:
        return None
    function, copy = functions[definition], keras.ops.copy

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return [function(values["target"], copy(values["logits"]), from_logits=True)]

    return Native(f"keras.losses.{function.__name__}", run, Packing({}))
