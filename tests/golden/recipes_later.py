"""Witnesses of what transformers are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from golden.recipe import Recipe


def transformer(torch: Any, keras: Any) -> list[Recipe]:
    import keras as k
    import torch as t

    positions = "torch.nn.functional.embedding"
    made = [
        Recipe("layer", "learned_positions", positions, torch.learned_positions),
        Recipe(
            "layer",
            "causal_attention",
            "torch.nn.functional.scaled_dot_product_attention",
            torch.causal_attention,
        ),
        Recipe("layer", "causal_attention", "torch.nn.MultiheadAttention", torch.whole_attention),
    ]
    for act in ("gelu", "gelu_tanh"):
        source, attributes = "torch.nn.functional.linear", {"activation": act}
        made.append(Recipe("layer", "dense", source, torch.linear(act), attributes))
    attributes = {"activation": "silu"}
    made.append(Recipe("layer", "dense_without_bias", source, torch.linear("silu"), attributes))
    for epsilon in (1e-5, 0.125):
        one = {"epsilon": epsilon}
        for name, theirs, kernel in (
            ("layer_norm", "layer_norm", torch.layer_norm(epsilon)),
            ("rms_norm", "rms_norm", torch.rms_norm(epsilon)),
            ("group_norm", "group_norm", torch.group_norm(2, epsilon)),
        ):
            made.append(Recipe("layer", name, f"torch.nn.functional.{theirs}", kernel, one))
        layers = k.layers
        for name, layer, names in (
            ("layer_norm", layers.LayerNormalization(epsilon=epsilon), ("gamma", "beta")),
            ("rms_norm", layers.RMSNormalization(epsilon=epsilon), ("gamma",)),
            ("group_norm", layers.GroupNormalization(2, epsilon=epsilon), ("gamma", "beta")),
        ):
            source = f"keras.layers.{type(layer).__name__}"
            made.append(Recipe("layer", name, source, keras.normalised(layer, names), one))
    for name, function in (
        ("gelu_tanh", lambda x: t.nn.functional.gelu(x, approximate="tanh")),
        ("gelu", t.nn.functional.gelu),
    ):
        source, act = "torch.nn.TransformerEncoderLayer", {"activation": name}
        made.append(Recipe("layer", "gpt_block", source, torch.gpt_block(function), act))
    return made


def activations(torch: Any, keras: Any, saturated: Any, large: Any) -> list[Recipe]:
    """Each by torch and by Keras, also far from 0."""
    import keras as k
    import torch as t

    f, g = t.nn.functional, k.activations
    both = {
        "abs": (t.abs, k.ops.abs),
        "sign": (t.sign, k.ops.sign),
        "gelu": (f.gelu, lambda x: g.gelu(x, approximate=False)),
        "gelu_tanh": (
            lambda x: f.gelu(x, approximate="tanh"),
            lambda x: g.gelu(x, approximate=True),
        ),
        "silu": (f.silu, g.silu),
        "softplus": (lambda x: f.softplus(x, threshold=40), g.softplus),
        "elu": (f.elu, g.elu),
        "leaky_relu": (f.leaky_relu, lambda x: g.leaky_relu(x, negative_slope=0.01)),
        "logsumexp": (lambda x: t.logsumexp(x, -1), lambda x: k.ops.logsumexp(x, -1)),
    }
    made = []
    for name, (theirs, other) in both.items():
        far = {"x": large} if name == "logsumexp" else saturated
        for given in ({}, far):
            for source, kernel, gradients in (
                (f"torch.{name}", torch.unary(theirs), True),
                # Keras differentiates some of these otherwise at 0 and far from it.
                (f"keras.{name}", keras.unary(other), not given),
            ):
                # In any dtype, Keras on TensorFlow has float32 constants in these.
                single = source.startswith("keras") and name in ("gelu", "gelu_tanh", "leaky_relu")
                recipe = Recipe("function", name, source, kernel, {}, "training", given)
                dtype = "float32" if single else "float64"
                made.append(replace(recipe, gradients=gradients, dtype=dtype))
    for name, given, theirs, other in (
        ("softmax", {"axis": 1}, lambda x: t.softmax(x, 1), lambda x: k.ops.softmax(x, 1)),
        ("log_softmax", {"axis": 0}, lambda x: t.log_softmax(x, 0), lambda x: g.log_softmax(x, 0)),
        ("logsumexp", {"axis": -2}, lambda x: t.logsumexp(x, 1), lambda x: k.ops.logsumexp(x, 1)),
        ("elu", {"alpha": 1.5}, lambda x: f.elu(x, 1.5), lambda x: g.elu(x, alpha=1.5)),
        ("leaky_relu", {"slope": 0.25}, lambda x: f.leaky_relu(x, 0.25), None),
    ):
        made.append(Recipe("function", name, f"torch.{name}", torch.unary(theirs), given))
        if other is not None:
            made.append(Recipe("function", name, f"keras.{name}", keras.unary(other), given))
    return made
