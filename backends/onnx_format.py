"""ONNX: a graph of standard operators, which onnxruntime and others run without anything of ours.

Batch and time are free axes. State comes in as ``state.NAME`` and goes out as ``new_state.NAME``:
feed the one to the other, zeros first. The parameters are initializers under their neutral names,
so a file can be read back, unless another tool has folded them away. An index that is too large is
an error in onnxruntime, but a negative one counts from the end of the table, as ONNX wants it:
check indices where they come from. ``metadata_props`` has the model's name, and as JSON the
vocabulary and what else is known of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.formats import Array, Arrays, Exported, Format, whole
from harness.hookspecs import hookimpl
from harness.program import Port, Program

OPSET = 18  # of 2022: axes are inputs of all reductions, and scatters may add
IR_VERSION = 8  # the one that came with it, so that runtimes of that time read the files
PRODUCER = "backend-comparison-harness"
# A protocol buffer has no more bytes; what is not parameters needs far less than the last of them.
LIMIT = 2**31 - 2**24
FLOATS = ("float32", "float64")


class Onnx(Format):
    """See the module."""

    suffix = ".onnx"

    def __init__(self, name: str) -> None:
        self.name = name
        self.onnx = import_module("onnx")
        self.runtime = import_module("onnxruntime")

    def versions(self) -> Mapping[str, str]:
        return {n: version(n) for n in ("onnx", "onnxruntime", "numpy")}

    def write(self, exported: Exported, path: Path) -> list[Path]:
        model = self._model(exported)
        # Raises on a graph that is wrong in itself; shapes are inferred and compared on the way.
        self.onnx.checker.check_model(model, full_check=True)
        with whole(path) as new:
            new.write_bytes(model.SerializeToString(deterministic=True))
        return [path]

    def _model(self, exported: Exported) -> Any:
        graph = import_module("harness.backends.onnx_graph").Graph
        arrays = {**exported.parameters, **exported.statistics}
        size = sum(array.nbytes for array in arrays.values())
        if size > LIMIT:
            raise UsageError(
                f"{exported.spec}: {size:,} bytes of parameters are more than one ONNX file holds "
                f"({LIMIT:,}); export to another format, or in float32"
            )
        helper = self.onnx.helper
        model = helper.make_model(
            graph(exported.inference, exported.dtype).build(arrays),
            producer_name=PRODUCER,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        properties = {
            "spec": exported.spec,
            "vocabulary": json.dumps(exported.vocabulary, ensure_ascii=False),
            "metadata": json.dumps(exported.metadata, ensure_ascii=False, sort_keys=True),
        }
        helper.set_model_props(model, properties)
        return model

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        model = self._load(path)
        spec = next((p.value for p in model.metadata_props if p.key == "spec"), training.name)
        if spec != training.name:
            raise UsageError(f"{path} is of {spec}, not of {training.name}")
        for array in model.graph.initializer:
            if array.data_location == array.EXTERNAL:
                places = ", ".join(e.value for e in array.external_data if e.key == "location")
                raise UsageError(
                    f"{path} keeps {array.name} in another file, {places}; save it as one file, "
                    "with onnx.save_model(model, FILE, save_as_external_data=False)"
                )
        found = {i.name: self.onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
        return (
            _taken(path, training, training.parameters, found),
            _taken(path, training, training.statistics, found),
        )

    def _load(self, path: Path) -> Any:
        decode_error = import_module("google.protobuf.message").DecodeError
        model = self.onnx.ModelProto()
        try:
            model.ParseFromString(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        except decode_error as error:
            raise UsageError(f"{path} is no ONNX file: {error}") from error
        # Nothing at all is a message too: one whose fields are all left out.
        if not model.graph.node:
            raise UsageError(f"{path} is no ONNX file: it has no graph")
        return model

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        session = self.runtime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        given = {**inputs, **{f"state.{n}": a for n, a in state.items()}}
        dtypes = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64"}
        types = {port.name: dtypes[port.type] for port in session.get_inputs()}
        arrays = {n: np.asarray(a, types.get(n)) for n, a in given.items()}
        names = [port.name for port in session.get_outputs()]
        return dict(zip(map(_result, names), session.run(names, arrays), strict=True))


def _result(name: str) -> str:
    stem = name.removeprefix("new_state.")
    return f"output.{name}" if stem == name else f"state.{stem}"


def _taken(
    path: Path, program: Program, ports: Sequence[Port], found: Mapping[str, Array]
) -> dict[str, Array]:
    """The arrays of ports among the initializers of a file."""
    missing = [p.name for p in ports if p.name not in found]
    if missing:
        raise UsageError(
            f"{path} lacks {', '.join(missing)} of {program.name}; it has "
            f"{', '.join(sorted(found)) or 'no initializers'}. Read the file that was exported, "
            "not one that another tool has optimised"
        )
    for port in ports:
        array, shape = found[port.name], program.shape(port)
        if array.shape != shape or str(array.dtype) not in FLOATS:
            raise UsageError(
                f"{path}: {port.name} of {program.name} has shape {list(shape)} and dtype float32 "
                f"or float64; found {list(array.shape)} of {array.dtype}"
            )
    return {p.name: np.ascontiguousarray(found[p.name]).reshape(program.shape(p)) for p in ports}


@hookimpl
def harness_format(name: str) -> Format:
    return Onnx(name)
