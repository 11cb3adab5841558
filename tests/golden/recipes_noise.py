"""Witnesses of layers with noise, and of what is counted."""

from __future__ import annotations

from golden import keras_noise, torch_noise
from golden.recipe import Recipe


def noisy() -> list[Recipe]:
    made = []
    for keep in (0.5, 0.875):
        one = {"keep": keep}
        made += [
            Recipe("layer", "dropout", "torch.mul", torch_noise.dropout(keep), one),
            Recipe("layer", "dropout", "keras.layers.Multiply", keras_noise.dropout(keep), one),
        ]
    made += [
        Recipe(
            "layer",
            "gaussian_sample",
            "torch.distributions.transforms.AffineTransform",
            torch_noise.gaussian_sample,
        ),
        Recipe("layer", "gaussian_sample", "keras.ops.exp", keras_noise.gaussian_sample),
    ]
    for act, gate, cell, state in (
        ("tanh", "sigmoid", 0.5, 0.05),
        ("relu", "hard_sigmoid_sixth", 0.25, 0.125),
    ):
        given = {"activation": act, "gate": gate, "keep_cell": cell, "keep_state": state}
        kernel = keras_noise.zoneout_lstm(act, gate)
        made.append(Recipe("layer", "zoneout_lstm", "keras.layers.LSTMCell", kernel, given))
        if act == "tanh":
            theirs = torch_noise.zoneout_lstm
            made.append(Recipe("layer", "zoneout_lstm", "torch.nn.LSTMCell", theirs, given))
    return made


def counted() -> list[Recipe]:
    """Their derivative is 0 wherever they have one."""
    theirs, other = "torch.argmax", "keras.metrics.sparse_categorical_accuracy"
    return [
        Recipe("loss", "accuracy", theirs, torch_noise.accuracy, gradients=False),
        Recipe("loss", "accuracy", other, keras_noise.accuracy, gradients=False),
    ]
