"""What transformers are made of: which kernel is the witness of which."""

from __future__ import annotations

from typing import Any

from golden.recipe import Recipe


def transformers(torch: Any, keras: Any) -> list[Recipe]:
    """Attention by torch, norms by Keras too."""
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
    attributes = {"activation": "silu", "bias": False}
    made.append(Recipe("layer", "dense", source, torch.linear("silu"), attributes))
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
    for name, function, epsilon in (
        ("gelu_tanh", lambda x: t.nn.functional.gelu(x, approximate="tanh"), 1e-5),
        ("gelu", t.nn.functional.gelu, 0.125),
    ):
        source = "torch.nn.TransformerEncoderLayer"
        given = {"activation": name, "epsilon": epsilon}
        made.append(Recipe("layer", "gpt_block", source, torch.gpt_block(function, epsilon), given))
    return made
