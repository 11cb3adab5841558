"""The backend ``onnxruntime``: each compiled function becomes an ONNX graph, which a session of
ONNX Runtime runs. ONNX Runtime has no automatic differentiation, so the harness derives gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import count
from typing import Any

import onnxruntime
from onnx import helper

from harness.extend import Array, Backend, Program, hookimpl
from harness.extend.helpers import GraphBackend, result_type, type_of
from harness.extend.program import Node, Port, Type

from ..onnx.format import IR_VERSION, OPSET
from ..onnx.graph import Graph, Operator
from .primitives import PRIMITIVES

NUMBERS = count()


@dataclass(frozen=True, eq=False)
class GraphValue:
    """A value of a graph: an input of a ``dtype``, the constant ``array``, or the result of the
    primitive ``op``. A later value has a larger number."""

    type: Type
    dtype: str = ""
    array: Array | None = None
    op: str = ""
    operands: Sequence[GraphValue] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    number: int = field(default_factory=lambda: next(NUMBERS))


def _apply(op: str, *operands: Any, **attributes: Any) -> GraphValue:
    values: Sequence[GraphValue] = operands[0] if op == "concat" else operands
    type_ = result_type(op, [value.type for value in values], attributes)
    return GraphValue(type_, attributes.get("dtype", ""), None, op, values, attributes)


def _needed(outputs: Iterable[GraphValue]) -> list[GraphValue]:
    """Return the values on which ``outputs`` depend, each after its operands."""
    needed: set[GraphValue] = set()
    waiting = [*outputs]
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            waiting += value.operands
    return sorted(needed, key=lambda value: value.number)


def _model(
    inputs: Sequence[GraphValue], outputs: Sequence[GraphValue], operators: Mapping[str, Operator]
) -> bytes:
    """Return a graph as the content of an ONNX file. ``operators`` has a function for each
    primitive, which adds the primitive's ONNX nodes."""
    values = [*inputs, *_needed(outputs)]
    arrays = {f"constant.{v.number}": v.array for v in values if v.array is not None}
    program = Program(
        name="graph",
        phase="inference",
        sizes={},
        types={v.number: v.type for v in values},
        names={},
        nodes=tuple(
            Node(v.op, tuple(o.number for o in v.operands), (v.number,), v.attributes)
            for v in values
            if v.op
        ),
        inputs=tuple(Port(f"input.{v.number}", v.number) for v in inputs),
        targets=(),
        state=(),
        statistics=(),
        parameters=tuple(
            Port(f"constant.{v.number}", v.number) for v in values if v.array is not None
        ),
        outputs=tuple(Port(f"output.{n}", v.number) for n, v in enumerate(outputs)),
        new_state=(),
        new_statistics=(),
    )
    # All floats of a session have one dtype.
    dtype = next((v.dtype for v in values if v.dtype.startswith("float")), "float32")
    graph = Graph(program, dtype, operators).build(arrays)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)
    return model.SerializeToString()


class OnnxRuntime(GraphBackend):
    """The implementation of the backend ``onnxruntime``."""

    name = "onnxruntime"
    operators = PRIMITIVES
    kernels: Mapping[str, Any] = {op: partial(_apply, op) for op in PRIMITIVES}

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("onnxruntime", "onnx", "numpy")}

    def settings(self) -> Mapping[str, str]:
        return {"threads": str(self._threads)}

    @property
    def _threads(self) -> int:
        """The number of threads: 1 in checks, which run beside each other."""
        given = os.environ.get("OMP_NUM_THREADS", "")
        if self.quick or not given.isdigit():
            return 1
        return int(given)

    def placeholder(self, array: Array) -> GraphValue:
        return GraphValue(type_of(array), str(array.dtype))

    def constant(self, array: Array) -> GraphValue:
        return GraphValue(type_of(array), str(array.dtype), array)

    def build(
        self, inputs: Sequence[GraphValue], outputs: Sequence[GraphValue]
    ) -> Callable[[Sequence[Array]], Sequence[Array]]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        session = onnxruntime.InferenceSession(
            _model(inputs, outputs, self.operators), options, providers=["CPUExecutionProvider"]
        )
        names = [port.name for port in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


@hookimpl
def harness_backend(name: str) -> Backend:
    return OnnxRuntime()
