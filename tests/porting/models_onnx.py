"""ONNX graphs for the tests of ports: each has many operators of one kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """A graph that is built operator by operator."""

    def __init__(self, **inputs: list[int | str]) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self.inputs, self.outputs = inputs, list[str]()
        self.rng = np.random.default_rng(0)

    def op(
        self, kind: str, *inputs: str, outputs: int = 1, output: bool = False, **more: Any
    ) -> Any:
        """Add an operator, as an output of the graph if asked; return the name of its result."""
        names = [f"{kind.lower()}_{len(self.nodes)}_{n}" for n in range(outputs)]
        domain = "ai.onnx.ml" if kind == "ZipMap" else ""
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **more))
        self.outputs += names[:1] if output else []
        return names[0] if outputs == 1 else names

    def weight(self, name: str, *shape: int) -> str:
        """Add a float weight."""
        self.arrays[name] = (0.3 * self.rng.standard_normal(shape)).astype(np.float32)
        return name

    def numbers(self, *values: int) -> str:
        """Add a list of integers."""
        name = f"numbers_{len(self.arrays)}"
        self.arrays[name] = np.array(values, np.int64)
        return name

    def save(self, path: Path, opset: int = 21) -> Path:
        """Write the graph to a file."""
        declared = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
            for n, shape in self.inputs.items()
        ]
        graph = helper.make_graph(
            self.nodes,
            "graph",
            declared,
            [onnx.ValueInfoProto(name=n) for n in self.outputs],
            [numpy_helper.from_array(a, n) for n, a in self.arrays.items()],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save_model(model, str(path))
        return path


def elementwise() -> Graph:
    """Functions of one and of several arrays."""
    g = Graph(x=["batch", 6])
    x = g.op("MatMul", "x", g.weight("w", 6, 6))
    parts = [
        g.op(n, x) for n in ("Exp", "Tanh", "Erf", "Sin", "Cos", "Relu", "Sigmoid", "Softplus")
    ]
    parts += [g.op(n, x) for n in ("Abs", "Neg", "Softsign", "Mish", "HardSwish", "Selu", "Gelu")]
    parts += [g.op("LeakyRelu", x, alpha=0.2), g.op("Elu", x), g.op("Celu", x, alpha=0.5)]
    parts += [g.op("HardSigmoid", x), g.op("PRelu", x, g.weight("slope", 6))]
    parts += [g.op("Gelu", x, approximate="tanh"), g.op("Reciprocal", g.op("Exp", x))]
    parts += [g.op("Sqrt", g.op("Exp", x)), g.op("Log", g.op("Exp", x))]
    parts += [
        g.op("Max", x, parts[0]),
        g.op("Min", x, parts[1], parts[2]),
        g.op("Mean", x, parts[3]),
    ]
    parts += [g.op("Pow", parts[0], parts[1]), g.op("Div", x, parts[0]), g.op("Sub", x, parts[5])]
    below = g.op("Less", x, parts[1])
    both = g.op("And", below, g.op("Not", g.op("Greater", x, parts[4])))
    parts += [g.op("Where", both, x, parts[0]), g.op("Cast", below, to=TensorProto.FLOAT)]
    g.op("Sum", *parts, output=True)
    g.op("Softmax", x, output=True)
    g.op("LogSoftmax", x, output=True)
    return g


def shapes() -> Graph:
    """Operators that move entries, and reductions."""
    g = Graph(x=["batch", "time", 6])
    x = g.op("MatMul", "x", g.weight("w", 6, 8))
    batch = g.op("Gather", g.op("Shape", x), g.numbers(0), axis=0)
    flat = g.op("Reshape", x, g.op("Concat", batch, g.numbers(-1, 4, 2), axis=0))
    left, right = g.op("Split", x, outputs=2, axis=2, num_outputs=2)
    turned = g.op("Transpose", flat, perm=[0, 1, 3, 2])
    cut = g.op("Slice", turned, g.numbers(1), g.numbers(4), g.numbers(3))
    one = g.op(
        "Unsqueeze",
        g.op("Squeeze", g.op("Unsqueeze", left, g.numbers(1)), g.numbers(1)),
        g.numbers(3),
    )
    g.op(
        "Concat",
        g.op("Transpose", one, perm=[0, 1, 3, 2]),
        g.op("Unsqueeze", right, g.numbers(2)),
        axis=3,
        output=True,
    )
    g.op("ReduceMean", cut, g.numbers(2), keepdims=0, output=True)
    for kind in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
        g.op(kind, x, g.numbers(1), keepdims=0, output=True)
    g.op("ReduceLogSumExp", x, g.numbers(2), output=True)
    g.op("CumSum", x, g.numbers(1), output=True)
    g.op("Flatten", g.op("Gather", x, g.numbers(0), axis=1), output=True)
    return g


def image() -> Graph:
    """Convolutions, norms and pools with all forms of padding."""
    g = Graph(x=["batch", 4, 12, 12])
    h = g.op(
        "Conv",
        "x",
        g.weight("a.w", 8, 2, 3, 3),
        g.weight("a.b", 8),
        group=2,
        pads=[0, 0, 1, 1],
        strides=[2, 2],
    )
    stats = [g.weight(f"norm.{n}", 8) for n in ("scale", "bias", "mean")]
    g.arrays["norm.var"] = np.abs(g.rng.standard_normal(8)).astype(np.float32) + 0.5
    h = g.op("BatchNormalization", h, *stats, "norm.var")
    h = g.op("Conv", h, g.weight("b.w", 6, 8, 1, 3), auto_pad="SAME_UPPER")
    h = g.op("LRN", h, size=3, alpha=0.1, beta=0.75)
    g.op("MaxPool", h, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], output=True)
    g.op("MaxPool", h, kernel_shape=[2, 3], strides=[1, 2], ceil_mode=1, output=True)
    g.op("AveragePool", h, kernel_shape=[2, 2], strides=[2, 2], output=True)
    g.op("AveragePool", h, kernel_shape=[3, 3], pads=[1, 1, 1, 1], output=True)
    g.op("AveragePool", h, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, output=True)
    h = g.op("Pad", h, g.numbers(0, 0, 1, 2, 0, 0, 2, 1))
    h = g.op("InstanceNormalization", h, g.weight("inst.scale", 6), g.weight("inst.bias", 6))
    h = g.op(
        "Gemm",
        g.op("Flatten", g.op("GlobalAveragePool", h)),
        g.weight("out.w", 3, 6),
        g.weight("out.b", 3),
        transB=1,
    )
    g.op("LayerNormalization", h, g.weight("last.scale", 3), g.weight("last.bias", 3), output=True)
    return g


def recurrent() -> Graph:
    """LSTM, GRU and RNN in all directions."""
    g = Graph(x=["time", "batch", 3])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for kind, direction, more in (
        ("LSTM", "forward", {}),
        ("LSTM", "bidirectional", {}),
        ("GRU", "reverse", {}),
        ("GRU", "forward", {"linear_before_reset": 1}),
        ("RNN", "forward", {}),
    ):
        ways, rows = 1 + (direction == "bidirectional"), 4 * gates[kind]
        name = f"{kind}_{direction}_{len(more)}"
        weights = [
            g.weight(f"{name}.w", ways, rows, 3),
            g.weight(f"{name}.r", ways, rows, 4),
            g.weight(f"{name}.b", ways, 2 * rows),
        ]
        y, last = g.op(kind, "x", *weights, outputs=2, hidden_size=4, direction=direction, **more)
        g.outputs += [g.op("ReduceMean", y, g.numbers(0), keepdims=0), last]
    return g


def rare() -> Graph:
    """Operators of few models."""
    g = Graph(x=["batch", 4, 6, 6])
    x = g.op("Conv", "x", g.weight("w", 4, 4, 1, 1))
    h = g.op("GroupNormalization", x, g.weight("scale", 4), g.weight("bias", 4), num_groups=2)
    h = g.op("Resize", h, "", "scales", mode="nearest")
    g.op("GlobalMaxPool", h, output=True)
    flat = g.op("Squeeze", g.op("GlobalAveragePool", x), g.numbers(2, 3))
    g.op("Clip", g.op("Dropout", flat), "low", "high", output=True)
    g.op("ThresholdedRelu", flat, alpha=0.1, output=True)
    g.op("Ceil", g.op("Identity", flat), output=True)
    best = g.op("ArgMax", flat, axis=1, keepdims=0)
    g.op("MatMul", g.op("OneHot", best, g.numbers(4), "off_on"), g.weight("out", 4, 3), output=True)
    g.op("Gather", g.weight("table", 4, 5), best, output=True)
    shape = g.op("Shape", flat)
    g.op("Mul", flat, g.op("Expand", g.weight("row", 1, 4), shape), output=True)
    g.arrays |= {
        "scales": np.array([1, 1, 2, 3], np.float32),
        "low": np.array(-0.1, np.float32),
        "high": np.array(0.1, np.float32),
        "off_on": np.array([0, 1], np.float32),
    }
    return g


def classifier() -> Graph:
    """A classifier as skl2onnx writes it: a label, and probabilities behind ``ZipMap``."""
    g = Graph(x=["batch", 4])
    h = g.op("Add", g.op("MatMul", "x", g.weight("w", 4, 3)), g.weight("b", 3))
    h = g.op("Softmax", h)
    g.op("ArgMax", h, axis=1, keepdims=0, output=True)
    g.op("ZipMap", h, classlabels_int64s=[0, 1, 2], output=True)
    return g


def odd() -> Graph:
    """Operators without a rule."""
    g = Graph(x=["batch", 4])
    g.op("Add", g.op("Hardmax", "x"), g.op("Round", "x"), output=True)
    return g
