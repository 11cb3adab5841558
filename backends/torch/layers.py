"""The native layers and losses of the backend ``torch``: the functions that torch.nn's modules
call.

They get the parameters as torch's own tensors (packed, e.g. all gates in one tensor) as arguments,
so autograd computes gradients of these tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from harness.extend import ClaimableCall, Join, Native, Packing, Part, Piece, Tensors

from .recurrent import RECURRENT

Tensor = Any

# Attention: torch's fused attention, with linear projections before and after it.

LABEL = "torch.nn.functional.scaled_dot_product_attention"
# torch's attention draws its own dropout, so with given noise torch's softmax runs.
NOISY_LABEL = "torch.nn.functional.linear, torch.softmax"
# A function of queries, keys and values, each [batch, heads, time, head], of all inputs of the
# layer, and of ``keep``. It returns the attention in the shape of the queries.
Middle = Callable[[Tensor, Tensor, Tensor, Tensors, float], Tensor]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    values: Tensors,
    keep: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Compute attention with the noise ``kept`` in ``values``, if there is any."""
    noise = values.get("kept")
    if noise is None:
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(q, k, v, attn_mask=mask, is_causal=causal)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) * (noise.reshape(scores.shape) / keep)) @ v


def _masked(zero_if_empty: bool) -> Middle:
    """Return attention with a padding mask. If all steps of a row are masked, torch's fused
    attention returns NaN or 0, depending on its version, but the spec defines 0 or the mean of the
    row's values."""

    def middle(q: Tensor, k: Tensor, v: Tensor, values: Tensors, keep: float) -> Tensor:
        mask = values["mask"][:, None, None, :]
        some = mask.any(-1, keepdim=True)
        if "kept" in values:
            chosen = _attend(q, k, v, values, keep, mask)
            return torch.where(some, chosen, 0.0) if zero_if_empty else chosen
        chosen = _attend(q, k, v, values, keep, mask | ~some)
        return torch.where(some, chosen, 0.0 if zero_if_empty else v.mean(-2, keepdim=True))

    return middle


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [..., time, 2 * half] as in a rotary position embedding: entry i of the first half
    and entry i of the second half are a pair, rotated by an angle. ``cos`` and ``sin`` [time, half]
    are those of the angles."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _rotary(half: int, base: float) -> Middle:
    """Return causal attention with rotary positions, whose keys and values may have fewer heads."""

    def middle(q: Tensor, k: Tensor, v: Tensor, values: Tensors, keep: float) -> Tensor:
        places, pairs = (
            torch.arange(n, dtype=values["x"].dtype, device=q.device) for n in (q.shape[2], half)
        )
        turn = places[:, None] * base ** (-pairs / half)
        cos, sin = turn.cos(), turn.sin()
        # Repeat the keys and values of a group for each of its queries.
        each = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(each, 1) for t in (_rotate(k, cos, sin), v))
        return _attend(_rotate(q, cos, sin), k, v, values, keep, causal=True)

    return middle


def _projections(
    layer: ClaimableCall,
) -> tuple[Callable[[Tensors, Tensors], list[Tensor]], dict[str, Piece]]:
    """Return a function that computes queries, keys and values [batch, time, heads * head], and the
    pieces of its weights. As in ``torch.nn.MultiheadAttention``, a single matmul computes all that
    depend on the same input."""
    two = "memory" in layer.node.attributes["roles"]
    sources = (("x", "q", "q"), ("memory", "kv", "kv")) if two else (("x", "in", "qkv"),)
    biased = [n for n in "qkv" if f"b_{n}" in layer.shapes]
    pieces: dict[str, Piece] = {}
    for _, name, letters in sources:
        pieces[f"{name}_proj_weight"] = Join(tuple(Part(f"W_{n}", True) for n in letters), 0)
        if all(n in biased for n in letters):
            pieces[f"{name}_proj_bias"] = Join(tuple(Part(f"b_{n}") for n in letters), 0)
        else:
            pieces |= {f"b_{n}": Part(f"b_{n}") for n in letters if n in biased}

    def project(values: Tensors, packed: Tensors) -> list[Tensor]:
        by_letter: dict[str, Tensor] = {}
        for source, name, letters in sources:
            weight, bias = packed[f"{name}_proj_weight"], packed.get(f"{name}_proj_bias")
            y = torch.nn.functional.linear(values[source], weight, bias)
            parts = y.split([layer.shapes[f"W_{n}"][1] for n in letters], -1)
            by_letter |= dict(zip(letters, parts, strict=True))
        return [y + packed[b] if (b := f"b_{n}") in packed else y for n, y in by_letter.items()]

    return project, pieces


def _attention(layer: ClaimableCall) -> Native:
    """Return torch's attention as a native layer."""
    attributes = layer.attributes
    if layer.definition == "grouped_attention":
        head, middle = 2 * attributes["half"], _rotary(attributes["half"], attributes["base"])
    elif layer.definition == "masked_attention":
        head, middle = attributes["head"], _masked(attributes["zero_if_empty"])
    else:
        head, middle = attributes["head"], MIDDLES[layer.definition]
    project, pieces = _projections(layer)
    pieces["out_proj.weight"] = Part("W_o", transpose=True)
    if "b_o" in layer.shapes:
        pieces["out_proj.bias"] = Part("b_o")

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        # [batch, time, heads * head] -> [batch, heads, time, head]
        q, k, v = (y.unflatten(-1, (-1, head)).transpose(1, 2) for y in project(values, packed))
        y = middle(q, k, v, values, attributes["keep"]).transpose(1, 2).flatten(2)
        weight, bias = packed["out_proj.weight"], packed.get("out_proj.bias")
        return [torch.nn.functional.linear(y, weight, bias)]

    noisy = "kept" in layer.node.attributes["roles"]
    return Native(NOISY_LABEL if noisy else LABEL, run, Packing(pieces))


MIDDLES: Mapping[str, Middle] = {
    "causal_attention": partial(_attend, causal=True),
    "self_attention": _attend,
    "cross_attention": _attend,
}
ATTENTION = dict.fromkeys((*MIDDLES, "masked_attention", "grouped_attention"), _attention)


# Convolutions and pools. torch puts channels after the batch. A transposed view of a channels-last
# image has torch's ``channels_last`` memory format, which torch's kernels accept without a copy. At
# ties, torch's max pool gives the whole gradient to the first entry, as ``max_pool_first`` does.
# ``max_pool`` splits the gradient, so it runs as equations.

POOLS = {"avg_pool": "avg_pool2d", "max_pool_first": "max_pool2d"}
CONVOLVED = ("linear", "relu", "tanh", "sigmoid")


# Name of a definition -> torch's function, and for each axis of torch's weight the same axis of the
# definition's kernel.
CONVOLUTIONS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "conv1d": ("conv1d", (2, 1, 0)),
    "conv2d": ("conv2d", (3, 2, 0, 1)),
    "conv2d_transpose": ("conv_transpose2d", (3, 2, 0, 1)),
}


def convolution(layer: ClaimableCall) -> Native | None:
    """Return torch's convolution as a native layer; return None if the layer's activation is not
    one of ``CONVOLVED``."""
    attributes, definition = layer.attributes, layer.definition
    activation = attributes["activation"]
    if activation not in CONVOLVED:
        return None
    name, axes = CONVOLUTIONS[definition]
    function = getattr(torch.nn.functional, name)
    options = convolution_options(layer)
    kernel, strides = layer.shapes["W"][:-2], options["stride"]
    framing = (kernel, strides, options["dilation"])
    padding = options.pop("padding")
    # For a 1x1 kernel with a stride and channels last, oneDNN's weight gradient writes outside of
    # its memory, so take the strided entries first.
    entries: tuple[slice, ...] = (slice(None),)
    unpadded = padding != "same" and not any(n for pair in padding for n in pair)
    if set(kernel) == {1} and unpadded and name != "conv_transpose2d":
        entries += tuple(slice(None, None, stride) for stride in strides)
        options["stride"] = (1,) * len(strides)

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x = values["x"][entries]
        pads = _pads(x, padding, *framing)
        even = all(before == after for before, after in pads)
        x = x if even else _pad(x, pads, 0.0)
        before = [pair[0] if even else 0 for pair in pads]
        weight, bias = packed["weight"], packed.get("bias")
        y = function(x.movedim(-1, 1), weight, bias, padding=before, **options).movedim(1, -1)
        return [y if activation == "linear" else getattr(torch, activation)(y)]

    label = f"torch.nn.functional.{name}"
    if activation != "linear":
        label += f", torch.{activation}"
    pieces: dict[str, Piece] = {"weight": Part("W", axes=axes)}
    if "b" in layer.shapes:
        pieces["bias"] = Part("b")
    return Native(label, run, Packing(pieces))


def convolution_options(layer: ClaimableCall) -> dict[str, Any]:
    """Return a dictionary with the stride, dilation and padding of a convolution for each axis, and
    its number of channel groups. The padding is ``"same"`` or a list of pairs (before, after)."""
    attributes, rank = layer.attributes, len(layer.shapes["W"]) - 2
    options: dict[str, Any] = {}
    for name in ("stride", "dilation", "padding"):
        value = attributes[name]
        options[name] = value if isinstance(value, tuple | str) else (int(value),) * rank
    if options["padding"] != "same":
        pads = options["padding"]
        options["padding"] = [pad if isinstance(pad, tuple) else (pad, pad) for pad in pads]
    return options | {"groups": int(attributes.get("groups", 1))}


def _pads(x: Tensor, padding: Any, *framing: Sequence[int]) -> Sequence[tuple[int, int]]:
    """Return the padding before and after each axis of an image. ``framing`` are the sizes, the
    strides and optionally the dilations of the windows, which determine the padding ``"same"``."""
    if padding != "same":
        return padding
    return [_same(*axis) for axis in zip(x.shape[1:-1], *framing, strict=True)]


def _pad(x: Tensor, pads: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Pad the axes of an image; the first axis and the last axis stay unchanged."""
    sides = [0, 0, *(n for pair in reversed(pads) for n in pair)]
    return torch.nn.functional.pad(x, sides, value=value)


def _same(length: int, size: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return the padding before and after an axis for which there is one window per ``stride``
    entries (the padding ``"same"``). ``length`` is the length of the axis, and ``size`` that of a
    window."""
    total = max((-(-length // stride) - 1) * stride + dilation * (size - 1) + 1 - length, 0)
    return total // 2, total - total // 2


def pool(layer: ClaimableCall) -> Native | None:
    """Return torch's mean or max pool as a native layer. Return None for a mean that excludes the
    padding, if torch's pool rejects the padding: more than half a window, or more on one side than
    on the other."""
    attributes, name = layer.attributes, POOLS[layer.definition]
    window, stride, padding = attributes["window"], attributes["stride"], attributes["padding"]
    function = getattr(torch.nn.functional, name)
    counted = attributes.get("count_padding", True)
    options = {} if "count_padding" not in attributes else {"count_include_pad": counted}
    fits = padding != "same" and all(
        before == after and 2 * before <= size
        for (before, after), size in zip(padding, window, strict=True)
    )
    if not (counted or fits):
        return None
    lowest = 0.0 if name == "avg_pool2d" else -torch.inf

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x = values["x"]
        pads = _pads(x, padding, window, stride)
        x = x if fits else _pad(x, pads, lowest)
        before = [pair[0] if fits else 0 for pair in pads]
        return [function(x.movedim(-1, 1), window, stride, before, **options).movedim(1, -1)]

    return Native(f"torch.nn.functional.{name}", run, Packing({}))


# All other layers, and the losses.

Claim = Callable[[ClaimableCall], Native | None]


def _embedding(layer: ClaimableCall) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        return [torch.nn.functional.embedding(values["indices"], packed["weight"])]

    return Native("torch.nn.functional.embedding", run, Packing({"weight": Part("table")}))


# Below this number of entries, copying a tensor is faster than three views and their gradients.
FEW = 2**16


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x [..., features] @ weight.T + bias. It is computed as a single matrix product of all
    rows, in the order in which they are in memory.

    Recurrent layers return tensors in which time is the first axis in memory. torch would copy such
    an input, or compute one product per batch row. Small tensors are passed to torch unchanged,
    because copying them is faster than making views.
    """
    if x.dim() == 3 and x.numel() >= FEW and not x.is_contiguous():
        rows = x.transpose(0, 1).flatten(0, 1)
        y = torch.nn.functional.linear(rows, weight, bias)
        return y.unflatten(0, (x.shape[1], x.shape[0])).transpose(0, 1)
    return torch.nn.functional.linear(x, weight, bias)


class Activation(NamedTuple):
    """torch's function for an activation of a spec: its name in torch, and its extra arguments,
    e.g. ``gelu`` with ``approximate="tanh"``."""

    name: str
    arguments: Mapping[str, str] = {}

    def code(self, argument: str) -> str:
        """Return source code that calls the function with ``argument``, for a file that imports
        ``torch`` and ``nn``."""
        arguments = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name.replace('torch.nn.', 'nn.')}({argument}{arguments})".replace("'", '"')

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the activation to each entry of ``x``."""
        return attrgetter(self.name.removeprefix("torch."))(torch)(x, **self.arguments)


# Name of an activation in specs -> torch's function. Softplus is missing, because torch's softplus
# is linear above 20.
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation("torch.relu"),
    "tanh": Activation("torch.tanh"),
    "sigmoid": Activation("torch.sigmoid"),
    "gelu": Activation("torch.nn.functional.gelu"),
    "gelu_tanh": Activation("torch.nn.functional.gelu", {"approximate": "tanh"}),
    "silu": Activation("torch.nn.functional.silu"),
}


def _dense(layer: ClaimableCall) -> Native | None:
    name = layer.attributes["activation"]
    activation = ACTIVATIONS.get(name)
    if activation is None and name != "linear":
        return None

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        y = _linear(values["x"], packed["weight"], packed.get("bias"))
        return [y if activation is None else activation(y)]

    label = "torch.nn.functional.linear" + (f", {activation.name}" if activation else "")
    pieces: dict[str, Piece] = {"weight": Part("W", transpose=True)}
    if "b" in layer.shapes:
        pieces["bias"] = Part("b")
    return Native(label, run, Packing(pieces))


def _layer_norm(layer: ClaimableCall) -> Native:
    epsilon = layer.attributes["epsilon"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x, weight, bias = values["x"], packed["weight"], packed["bias"]
        return [torch.nn.functional.layer_norm(x, weight.shape, weight, bias, epsilon)]

    pieces = {"weight": Part("gamma"), "bias": Part("beta")}
    return Native("torch.nn.functional.layer_norm", run, Packing(pieces))


def _rms_norm(layer: ClaimableCall) -> Native:
    epsilon = layer.attributes["epsilon"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        weight = packed["weight"]
        return [torch.nn.functional.rms_norm(values["x"], weight.shape, weight, epsilon)]

    return Native("torch.nn.functional.rms_norm", run, Packing({"weight": Part("gamma")}))


def _group_norm(layer: ClaimableCall) -> Native:
    groups, epsilon = layer.attributes["groups"], layer.attributes["epsilon"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        # torch needs the channels on axis 1.
        x, affine = values["x"].transpose(1, 2), (packed["weight"], packed["bias"])
        # Do not use torch.nn.functional.group_norm: it rejects groups of a single value, which this
        # kernel accepts.
        y = torch.group_norm(x, groups, *affine, epsilon, torch.backends.cudnn.enabled)
        return [y.transpose(1, 2)]

    pieces = {"weight": Part("gamma"), "bias": Part("beta")}
    return Native("torch.group_norm", run, Packing(pieces))


def _batch_norm(layer: ClaimableCall, correction: int = 0) -> Native:
    """Return torch's batch norm. ``correction`` is 1 if the moving variance follows the sample
    variance."""
    epsilon, momentum = layer.attributes["epsilon"], layer.attributes["momentum"]
    training = layer.phase == "training"

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x, mean, variance = values["x"], values["moving_mean"], values["moving_variance"]
        rows = x.reshape(-1, x.shape[-1])
        moving = (None, None) if training else (mean, variance)
        # Do not use torch.nn.functional.batch_norm: it rejects a batch of a single row, which this
        # kernel accepts.
        y = torch.batch_norm(
            rows, packed["weight"], packed["bias"], *moving, training, 0.0, epsilon,
            torch.backends.cudnn.enabled,
        ).reshape(x.shape)  # fmt: skip
        if training:
            # Do not use torch's own moving statistics: it writes them in place.
            new_variance, new_mean = torch.var_mean(rows.detach(), dim=0, correction=correction)
            mean = momentum * mean + (1 - momentum) * new_mean
            variance = momentum * variance + (1 - momentum) * new_variance
        return [y, mean, variance]

    label = "torch.batch_norm, torch.var_mean" if training else "torch.batch_norm"
    return Native(label, run, Packing({"weight": Part("gamma"), "bias": Part("beta")}))


def _cross_entropy(layer: ClaimableCall) -> Native:
    """Return torch's cross-entropy as a native loss. It flattens all axes except the classes to
    rows, because torch needs the classes on axis 1."""

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        logits, target = values["logits"], values["target"]
        *leading, classes = logits.shape
        rows = target.reshape(-1) if target.dim() < logits.dim() else target.reshape(-1, classes)
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, classes), rows, reduction="none"
        )
        return [loss.reshape(leading)]

    return Native("torch.nn.functional.cross_entropy", run, Packing({}))


def _squared_error(layer: ClaimableCall) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        prediction, target = values["prediction"], values["target"]
        return [torch.nn.functional.mse_loss(prediction, target, reduction="none")]

    return Native("torch.nn.functional.mse_loss", run, Packing({}))


CLAIMS: Mapping[str, Claim] = {
    "embedding": _embedding,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "sample_batch_norm": partial(_batch_norm, correction=1),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    **ATTENTION,
    **RECURRENT,
    "sparse_cross_entropy": _cross_entropy,
    "cross_entropy": _cross_entropy,
    "squared_error": _squared_error,
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(POOLS, pool),
}
