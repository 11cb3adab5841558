"""Rules that translate Keras' attention layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.extend.models import Operand

from .trace_rules import RULES, About, Result


def _arguments(node: Any) -> dict[str, Any]:
    """Return the arguments with a name that the call of a layer has, without None and False."""
    keywords = node.arguments.kwargs
    return {n: v for n, v in keywords.items() if v is not None and v is not False}


@RULES.of("Attention")
def _attention(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, keywords = node.operation, _arguments(node)
    query, value, *key = inputs
    if layer.use_scale or layer.score_mode != "dot":
        return None
    if set(keywords) - {"use_causal_mask", "training"}:
        return None
    attributes = {
        "scale": 1.0,
        "causal": "use_causal_mask" in keywords,
        "keep": round(1 - layer.dropout, 12) if t.in_training(node) else 1.0,
        "width": about["shape"][-1],
    }
    return t.builder.add("attention", [query, *(key or [value]), value], attributes, **about)


@RULES.of("MultiHeadAttention")
def _heads(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    """Add dense layers around an attention whose heads are on axis 1."""
    layer, keywords = node.operation, _arguments(node)
    known = {"query", "value", "key", "use_causal_mask", "attention_mask", "training"}
    plain = layer._attention_axes in ((1,), [1]) and not set(keywords) - known
    if not plain or len(about["shape"]) != 3 or layer._use_gate:
        return None
    masks = [keywords[n] for n in ("attention_mask",) if n in keywords]
    pairs = zip(node.input_tensors, inputs, strict=True)
    query, value, *key = [x for tensor, x in pairs if all(tensor is not mask for mask in masks)]
    parts = (
        (query, layer._query_dense, layer._key_dim),
        (key[0] if key else value, layer._key_dense, layer._key_dim),
        (value, layer._value_dense, layer._value_dim),
    )
    count = layer._num_heads
    heads = [_split(t, x, dense, (count, width), about) for x, dense, width in parts]
    batch, time, _ = about["shape"]
    width = layer._value_dim
    causal = "use_causal_mask" in keywords
    keep = round(1 - layer._dropout, 12) if t.in_training(node) else 1.0
    own = {"scale": layer._inverse_sqrt_key_dim, "causal": causal, "keep": keep}
    shape = (batch, count, time, width)
    if masks:
        heads.append(_mask(t, masks[0], causal, about))
        own |= {"causal": False, "zero_if_empty": bool(layer._dropout)}
    attended = t.builder.node("attention", heads, about, shape, **own, width=layer._key_dim)
    last = (batch, time, count, width)
    attended = t.builder.node("permute", [attended], about, last, axes=[0, 2, 1, 3])
    attended = t.builder.node("reshape", [attended], about, (batch, time, count * width))
    dense = layer._output_dense
    units = about["shape"][-1]
    weights = {"W": (dense.kernel, "")}
    weights |= {"b": (dense.bias, "")} if layer._use_bias else {}
    settings = {"units": units, "bias": bool(layer._use_bias)}
    return t.layer("dense", [attended], settings, weights, about)


def _mask(t: Any, mask: Any, causal: bool, about: About) -> Operand:
    """Add a mask ``[batch, time, other]``, also of later steps if ``causal``, with an axis for the
    heads."""
    attention_mask = t.operand(mask)
    shape = list(t.builder.shape_of(attention_mask))
    if t.keras.backend.standardize_dtype(mask.dtype) != "bool":
        attention_mask = t.builder.node("!=", [attention_mask, 0], about, shape, "boolean")
    if causal:
        before = np.tril(np.ones(shape[-2:], bool))
        own = {**about, "shape": before.shape, "kind": "boolean"}
        earlier = t.builder.add("constant", [], {}, **own, values=before)
        attention_mask = t.builder.node("&", [attention_mask, earlier], about, shape, "boolean")
    if len(shape) > 3:
        return attention_mask
    wide = [*shape[:-2], 1, *shape[-2:]] if len(shape) == 3 else [1, 1, *shape]
    return t.builder.node("reshape", [attention_mask], about, wide, "boolean")


def _split(t: Any, x: Operand, dense: Any, heads: tuple[int, int], about: About) -> Operand:
    """Add a dense layer whose units are split into heads: ``[batch, heads, time, width]``."""
    batch, time, _ = t.builder.shape_of(x)
    count, width = heads
    units = count * width
    weights = {"W": (dense.kernel, "")}
    bias = dense.bias is not None
    weights |= {"b": (dense.bias, "")} if bias else {}
    settings = {"units": units, "bias": bias}
    own = {**about, "shape": (batch, time, units)}
    units_value = t.layer("dense", [x], settings, weights, own)
    units_value = t.builder.node("reshape", [units_value], about, (batch, time, count, width))
    shape = (batch, count, time, width)
    return t.builder.node("permute", [units_value], about, shape, axes=[0, 2, 1, 3])
