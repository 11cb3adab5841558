"""The forward passes of Lesson 6 for onnxruntime: ONNX's own operators for whole layers.

What torch.onnx.export makes of nn modules, written down: one RNN, LSTM or GRU operator a layer,
weights as initializers. Sequences are [time, batch, features] inside, as those operators want them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from contract import Given
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, np.ndarray]
OPSET, IR_VERSION = 18, 8
# By system, what it has in place of the operator's defaults: f of the gates, g of the candidate,
# h of an LSTM's result. A HardSigmoid has a slope of 1/5 by default.
ACTIVATIONS: Mapping[str, list[str]] = {
    "stateful_lstm": ["HardSigmoid", "Tanh", "Tanh"],
    "sigmoid_lstm": ["Sigmoid", "Tanh", "Tanh"],
    "keras_gru": ["HardSigmoid", "Relu"],
    "theano_gru": ["Sigmoid", "Sigmoid"],
    "theano_gru_combined": ["Sigmoid", "Sigmoid"],
    "index_gru": ["Sigmoid", "Tanh"],
}
# The order of the gates, by layer.
GATES = {"rnn": "", "lstm": "iofg", "gru": "zrn"}


class Graph:
    """Nodes and weights of a graph that is being written; values have names."""

    def __init__(self, parameters: Arrays) -> None:
        self.parameters = parameters
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """A node; the names of its results."""
        names = [f"{op}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def one(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node with one result; its name."""
        return self.add(op, inputs, **attributes)[0]

    def weight(self, array: np.ndarray) -> str:
        """An array of the graph's own; its name."""
        name = f"weight_{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(array)
        return name

    def dense(self, x: str, layer: str) -> str:
        """[..., features] to [..., units]."""
        y = self.one("MatMul", x, self.weight(self.parameters[f"{layer}.W"]))
        bias = self.parameters.get(f"{layer}.b")
        return y if bias is None else self.one("Add", y, self.weight(bias))

    def embedding(self, indices: str, layer: str) -> str:
        """[...] to [..., units]."""
        return self.one("Gather", self.weight(self.parameters[f"{layer}.table"]), indices)

    def bytes(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        """The whole model."""
        arrays = [numpy_helper.from_array(a, n) for n, a in self.weights.items()]
        graph = helper.make_graph(self.nodes, "baseline", inputs, outputs, arrays)
        sets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=sets)
        return bytes(made.SerializeToString())


def stacked(p: Arrays, layer: str, kind: str) -> np.ndarray | None:
    """The arrays of a kind as one [gates * units, ...], as the operators have them."""
    names = [f"{layer}.{kind}_{gate}" for gate in GATES[layer]] or [f"{layer}.{kind}"]
    return np.concatenate([p[name].T for name in names]) if names[0] in p else None


def recurrent(graph: Graph, system: str, x: str, states: Sequence[str]) -> list[str]:
    """All states [time, batch, units] and the last ones [1, batch, units]."""
    p = graph.parameters
    layer = next(name for name in GATES if any(n.startswith(f"{name}.") for n in p))
    if "gru.K_z" in p:
        units = len(p["gru.b_z"])
        p = p | {f"gru.U_{g}": p[f"gru.K_{g}"][:units] for g in "zrn"}
        p |= {f"gru.W_{g}": p[f"gru.K_{g}"][units:] for g in "zrn"}
    kernel, weight = stacked(p, layer, "W"), stacked(p, layer, "U")
    assert kernel is not None
    assert weight is not None
    first, second = stacked(p, layer, "b"), stacked(p, layer, "c")
    zeros = np.zeros(len(kernel), kernel.dtype)
    bias = np.concatenate([zeros if b is None else b for b in (first, second)])
    inputs = [x, *(graph.weight(a[None]) for a in (kernel, weight, bias))]
    attributes: dict[str, Any] = {"hidden_size": weight.shape[1]}
    attributes["activations"] = ACTIVATIONS.get(system, ["Relu"])
    if layer == "gru":
        attributes["linear_before_reset"] = int(second is not None)
    count = 3 if layer == "lstm" else 2
    y, *last = graph.add(layer.upper(), [*inputs, "", *states], count, **attributes)
    return [graph.one("Squeeze", y, graph.weight(np.array([1]))), *last]


def sequence(graph: Graph, system: str, inputs: Arrays, statistics: Arrays, state: Arrays) -> Any:
    """The logits of a recurrent model and its last states."""
    p = graph.parameters
    axes = [1, 0, *range(2, inputs["chars"].ndim)]
    x = graph.one("Transpose", "chars", perm=axes)
    if "embed.table" in p:
        x = graph.embedding(x, "embed")
    if statistics:
        scale = p["norm.gamma"] / np.sqrt(statistics["norm.moving_variance"] + 1e-3)
        shift = p["norm.beta"] - statistics["norm.moving_mean"] * scale
        x = graph.one("Add", graph.one("Mul", x, graph.weight(scale)), graph.weight(shift))
    axis = graph.weight(np.array([0]))
    first = [graph.one("Unsqueeze", n, axis) for n in (*state, *(n for n in inputs if n == "h0"))]
    states, *last = recurrent(graph, system, x, first)
    if system == "simple_rnn":
        return graph.dense(graph.one("Squeeze", last[0], axis), "out"), []
    last = [graph.one("Squeeze", name, axis) for name in last[: len(state)]]
    return graph.dense(graph.one("Transpose", states, perm=[1, 0, 2]), "out"), last


def positions(graph: Graph, system: str, inputs: Arrays) -> list[str]:
    """The logits of a model that is written out: of each position, or of the last."""
    many = "zero" in inputs
    activation = "Tanh" if system == "three_char" else "Relu"
    h = graph.one("Relu", graph.dense("zero", "dense_in")) if many else ""
    logits = []
    for name in sorted(set(inputs) - {"zero"}):
        x = graph.embedding(name, f"embed_{name[1:]}")
        x = graph.one("Relu", graph.dense(x, "dense_in"))
        if h:
            x = graph.one("Add", x, graph.one(activation, graph.dense(h, "dense_hidden")))
        h = x
        logits.append(graph.dense(h, "output") if many else h)
    return logits if many else [graph.dense(h, "dense_out")]


class Steps:
    """Forward passes of one session. They are done when ``start`` returns."""

    def __init__(self, model: bytes, names: Sequence[str], state: Arrays) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self.names, self.state = names, dict(state)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Other batches of the same shapes."""
        self.batches = [dict(batch["inputs"]) for batch in batches]

    def start(self, index: int) -> dict[str, np.ndarray]:
        """A forward pass: the probabilities by output."""
        given = self.batches[index % len(self.batches)] | self.state
        found = self.session.run(None, given)
        self.state = dict(zip(self.state, found[len(self.names) :], strict=True))
        return dict(zip(self.names, found, strict=False))

    def finish(self, handle: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name."""
        return handle


def make(given: Given) -> Steps:
    """Steps of a system in mode ``forward``; :class:`ValueError` for any other."""
    if given.mode != "forward":
        raise ValueError(f"onnxruntime has no mode {given.mode!r} here, only forward")
    inputs, graph = given.batches[0]["inputs"], Graph(given.parameters)
    if "c1" in inputs:
        logits, last = positions(graph, given.system, inputs), []
    else:
        found, last = sequence(graph, given.system, inputs, given.statistics, given.state)
        logits = [found]
    ends = [graph.one("Softmax", name, axis=-1) for name in logits]
    if len(ends) > 1:
        names = [f"output.next_{n + 1}" for n in range(len(ends))]
    else:
        one = "c1" in inputs or given.system == "simple_rnn"
        names = ["output.next_char" if one else "output.next_chars"]
    taken = [described(n, a.shape, a.dtype) for n, a in {**inputs, **given.state}.items()]
    dtype = next(iter(given.parameters.values())).dtype
    results = [described(name, None, dtype) for name in (*ends, *last)]
    steps = Steps(graph.bytes(taken, results), names, given.state)
    steps.feed(given.batches)
    return steps


def described(name: str, shape: Sequence[int] | None, dtype: Any) -> Any:
    """A value's name, type and shape; None where the graph knows it."""
    kind = TensorProto.INT64 if np.dtype(dtype).kind == "i" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, shape)
