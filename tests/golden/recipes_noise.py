"""Layers with noise, which is handed in: which kernel is the witness of which."""

from __future__ import annotations

from golden import keras_noise_kernels as in_keras
from golden import torch_noise_kernels as in_torch
from golden.recipe import Recipe


def noisy() -> list[Recipe]:
    """By torch's own parts and by Keras'."""
    made = []
    for keep in (0.5, 0.875):
        one = {"keep": keep}
        made += [
            Recipe("layer", "dropout", "torch.mul", in_torch.dropout(keep), one),
            Recipe("layer", "dropout", "keras.layers.Multiply", in_keras.dropout(keep), one),
        ]
    made += [
        Recipe(
            "layer",
            "gaussian_sample",
            "torch.distributions.transforms.AffineTransform",
            in_torch.gaussian_sample,
        ),
        Recipe("layer", "gaussian_sample", "keras.ops.exp", in_keras.gaussian_sample),
    ]
    for act, gate, cell, state in (
        ("tanh", "sigmoid", 0.5, 0.05),
        ("relu", "hard_sigmoid_sixth", 0.25, 0.125),
    ):
        given = {"activation": act, "gate": gate, "keep_cell": cell, "keep_state": state}
        kernel = in_keras.zoneout_lstm(act, gate)
        made.append(Recipe("layer", "zoneout_lstm", "keras.layers.LSTMCell", kernel, given))
        if act == "tanh":
            theirs = in_torch.zoneout_lstm
            made.append(Recipe("layer", "zoneout_lstm", "torch.nn.LSTMCell", theirs, given))
    return made
