"""What larger models are made of: encoders, state spaces, experts, graphs, rotary positions."""

from __future__ import annotations

from typing import Any

from golden.model_kernels import (
    GAPS,
    MASK,
    attention,
    causal,
    convolved_twice,
    encoder,
    experts,
    graph,
    grouped_attention,
    llama,
    mamba,
    scanned,
    summed,
    whole_attention,
)
from golden.recipe import Recipe

BIASES = ("bias_q", "bias_k", "bias_v", "bias_o")


def encoders() -> list[Recipe]:
    """Each by what torch has of it; a scan in two ways."""
    import torch

    function, module = "torch.nn.functional.scaled_dot_product_attention", "torch.nn."
    masked = {"mask": MASK}
    made = [
        Recipe("layer", "self_attention", function, attention(torch)),
        Recipe("layer", "self_attention", f"{module}MultiheadAttention", whole_attention(torch)),
        Recipe("layer", "masked_attention", function, attention(torch), given=masked),
        Recipe(
            "layer",
            "masked_attention",
            f"{module}MultiheadAttention",
            whole_attention(torch),
            given=masked,
        ),
        Recipe("layer", "selective_scan", "torch.Tensor.cumsum", summed(torch)),
        Recipe("layer", "selective_scan", "torch.exp", scanned(torch)),
    ]
    softmax, bare = "torch.nn.functional.softmax", dict.fromkeys(BIASES, False)
    for name in ("causal_attention", "self_attention", "cross_attention", "masked_attention"):
        later, given = name == "causal_attention", masked if name == "masked_attention" else {}
        kernel, own = attention(torch, 0.75, later), {"keep": 0.75, **bare}
        made.append(Recipe("layer", name, softmax, kernel, own, given=given))
    made.append(Recipe("layer", "cross_attention", function, attention(torch)))
    kernel, own = attention(torch, zero=True), {"zero_if_empty": True}
    made.append(Recipe("layer", "masked_attention", softmax, kernel, own, given={"mask": GAPS}))
    for epsilon in (1e-6, 0.125):
        kernel, one = mamba(torch, scanned(torch), epsilon), {"epsilon": epsilon}
        made.append(Recipe("layer", "mamba_block", f"{module}functional.conv1d", kernel, one))
    for act, epsilon in (("gelu", 1e-5), ("tanh", 0.125)):
        source = f"{module}TransformerEncoderLayer"
        given = {"activation": act, "epsilon": epsilon}
        before, behind = (encoder(torch, where, act, epsilon) for where in (True, False))
        made.append(Recipe("layer", "vit_block", source, before, given))
        made.append(Recipe("layer", "bert_block", source, behind, given, given=masked))
    for act in ("relu", "tanh"):
        source, given = f"{module}functional.conv2d", {"activation": act}
        made.append(Recipe("layer", "unet_convs", source, convolved_twice(torch, act), given))
    for act in ("linear", "silu"):
        source, given = f"{module}functional.conv1d", {"activation": act}
        made.append(Recipe("layer", "causal_conv1d", source, causal(torch, act), given))
    return made


def models(torch: Any) -> list[Recipe]:
    """The layers, by torch; what Keras has too, by Keras."""
    import keras as k
    import torch as t

    f, ops = t.nn.functional, k.ops
    made = [
        Recipe(
            "layer",
            "unembedding",
            "torch.nn.functional.linear",
            lambda v: {"y": f.linear(v["x"], v["table"])},
        ),
        Recipe(
            "layer",
            "unembedding",
            "keras.ops.einsum",
            lambda v: {"y": ops.einsum("btu,ru->btr", v["x"], v["table"])},
        ),
    ]
    for name, function, epsilon in (("silu", f.silu, 1e-6), ("gelu", f.gelu, 0.125)):
        act, kernel = {"activation": name}, llama(t, function, epsilon)
        given = {**act, "epsilon": epsilon}
        made += [
            Recipe("layer", "mixture_of_experts", "torch.topk", experts(t, function), act),
            Recipe("layer", "llama_block", "torch.nn.functional.silu", kernel, given),
        ]
    relu = {"activation": "relu"}
    linear = "torch.nn.functional.linear"
    made += [
        Recipe("layer", "dense", linear, torch.linear("relu"), relu),
    ]
    for name, function in (("linear", lambda x: x), ("tanh", t.tanh), ("relu", t.relu)):
        act = {"activation": name}
        made.append(Recipe("layer", "graph_convolution", "torch.eye", graph(t, function), act))
    for base in (10000.0, 7.0):
        source = "torch.nn.functional.scaled_dot_product_attention"
        kernel = grouped_attention(t, base)
        made.append(Recipe("layer", "grouped_attention", source, kernel, {"base": base}))
    kernel, own = grouped_attention(t, 10000.0, 0.75), {"keep": 0.75, **dict.fromkeys(BIASES, True)}
    made.append(Recipe("layer", "grouped_attention", "torch.nn.functional.softmax", kernel, own))
    return made
