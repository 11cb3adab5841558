"""ONNX files of strangers: no numbers in other files, and none that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import Reader, reader
from wording import Wording


@pytest.fixture(scope="module")
def onnx_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader("onnx", "onnx", tmp_path_factory)


def initializer(model: Any, name: str = "out.b") -> Any:
    return next(i for i in model.graph.initializer if i.name == name)


def _external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx

        onnx.external_data_helper.set_external_data(initializer(model), location, 0, 344)
        initializer(model).ClearField("raw_data")

    return change


def _typed(array: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx

        initializer(model).CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), "out.b"))

    return change


def _dims(*dims: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        one = initializer(model)
        del one.dims[:]
        one.dims.extend(dims)
        one.raw_data = b""

    return change


def _set(**fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(initializer(model), name, value)

    return change


TENSORS: dict[str, tuple[Callable[[Any], None], str]] = {
    "another file": (_external("../../etc/passwd"), "in another file, ../../etc/passwd"),
    "an absolute file": (_external("/etc/passwd"), "in another file, /etc/passwd"),
    "a device": (_external("/dev/zero"), "in another file, /dev/zero"),
    "huge": (_dims(1 << 40), "found [1099511627776]"),
    "many axes": (_dims(*[1 << 30] * 60), "found [1073741824, "),
    "negative": (_dims(-86), "found [-86]"),
    "no numbers": (_dims(86), "out.b is damaged"),
    "too many numbers": (_set(raw_data=bytes(4 * 87)), "out.b is damaged"),
    "int": (_typed(np.zeros(86, np.int32)), "of int32"),
    "bool": (_typed(np.zeros(86, bool)), "of bool"),
    "complex": (_typed(np.zeros(86, np.complex64)), "of complex64"),
    "float16": (_typed(np.zeros(86, np.float16)), "of float16"),
    "double": (_typed(np.zeros(86)), "all arrays must have the same dtype"),
    "text": (_set(data_type=8), "of object"),
    "unknown type": (_set(data_type=99), "of element type 99"),
    "undefined type": (_set(data_type=0), "of element type 0"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_in_the_graph_are_refused(
    name: str, onnx_reader: Reader, tmp_path: Path
) -> None:
    import onnx

    change, words = TENSORS[name]
    model = onnx.load(onnx_reader.path)
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert words in onnx_reader.refusal(path)


def test_a_graph_of_millions_of_nothings_is_refused(
    onnx_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    """Field 7 of a model is its graph, field 1 of that a node of two bytes."""
    path = tmp_path / "m.onnx"
    nodes = b"\x0a\x00" * (12 << 20)
    size = len(nodes)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    path.write_bytes(b"\x3a" + length + nodes)
    wording.line(onnx_reader.refusal(path), "ONNX ... at")
