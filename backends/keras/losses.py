"""Losses of Keras."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from harness.extend import Native, Packing, Tensors


def claimed(keras: Any, definition: str, without: Collection[str]) -> Native | None:
    """A cross-entropy of logits, if an engine has it right: ``without`` are those that it has not.

    A copy of the logits keeps Keras from looking behind a softmax that made them.
    """
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
