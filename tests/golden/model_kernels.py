"""What larger models are made of by torch's own parts: encoders, state spaces, experts, graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Tensors = Mapping[str, Any]
Kernel = Callable[[Tensors], Tensors]
HEADS = 2
EPSILON = 1e-6  # of rms_norm
# Of three rows: one whole, one that ends, and one of a single step.
MASK = np.arange(5)[None] < np.array([5, 3, 1])[:, None]
# Of rows that begin late, are interrupted, or have no step at all.
GAPS = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0]], bool)


def _part(v: Tensors, name: str) -> Tensors:
    return {n.removeprefix(f"{name}."): t for n, t in v.items() if n.startswith(f"{name}.")}


def attention(torch: Any, keep: float = 1, causal: bool = False, zero: bool = False) -> Kernel:
    """torch's function for what is between the products; with noise, its softmax and dropout."""
    F = torch.nn.functional

    def kernel(v: Tensors) -> Tensors:
        def by_head(stem: str) -> Any:
            source = v["x"] if stem == "q" else v.get("memory", v["x"])
            flat = F.linear(source, v[f"W_{stem}"].T, v.get(f"b_{stem}"))
            return flat.unflatten(-1, (HEADS, -1)).transpose(1, 2)

        mask = v["mask"][:, None, None, :] if "mask" in v else None
        if causal:
            mask = torch.ones(v["x"].shape[1], v["x"].shape[1]).tril().bool()
        parts = [by_head(stem) for stem in "qkv"]
        if "kept" in v:
            found = dropped(torch, *parts, mask, v["kept"] / keep)
        elif zero:
            found = dropped(torch, *parts, mask, mask.double())
        else:
            found = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        return {"y": F.linear(found.transpose(1, 2).flatten(2), v["W_o"].T, v.get("b_o"))}

    return kernel


def dropped(torch: Any, q: Any, k: Any, v: Any, mask: Any, factors: Any) -> Any:
    """Attention with the factors of its dropout, for torch's own draws none from outside."""
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    scores = scores if mask is None else scores.masked_fill(~mask, -1e30)
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1) * factors, v)


def _packed(torch: Any, v: Tensors, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}in_proj_weight": torch.cat([v[f"W_{stem}"].T for stem in "qkv"]),
        f"{prefix}in_proj_bias": torch.cat([v[f"b_{stem}"] for stem in "qkv"]),
        f"{prefix}out_proj.weight": v["W_o"].T,
        f"{prefix}out_proj.bias": v["b_o"],
    }


def whole_attention(torch: Any) -> Kernel:
    """torch's own layer."""

    def kernel(v: Tensors) -> Tensors:
        width = v["W_q"].shape[1]
        module = torch.nn.MultiheadAttention(width, HEADS, batch_first=True).double()
        options = {"key_padding_mask": ~v["mask"]} if "mask" in v else {}
        call = torch.func.functional_call
        return {"y": call(module, _packed(torch, v, ""), (v["x"],) * 3, options)[0]}

    return kernel


def encoder(torch: Any, before: bool, activation: str, epsilon: float) -> Kernel:
    """torch's own block, normalised before or behind."""
    act = {"gelu": torch.nn.functional.gelu, "tanh": torch.tanh}[activation]

    def kernel(v: Tensors) -> Tensors:
        width, wide = v["x"].shape[-1], v["up.b"].shape[0]
        options: Any = {"activation": act, "batch_first": True, "layer_norm_eps": epsilon}
        layer = torch.nn.TransformerEncoderLayer
        module = layer(width, HEADS, wide, 0.0, norm_first=before, **options).double()
        packed = _packed(torch, _part(v, "attend"), "self_attn.")
        for ours, theirs in (("up", "linear1"), ("down", "linear2")):
            packed |= {f"{theirs}.weight": v[f"{ours}.W"].T, f"{theirs}.bias": v[f"{ours}.b"]}
        for ours, theirs in (("norm_1", "norm1"), ("norm_2", "norm2")):
            packed |= {f"{theirs}.weight": v[f"{ours}.gamma"], f"{theirs}.bias": v[f"{ours}.beta"]}
        masked = {"src_key_padding_mask": ~v["mask"]} if "mask" in v else {}
        return {"y": torch.func.functional_call(module, packed, (v["x"],), masked)}

    return kernel


def chosen(torch: Any, v: Tensors) -> tuple[Any, Any, Any]:
    """Of a selective scan: the steps, the logs of what stays at each, and what comes in."""
    delta = torch.nn.functional.softplus(v["x"] @ v["W_delta"] + v["b_delta"])
    rates = torch.arange(1, v["W_in"].shape[1] + 1) * torch.exp(v["log_rate"])
    stays = -delta[..., None] * rates
    return delta, stays, (delta * v["x"])[..., None] * (v["x"] @ v["W_in"])[..., None, :]


def scanned(torch: Any) -> Kernel:
    """Step by step."""

    def kernel(v: Tensors) -> Tensors:
        _, stays, added = chosen(torch, v)
        out, h, steps = v["x"] @ v["W_out"], v["h"], []
        for step in range(v["x"].shape[1]):
            h = torch.exp(stays[:, step]) * h + added[:, step]
            steps.append(torch.einsum("bfn,bn->bf", h, out[:, step]))
        return {"y": torch.stack(steps, 1) + v["direct"] * v["x"], "last_h": h}

    return kernel


def summed(torch: Any) -> Kernel:
    """All steps at once, each the sum of what came in before and has stayed."""

    def kernel(v: Tensors) -> Tensors:
        _, stays, added = chosen(torch, v)
        total = stays.cumsum(1)
        # [batch, to, from, features, states]: what stays of a step until another one.
        kept = torch.exp(total[:, :, None] - total[:, None])
        order = torch.arange(v["x"].shape[1])
        kept = kept * (order[None] <= order[:, None])[None, :, :, None, None]
        h = torch.einsum("btsfn,bsfn->btfn", kept, added) + torch.exp(total) * v["h"][:, None]
        y = torch.einsum("btfn,btn->btf", h, v["x"] @ v["W_out"]) + v["direct"] * v["x"]
        return {"y": y, "last_h": h[:, -1]}

    return kernel


def causal(torch: Any, activation: str) -> Kernel:
    """A convolution that is padded on both sides, less what looks ahead."""
    act = {"linear": lambda y: y, "silu": torch.nn.functional.silu}[activation]

    def kernel(v: Tensors) -> Tensors:
        x, size = v["x"].transpose(1, 2), v["W"].shape[0]
        weight = v["W"].T[:, None]
        y = torch.nn.functional.conv1d(x, weight, v["b"], padding=size - 1, groups=x.shape[1])
        return {"y": act(y[..., : x.shape[-1]]).transpose(1, 2)}

    return kernel


def mamba(torch: Any, scan: Kernel, epsilon: float = EPSILON) -> Kernel:
    """The parts in the order of the paper's figure."""
    F = torch.nn.functional

    def kernel(v: Tensors) -> Tensors:
        gamma = v["norm.gamma"]
        h = F.rms_norm(v["x"], gamma.shape, gamma, epsilon)
        mixed = causal(torch, "silu")({"x": h @ v["up.W"], **_part(v, "conv")})["y"]
        zero = torch.zeros(*mixed.shape[::2], v["scan.W_in"].shape[1], dtype=mixed.dtype)
        found = scan({"x": mixed, "h": zero, **_part(v, "scan")})["y"]
        return {"y": v["x"] + (found * F.silu(h @ v["gate.W"])) @ v["down.W"]}

    return kernel


def convolved_twice(torch: Any, activation: str) -> Kernel:
    """torch's convolutions, channels first."""
    act = getattr(torch, activation)

    def kernel(v: Tensors) -> Tensors:
        y = v["x"].movedim(-1, 1)
        for name in ("first", "second"):
            weight = v[f"{name}.W"].permute(3, 2, 0, 1)
            y = act(torch.nn.functional.conv2d(y, weight, v[f"{name}.b"], padding=1))
        return {"y": y.movedim(1, -1)}

    return kernel


def turned(base: float) -> Kernel:
    """Rotary positions as products of complex numbers."""
    import torch as t

    return lambda v: {"y": _turned(t, v["x"], base)}


def _turned(t: Any, x: Any, base: float) -> Any:
    a, b = x.chunk(2, -1)
    half, time = a.shape[-1], x.shape[-2]
    rates = base ** -(t.arange(half, dtype=x.dtype) / half)
    angles = t.outer(t.arange(time, dtype=x.dtype), rates)
    product = t.complex(a, b) * t.polar(t.ones_like(angles), angles)
    return t.cat([product.real, product.imag], -1)


def neighbours_turned(base: float) -> Kernel:
    """The same of neighbouring entries."""
    import torch as t

    def kernel(v: Tensors) -> Tensors:
        pairs = t.view_as_complex(v["x"].unflatten(-1, (-1, 2)))
        half, time = pairs.shape[-1], pairs.shape[-2]
        rates = base ** -(t.arange(half, dtype=v["x"].dtype) / half)
        angles = t.outer(t.arange(time, dtype=v["x"].dtype), rates)
        return {"y": t.view_as_real(pairs * t.polar(t.ones_like(angles), angles)).flatten(-2)}

    return kernel


def turned_by_steps(base: float) -> Kernel:
    """The same as what a generator of rotations makes in so many steps."""
    import torch as t

    def kernel(v: Tensors) -> Tensors:
        width, time = v["x"].shape[-1], v["x"].shape[-2]
        generator = t.zeros(width, width, dtype=v["x"].dtype)
        for first in range(0, width, 2):
            generator[first + 1, first] = base ** -(first / width)
            generator[first, first + 1] = -generator[first + 1, first]
        turns = t.stack([t.matrix_exp(step * generator) for step in range(time)])
        return {"y": (turns @ v["x"][..., None])[..., 0]}

    return kernel


def experts(t: Any, activation: Callable[[Any], Any]) -> Kernel:
    """Only the experts that were chosen, one example after the other."""

    def kernel(v: Tensors) -> Tensors:
        rows = v["x"].reshape(-1, v["x"].shape[-1])
        found = []
        for row in rows:
            score, expert = t.topk(row @ v["W_route"], 2)
            parts = [activation(row @ v["W_up"][e]) @ v["W_down"][e] for e in expert]
            found.append(t.softmax(score, -1) @ t.stack(parts))
        return {"y": t.stack(found).reshape(v["x"].shape)}

    return kernel


def graph(t: Any, activation: Callable[[Any], Any]) -> Kernel:
    """By the matrix of neighbours, as the paper has it."""

    def kernel(v: Tensors) -> Tensors:
        nodes = v["x"].shape[-2]
        near = t.eye(nodes, dtype=v["x"].dtype)
        for sender, receiver in zip(v["sender"].tolist(), v["receiver"].tolist(), strict=True):
            near[receiver, sender] += 1
        root = near.sum(1) ** -0.5
        near = root[:, None] * near * root
        return {"y": activation(near @ v["x"] @ v["W"] + v["b"])}

    return kernel


def grouped_attention(t: Any, base: float, keep: float = 1) -> Kernel:
    """Rotary, by torch's own with fewer keys than queries."""
    f = t.nn.functional

    def kernel(v: Tensors, groups: int = 2) -> Tensors:
        width = v["W_k"].shape[1] // groups
        queries, keys, values = (
            f.linear(v["x"], v[f"W_{n}"].T, v.get(f"b_{n}"))
            .unflatten(-1, (-1, width))
            .transpose(1, 2)
            for n in "qkv"
        )
        queries, keys = (_turned(t, x, base) for x in (queries, keys))
        if "kept" in v:
            keys, values = (
                x.repeat_interleave(queries.shape[1] // groups, 1) for x in (keys, values)
            )
            mask = t.ones(v["x"].shape[1], v["x"].shape[1]).tril().bool()
            found = dropped(t, queries, keys, values, mask, v["kept"].flatten(1, 2) / keep)
        else:
            found = f.scaled_dot_product_attention(
                queries, keys, values, is_causal=True, enable_gqa=True
            )
        return {"y": f.linear(found.transpose(1, 2).flatten(2), v["W_o"].T, v.get("b_o"))}

    return kernel


def llama(t: Any, activation: Callable[[Any], Any], epsilon: float = EPSILON) -> Kernel:
    """A block of it, norms first."""
    attend = grouped_attention(t, 10000.0)

    def norm(x: Any, gamma: Any) -> Any:
        return t.nn.functional.rms_norm(x, gamma.shape, gamma, epsilon)

    def kernel(v: Tensors) -> Tensors:
        own = {n.removeprefix("attend."): w for n, w in v.items() if n.startswith("attend.")}
        h = v["x"] + attend({"x": norm(v["x"], v["norm_1.gamma"]), **own})["y"]
        inner = norm(h, v["norm_2.gamma"])
        return {"y": h + activation(inner @ v["gate.W"]) * (inner @ v["up.W"]) @ v["down.W"]}

    return kernel
