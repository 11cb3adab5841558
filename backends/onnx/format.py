"""The format ``onnx``: a graph of standard operators, which runs without the harness.

Batch and time can have any length. A state is the input ``state.NAME`` and the output
``new_state.NAME``: start with zeros, and pass each new state to the next call. Parameters are
initializers that have the spec's names, so a file can be read back unless another tool has folded
the initializers into constants.

Check indices before the call: onnxruntime rejects an index that is too large, but a negative index
counts from the end of the table. ``metadata_props`` has the model's name and, as JSON, the
vocabulary and other facts about the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.extend import Array, Arrays, Program, UsageError, hookimpl, shorten
from harness.extend.formats import (
    FLOATS,
    INTEGERS,
    Damaged,
    Declared,
    Exported,
    Format,
    bytes_of,
    read_arrays,
    read_bytes,
    reading,
    whole,
)
from harness.extend.models import OwnModels
from harness.extend.program import index_names

from .external import check_one_file
from .own_model import OnnxModels

OPSET = 18  # from 2022: reductions take axes as inputs, and scatters can add
IR_VERSION = 8  # also from 2022, so that runtimes from that year can read the files
PRODUCER = "backend-comparison-harness"
# The largest size of the parameters in bytes: the limit of a protocol buffer, minus space for the
# graph.
LIMIT = 2**31 - 2**24
# The largest size of a graph without its parameters, in bytes: ten times the size of a thousand
# layers.
GRAPH = 1 << 24


class Onnx(Format):
    """The implementation of the format ``onnx``."""

    suffix = ".onnx"

    def __init__(self, name: str) -> None:
        self.name = name
        self.onnx = import_module("onnx")
        self.runtime = import_module("onnxruntime")

    def versions(self) -> Mapping[str, str]:
        return {n: version(n) for n in ("onnx", "onnxruntime", "numpy")}

    def own_models(self) -> OwnModels:
        return OnnxModels()

    def write(self, exported: Exported, path: Path) -> list[Path]:
        model = self._model(exported)
        # The checker raises an error if the graph or a shape in it is invalid.
        self.onnx.checker.check_model(model, full_check=True)
        with whole(path) as new:
            new.write_bytes(model.SerializeToString(deterministic=True))
        return [path]

    def _model(self, exported: Exported) -> Any:
        graph = import_module("harness.backends.onnx.graph").Graph
        operators = import_module("harness.backends.onnx.primitives_export").OPERATORS
        arrays = {**exported.parameters, **exported.statistics}
        size = sum(array.nbytes for array in arrays.values())
        if size > LIMIT:
            raise UsageError(
                f"{exported.spec}: {size:,} bytes of parameters exceed the limit of an ONNX file "
                f"({LIMIT:,}); export to another format, or in float32"
            )
        helper = self.onnx.helper
        model = helper.make_model(
            graph(exported.inference, exported.dtype, operators).build(arrays),
            producer_name=PRODUCER,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        properties = {
            "spec": exported.spec,
            "vocabulary": json.dumps(exported.vocabulary),
            "metadata": json.dumps(exported.metadata, sort_keys=True),
        }
        helper.set_model_props(model, properties)
        return model

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        ports = (*training.parameters, *training.statistics)
        wanted = {port.name: training.shape(port) for port in ports}
        with reading(path, "an ONNX file", "write one with onnx.save_model(model, FILE)"):
            model = self._load(path, bytes_of(wanted))
            spec = next((p.value for p in model.metadata_props if p.key == "spec"), training.name)
            if spec != training.name:
                raise UsageError(f"{path} has weights of {shorten(spec)}, not of {training.name}")
            declared = self._declared(path, model)
            integers = index_names(training)
            _check(path, training, wanted, declared)
            found = read_arrays(path, {name: declared[name] for name in wanted}, wanted, integers)
        return (
            {p.name: found[p.name] for p in training.parameters},
            {p.name: found[p.name] for p in training.statistics},
        )

    def _load(self, path: Path, model_bytes: int) -> Any:
        decode_error = import_module("google.protobuf.message").DecodeError
        model = self.onnx.ModelProto()
        # Limit the size, because the parsed file needs many times its size in memory.
        content = read_bytes(path, 2 * model_bytes + GRAPH, "an ONNX file of this model")
        try:
            model.ParseFromString(content)
        except decode_error as error:
            raise Damaged(f"it is not a protocol buffer: {error}") from error
        check_one_file(model, str(path))
        # For protobuf, an empty file is a valid message without fields.
        if not model.graph.node:
            raise Damaged("it has no graph")
        return model

    def _declared(self, path: Path, model: Any) -> dict[str, Declared]:
        """Return a dictionary from each initializer to its shape and dtype, and a function that
        loads its array."""
        found = {}
        for array in model.graph.initializer:
            found[array.name] = Declared(
                tuple(array.dims), self._dtype(array.data_type), partial(self._array, array)
            )
        return found

    def _dtype(self, element: int) -> str:
        try:
            return str(self.onnx.helper.tensor_dtype_to_np_dtype(element))
        except (KeyError, ValueError, TypeError):
            return f"element type {element}"

    def _array(self, tensor: Any) -> Array:
        try:
            return np.asarray(self.onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:
            raise Damaged(f"{shorten(tensor.name)} is damaged: {error}") from error

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        session = self.runtime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        given = {**inputs, **{f"state.{n}": a for n, a in state.items()}}
        dtypes = {"tensor(float)": "float32", "tensor(double)": "float64"}
        dtypes |= {"tensor(int64)": "int64", "tensor(bool)": "bool"}
        types = {port.name: dtypes[port.type] for port in session.get_inputs()}
        arrays = {n: np.asarray(a, types.get(n)) for n, a in given.items()}
        names = [port.name for port in session.get_outputs()]
        return dict(zip(map(_result, names), session.run(names, arrays), strict=True))


def _result(name: str) -> str:
    stem = name.removeprefix("new_state.")
    return f"output.{name}" if stem == name else f"state.{stem}"


def _check(
    path: Path,
    program: Program,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Declared],
) -> None:
    """Check that a file has all arrays of the model; other tools may have added further arrays.

    Raises:
        UsageError: an array is missing, or has another shape or dtype.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise UsageError(
            f"{path} lacks {', '.join(missing)} of {program.name}; it has "
            f"{shorten(', '.join(sorted(found)), 300) or 'no initializers'}. Read the "
            "exported file, not a file that another tool has optimised"
        )
    for name, shape in expected.items():
        stored = found[name]
        kinds = INTEGERS if name in index_names(program) else FLOATS
        if stored.shape != shape or stored.dtype not in kinds:
            raise UsageError(
                f"{path}: {name} of {program.name} has shape {list(shape)} and dtype "
                f"{' or '.join(kinds)}; found {shorten(str(list(stored.shape)))} of "
                f"{stored.dtype} (if the sizes differ from the spec's, use --size)"
            )


@hookimpl
def harness_format(name: str) -> Format:
    return Onnx(name)
