"""Layers with noise by Keras' own parts, the noise handed in."""

from __future__ import annotations

import keras

from golden.keras_kernels import NAMES, Kernel, Tensors


def dropout(keep: float) -> Kernel:
    return lambda v: {"y": keras.layers.Multiply()([v["x"], v["kept"]]) * (1 / keep)}


def gaussian_sample(v: Tensors) -> Tensors:
    deviation = keras.ops.exp(v["log_variance"] / 2)
    return {"y": keras.layers.Add()([v["center"], deviation * v["unit"]])}


def zoneout_lstm(activation: str, gate: str) -> Kernel:
    """Keras' cell, after which some entries are as before."""

    def kernel(v: Tensors) -> Tensors:
        ops = keras.ops
        cell = keras.layers.LSTMCell(
            v["h"].shape[-1],
            activation=NAMES.get(activation, activation),
            recurrent_activation=NAMES.get(gate, gate),
        )
        cell.build(tuple(v["x"].shape))
        joined = [ops.concatenate([v[f"{letter}_{g}"] for g in "ifgo"], -1) for letter in "WUb"]
        others = [variable.value for variable in cell.non_trainable_variables]
        h, c, outputs = v["h"], v["c"], []
        for step in range(v["x"].shape[1]):
            (_, (h_2, c_2)), _ = cell.stateless_call(joined, others, v["x"][:, step], [h, c])
            h = v["state_stays"][:, step] * (h - h_2) + h_2
            c = v["cell_stays"][:, step] * (c - c_2) + c_2
            outputs.append(h)
        return {"y": ops.stack(outputs, 1), "last_h": h, "last_c": c}

    return kernel
