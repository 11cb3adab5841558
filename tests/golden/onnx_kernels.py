"""onnxruntime's kernels. They compute in float32 and give no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

Arrays = Mapping[str, Any]
Kernel = Callable[[Arrays], Arrays]
# Function name -> ONNX activation, alpha, beta.
ACTIVATIONS: Mapping[str, tuple[str, list[float], list[float]]] = {
    "sigmoid": ("Sigmoid", [], []),
    "tanh": ("Tanh", [], []),
    "relu": ("Relu", [], []),
    "hard_sigmoid_fifth": ("HardSigmoid", [0.2], [0.5]),
}


def _activations(*names: str) -> dict[str, Any]:
    found = [ACTIVATIONS[name] for name in names]
    result: dict[str, Any] = {"activations": [name for name, _, _ in found]}
    alphas = [alpha for _, many, _ in found for alpha in many]
    betas = [beta for _, _, many in found for beta in many]
    if alphas:
        result |= {"activation_alpha": alphas, "activation_beta": betas}
    return result


def _run(op: str, feeds: Arrays, outputs: Sequence[str], **attributes: Any) -> dict[str, Any]:
    arrays = {name: np.asarray(value, np.float32) for name, value in feeds.items()}
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in arrays.items()
    ]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs if n]
    # The fifth input of a recurrent op is the sequence lengths, left out.
    names = [*[*arrays][:4], "", *[*arrays][4:]] if len(arrays) > 4 else [*arrays]
    node = helper.make_node(op, names, list(outputs), **attributes)
    graph = helper.make_graph([node], "golden", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, arrays)
    return dict(zip([n for n in outputs if n], found, strict=True))


def _blocks(v: Arrays, letter: str, gates: str) -> Any:
    return np.concatenate([np.asarray(v[f"{letter}_{g}"]).T for g in gates])[None]


def _recurrent(op: str, v: Arrays, gates: str, states: str, **attributes: Any) -> Arrays:
    """``X`` is time major; the first outputs are ``[time, directions, batch, units]``."""
    bias = np.concatenate([v[f"b_{g}"] for g in gates])
    second = [v.get(f"c_{g}", np.zeros_like(v[f"b_{g}"])) for g in gates]
    feeds = {
        "X": np.swapaxes(v["x"], 0, 1),
        "W": _blocks(v, "W", gates),
        "R": _blocks(v, "U", gates),
        "B": np.concatenate([bias, *second])[None],
        **{f"initial_{n}": np.asarray(v[n])[None] for n in states},
    }
    outputs = ["Y", *(f"Y_{n}" for n in states)]
    found = _run(op, feeds, outputs, hidden_size=np.asarray(v["h"]).shape[-1], **attributes)
    last = {f"last_{n}": found[f"Y_{n}"][0] for n in states}
    return {"y": np.swapaxes(found["Y"][:, 0], 0, 1), **last}


def lstm(activation: str, gate: str) -> Kernel:
    chosen = _activations(gate, activation, activation)
    return lambda v: _recurrent("LSTM", v, "iofg", "hc", **chosen)


def gru(activation: str, gate: str, linear_before_reset: int) -> Kernel:
    chosen = _activations(gate, activation)
    return lambda v: _recurrent(
        "GRU", v, "zrn", "h", linear_before_reset=linear_before_reset, **chosen
    )


def hard_sigmoid(v: Arrays) -> Arrays:
    return _run("HardSigmoid", {"x": v["x"]}, ["y"], alpha=0.2, beta=0.5)
