"""A check that rejects ONNX models whose tensors are in other files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.extend import UsageError, shorten


def check_one_file(model: Any, name: str) -> None:
    """Check that the file of a model contains all its tensors. ONNX allows tensors in other files,
    which could be any file of this machine. Tensors inside nested graphs are checked too.

    Raises:
        UsageError: a tensor is in another file; the message calls the model ``name``.
    """
    for tensor in _external(model):
        places = ", ".join(e.value for e in tensor.external_data if e.key == "location")
        raise UsageError(
            f"{name} stores {shorten(tensor.name) or 'a constant'} in another file, "
            f"{shorten(places)}; save it as one file, with "
            "onnx.save_model(model, FILE, save_as_external_data=False)"
        )


def _external(message: Any) -> Iterator[Any]:
    """Yield the tensors of a protobuf message that are stored in other files, also those in nested
    messages."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        if message.data_location == message.EXTERNAL or message.external_data:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _external(each)
