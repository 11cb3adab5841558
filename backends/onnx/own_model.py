"""A user's own ONNX file, which onnxruntime runs with the spec's weights in its initializers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from harness.extend import Array, ArrayDict, Arrays, UsageError, shorten
from harness.extend.formats import MAX_WEIGHTS, read_bytes
from harness.extend.models import (
    ModelArray,
    ModelFile,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    Recorder,
    TracedGraph,
)

from .external import check_one_file
from .prepare import clean, declarations, prepare
from .trace import trace_graph
from .trace_rules import RULES

FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64"}
TYPES: Mapping[str, str] = {
    **FLOATS,
    **{f"tensor({name})": name for name in ("int64", "int32", "bool", "float16")},
}


class OnnxModels(OwnModels):
    """The loader of users' ONNX files."""

    def sizes(self, target: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        return ()

    def open(
        self,
        file: ModelFile,
        target: Any,
        parameters: Any,
        sizes: Mapping[str, int],
        expected: Mapping[str, ModelArray],
    ) -> OwnModel:
        return OnnxModel(file.path)

    def paths(self) -> Mapping[str, str]:
        return {"native": "", "unoptimised": ""}

    def operators(self) -> Collection[str]:
        return RULES

    def default_inputs(self, file: ModelFile, target: Any, parameters: Any) -> dict[str, str]:
        return OnnxModel(file.path).declared

    def trace(self, file: ModelFile, target: Any, parameters: Any, inputs: Arrays) -> TracedGraph:
        return OnnxModel(file.path).trace(inputs)


class OnnxModel(OwnModel):
    """A user's ONNX graph whose weights can be replaced. ONNX files do not say which weights are
    trained, so all initializers count as untrained. Initializers that match no weight of the spec
    keep their values."""

    differentiates = False
    # The names of moving statistics in files that torch exports.
    spelled = MappingProxyType({"moving_mean": "running_mean", "moving_variance": "running_var"})

    def __init__(self, path: Path) -> None:
        self.onnx, self.runtime = import_module("onnx"), import_module("onnxruntime")
        decode_error = import_module("google.protobuf.message").DecodeError
        self.proto = self.onnx.ModelProto()
        try:
            self.proto.ParseFromString(read_bytes(path, MAX_WEIGHTS, "an ONNX file"))
        except decode_error as error:
            raise UsageError(f"it is not an ONNX file: {error}") from None
        if not self.proto.graph.node:
            raise UsageError("it is not an ONNX file: it has no graph")
        check_one_file(self.proto, "it")
        self.declared = declarations(self.proto)
        self.copies = prepare(self.proto)
        self.initializers = {t.name: t for t in self.proto.graph.initializer}
        producer = shorten(self.proto.producer_name or "an unknown producer")
        self.label = f"ONNX graph of {producer}"
        self._session: Any = None
        self.optimises = True
        # The graph's names of inputs and outputs, by the names that a spec can have.
        self.inputs = {clean(port.name): port for port in self.session.get_inputs()}
        self.takes = tuple(self.inputs)

    @property
    def session(self) -> Any:
        """The onnxruntime session with the current weights.

        Raises:
            UsageError: onnxruntime rejects the graph.
        """
        if self._session is None:
            self._session = self._make_session(self.proto)
        return self._session

    def _make_session(self, proto: Any) -> Any:
        options = self.runtime.SessionOptions()
        options.log_severity_level = 4
        if not self.optimises:
            levels = self.runtime.GraphOptimizationLevel
            options.graph_optimization_level = levels.ORT_DISABLE_ALL
        try:
            return self.runtime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        # onnxruntime's exceptions have no common base class.
        except Exception as error:
            raise UsageError(f"onnxruntime does not run it: {shorten(str(error), 300)}") from None

    def on_path(self, path: str, dtype: str) -> OwnModel:
        if path == "unoptimised":
            self.optimises, self._session = False, None
            self.label += " (graph optimisation off)"
        return self

    def entries(self) -> Mapping[str, ModelArray]:
        kinds = (self.onnx.TensorProto.FLOAT, self.onnx.TensorProto.DOUBLE)
        return {
            name: ModelArray(tuple(tensor.dims), trained=False)
            for name, tensor in self.initializers.items()
            if tensor.data_type in kinds
        }

    def read(self, name: str) -> Array:
        return np.array(self.onnx.numpy_helper.to_array(self.initializers[name]))

    def read_file(self, path: Path) -> ArrayDict:
        other = OnnxModel(path)
        return {name: other.read(name) for name in other.entries()}

    def put(self, arrays: Arrays) -> None:
        # A copy that is not set follows its original, as in the file.
        copies = {c: arrays[n] for n, names in self.copies.items() if n in arrays for c in names}
        for name, array in {**copies, **arrays}.items():
            tensor = self.initializers[name]
            dtype = self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(self.onnx.numpy_helper.from_array(array.astype(dtype), name))
        self._session = None

    def modules_with(self, name: str) -> Collection[str]:
        return [_node_name(node) for node in self.proto.graph.node if name in node.input]

    def to_array(self, value: Any) -> Array | None:
        return np.array(value) if isinstance(value, np.ndarray) else None

    def record(self, recorder: Recorder, given: Arrays, placing: Placing) -> None:
        """Record each node of the graph as a module."""
        proto = self.onnx.ModelProto()
        proto.CopyFrom(self.proto)
        nodes = self.proto.graph.node
        names = list(dict.fromkeys(name for node in nodes for name in node.output if name))
        del proto.graph.output[:]
        proto.graph.output.extend(self.onnx.ValueInfoProto(name=name) for name in names)
        session = self._make_session(proto)
        feed = self._place(given, placing)
        values = {**feed, **dict(zip(names, session.run(names, feed), strict=True))}
        for node in nodes:
            inputs = [values[name] for name in node.input if name in values]
            call = recorder.start(_node_name(node), inputs)
            recorder.finish(call, [values[name] for name in node.output if name])

    def _place(self, given: Arrays, placing: Placing) -> dict[str, Array]:
        """Return the arrays of a call by the graph's names."""

        def feed(*arguments: Array, **keywords: Array) -> dict[str, Array]:
            return self._make_feed(arguments, keywords)

        placed: dict[str, Array] = placing.call(feed, given)
        return placed

    def _make_feed(
        self, arguments: Sequence[Array], keywords: Mapping[str, Array]
    ) -> dict[str, Array]:
        free = (name for name in self.inputs if name not in keywords)
        every = {**dict(zip(free, arguments, strict=False)), **keywords}
        ports = {name: self.inputs[name] for name in every}
        return {p.name: np.asarray(every[n], TYPES.get(p.type)) for n, p in ports.items()}

    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        names = [port.name for port in self.session.get_outputs()]
        returned: list[Array] = self.session.run(names, self._place(given, placing))
        try:
            results = naming(dict(zip(map(clean, names), returned, strict=True)))
        except UsageError:
            results = naming(returned)  # the names differ from the spec's, so match by order
        return {n: np.array(a) for n, a in results.items()}

    def trace(self, arrays: Arrays) -> TracedGraph:
        """Return the neutral graph, without outputs that hold no floats, e.g. labels.

        Raises:
            UsageError: an input does not exist, or onnxruntime does not run the graph.
        """
        unknown = [n for n in (*arrays, *self.inputs) if n not in self.inputs or n not in arrays]
        if unknown:
            raise UsageError(
                f"--input names {', '.join(arrays)}, but the graph has the inputs "
                f"{', '.join(f'{n}={lengths}' for n, lengths in self.declared.items())}"
            )
        outputs = {clean(p.name): p.name for p in self.session.get_outputs() if p.type in FLOATS}
        if not outputs:
            raise UsageError("the graph returns no floats, so there is nothing to port")
        return trace_graph(self.proto, self.label, self._make_feed((), arrays), outputs)


def _node_name(node: Any) -> str:
    return str(node.name or f"{node.op_type} of {node.output[0]}")
