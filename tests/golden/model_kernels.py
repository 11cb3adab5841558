"""torch's parts of encoders and state spaces, and which of them is the witness of which layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from golden.recipe import Recipe

Tensors = Mapping[str, Any]
Kernel = Callable[[Tensors], Tensors]
HEADS = 2
# Of three rows: one whole, one that ends, and one of a single step.
MASK = np.arange(5)[None] < np.array([5, 3, 1])[:, None]


def _part(v: Tensors, name: str) -> Tensors:
    return {n.removeprefix(f"{name}."): t for n, t in v.items() if n.startswith(f"{name}.")}


def attention(torch: Any) -> Kernel:
    """torch's function for what is between the products."""
    F = torch.nn.functional

    def kernel(v: Tensors) -> Tensors:
        def by_head(stem: str) -> Any:
            flat = F.linear(v["x"], v[f"W_{stem}"].T, v[f"b_{stem}"])
            return flat.unflatten(-1, (HEADS, -1)).transpose(1, 2)

        mask = v["mask"][:, None, None, :] if "mask" in v else None
        found = F.scaled_dot_product_attention(*map(by_head, "qkv"), attn_mask=mask)
        return {"y": F.linear(found.transpose(1, 2).flatten(2), v["W_o"].T, v["b_o"])}

    return kernel


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


def encoder(torch: Any, before: bool, activation: str) -> Kernel:
    """torch's own block, normalised before or behind."""
    act = {"gelu": torch.nn.functional.gelu, "tanh": torch.tanh}[activation]

    def kernel(v: Tensors) -> Tensors:
        width, wide = v["x"].shape[-1], v["up.b"].shape[0]
        options: Any = {"activation": act, "batch_first": True}
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


def mamba(torch: Any, scan: Kernel) -> Kernel:
    """The parts in the order of the paper's figure."""
    F = torch.nn.functional

    def kernel(v: Tensors) -> Tensors:
        gamma = v["norm.gamma"]
        h = F.rms_norm(v["x"], gamma.shape, gamma, 1e-6)
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


def focal(torch: Any, gamma: float) -> Kernel:
    """The paper's formula, of probabilities."""

    def kernel(v: Tensors) -> Tensors:
        p = torch.softmax(v["logits"], -1).gather(-1, v["target"][..., None])[..., 0]
        return {"y": -((1 - p) ** gamma) * torch.log(p)}

    return kernel


def info_nce(torch: Any, temperature: float) -> Kernel:
    """torch's cross-entropy, of which each row's class is its own number."""

    def kernel(v: Tensors) -> Tensors:
        scores = v["x"] @ v["partner"].T / temperature
        target = torch.arange(len(scores))
        return {"y": torch.nn.functional.cross_entropy(scores, target, reduction="none")}

    return kernel


def contrasts(torch: Any) -> list[Recipe]:
    """Losses that no framework has whole."""
    made = []
    for gamma in (2.0, 0.5):
        kernel = focal(torch, gamma)
        made.append(Recipe("loss", "focal", "torch.softmax", kernel, {"gamma": gamma}))
    for temperature in (0.1, 0.5):
        kernel, given = info_nce(torch, temperature), {"temperature": temperature}
        source = "torch.nn.functional.cross_entropy"
        made.append(Recipe("loss", "info_nce", source, kernel, given))
    return made


def encoders(torch: Any) -> list[Recipe]:
    """Each by what torch has of it; a scan in two ways."""
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
        Recipe("layer", "mamba_block", f"{module}functional.conv1d", mamba(torch, scanned(torch))),
    ]
    for act in ("gelu", "tanh"):
        source, given = f"{module}TransformerEncoderLayer", {"activation": act}
        before, behind = (encoder(torch, where, act) for where in (True, False))
        made.append(Recipe("layer", "vit_block", source, before, given))
        made.append(Recipe("layer", "bert_block", source, behind, given, given=masked))
    for act in ("relu", "tanh"):
        source, given = f"{module}functional.conv2d", {"activation": act}
        made.append(Recipe("layer", "unet_convs", source, convolved_twice(torch, act), given))
    for act in ("linear", "silu"):
        source, given = f"{module}functional.conv1d", {"activation": act}
        made.append(Recipe("layer", "causal_conv1d", source, causal(torch, act), given))
    return made
