"""torch's own modules, fed with neutral parameters: gate blocks are joined on the way in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional as F

Tensors = Mapping[str, Any]
Kernel = Callable[[Tensors], Tensors]
ACTIVATIONS = {
    "silu": F.silu,
    "linear": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


def _rows(v: Tensors, letter: str, gates: str) -> Any:
    """Transposed blocks under each other: ``[gates * units, features]``."""
    return torch.cat([v[f"{letter}_{gate}"].T for gate in gates])


def _recurrent(module: Any, packed: Tensors, *arguments: Any) -> Any:
    return functional_call(module.double(), dict(packed), arguments)


def _biases(v: Tensors, letter: str, gates: str) -> Any:
    """Biases of all gates; zeros where the definition has none."""
    zeros = torch.zeros(v["h"].shape[-1], dtype=torch.float64)
    return torch.cat([v.get(f"{letter}_{g}", zeros) for g in gates])


def lstm(v: Tensors) -> Tensors:
    module = torch.nn.LSTM(v["x"].shape[-1], v["h"].shape[-1], batch_first=True)
    packed = {
        "weight_ih_l0": _rows(v, "W", "ifgo"),
        "weight_hh_l0": _rows(v, "U", "ifgo"),
        "bias_ih_l0": _biases(v, "b", "ifgo"),
        "bias_hh_l0": _biases(v, "c", "ifgo"),
    }
    y, (h, c) = _recurrent(module, packed, v["x"], (v["h"][None], v["c"][None]))
    return {"y": y, "last_h": h[0], "last_c": c[0]}


def gru_reset_after(v: Tensors) -> Tensors:
    module = torch.nn.GRU(v["x"].shape[-1], v["h"].shape[-1], batch_first=True)
    packed = {
        "weight_ih_l0": _rows(v, "W", "rzn"),
        "weight_hh_l0": _rows(v, "U", "rzn"),
        "bias_ih_l0": _biases(v, "b", "rzn"),
        "bias_hh_l0": _biases(v, "c", "rzn"),
    }
    y, h = _recurrent(module, packed, v["x"], v["h"][None])
    return {"y": y, "last_h": h[0]}


def _both_ways(v: Tensors, gates: str) -> dict[str, Any]:
    """The parameters of both directions."""
    packed = {}
    for way, end in (("", ""), ("back_", "_reverse")):
        packed |= {
            f"weight_ih_l0{end}": _rows(v, f"{way}W", gates),
            f"weight_hh_l0{end}": _rows(v, f"{way}U", gates),
        }
        for name, letter in (("bias_ih_l0", "b"), ("bias_hh_l0", "c")):
            packed[f"{name}{end}"] = _biases(v, f"{way}{letter}", gates)
    return packed


def bidirectional_lstm(v: Tensors) -> Tensors:
    sizes = (v["x"].shape[-1], v["h"].shape[-1])
    module = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
    packed = _both_ways(v, "ifgo")
    first = (torch.stack([v["h"], v["back_h"]]), torch.stack([v["c"], v["back_c"]]))
    y, (h, c) = _recurrent(module, packed, v["x"], first)
    return {"y": y, "last_h": h[0], "last_c": c[0], "last_back_h": h[1], "last_back_c": c[1]}


def masked_bidirectional_lstm(v: Tensors) -> Tensors:
    """Of rows that end where they end: packed sequences."""
    lengths, (_, time, features) = v["mask"].sum(1), v["x"].shape
    whole = {"batch_first": True}
    rows = torch.nn.utils.rnn.pack_padded_sequence(v["x"], lengths, **whole)
    module = torch.nn.LSTM(features, v["h"].shape[-1], batch_first=True, bidirectional=True)
    packed = _both_ways(v, "ifgo")
    first = (torch.stack([v["h"], v["back_h"]]), torch.stack([v["c"], v["back_c"]]))
    made, (h, c) = _recurrent(module, packed, rows, first)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(made, total_length=time, **whole)
    return {"y": y, "last_h": h[0], "last_c": c[0], "last_back_h": h[1], "last_back_c": c[1]}


def bidirectional_gru_reset_after(v: Tensors) -> Tensors:
    sizes = (v["x"].shape[-1], v["h"].shape[-1])
    module = torch.nn.GRU(*sizes, batch_first=True, bidirectional=True)
    packed = _both_ways(v, "rzn")
    y, h = _recurrent(module, packed, v["x"], torch.stack([v["h"], v["back_h"]]))
    return {"y": y, "last_h": h[0], "last_back_h": h[1]}


def rnn(activation: str) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        sizes = (v["x"].shape[-1], v["h"].shape[-1])
        module = torch.nn.RNN(*sizes, nonlinearity=activation, batch_first=True)
        packed = {
            "weight_ih_l0": v["W"].T,
            "weight_hh_l0": v["U"].T,
            "bias_ih_l0": v["b"],
            "bias_hh_l0": v["c"],
        }
        y, h = _recurrent(module, packed, v["x"], v["h"][None])
        return {"y": y, "last_h": h[0]}

    return kernel


def linear(activation: str) -> Kernel:
    act = ACTIVATIONS[activation]
    return lambda v: {"y": act(F.linear(v["x"], v["W"].T, v.get("b")))}


def embedding(v: Tensors) -> Tensors:
    return {"y": F.embedding(v["indices"], v["table"])}


def batch_norm_inference(epsilon: float) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        statistics = (v["moving_mean"], v["moving_variance"])
        channels_second = v["x"].transpose(1, 2)
        y = F.batch_norm(channels_second, *statistics, v["gamma"], v["beta"], False, 0.0, epsilon)
        after = {f"after.{n}": v[n] for n in ("moving_mean", "moving_variance")}
        return {"y": y.transpose(1, 2), **after}

    return kernel


def sample_batch_norm(training: bool, epsilon: float, momentum: float) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        after = {n: v[n].detach().clone() for n in ("moving_mean", "moving_variance")}
        scale = (v["gamma"], v["beta"], training, 1 - momentum, epsilon)
        y = F.batch_norm(v["x"].transpose(1, 2), *after.values(), *scale)
        return {"y": y.transpose(1, 2), **{f"after.{n}": a for n, a in after.items()}}

    return kernel


def layer_norm(epsilon: float) -> Kernel:
    return lambda v: {"y": F.layer_norm(v["x"], v["gamma"].shape, v["gamma"], v["beta"], epsilon)}


def rms_norm(epsilon: float) -> Kernel:
    return lambda v: {"y": F.rms_norm(v["x"], v["gamma"].shape, v["gamma"], epsilon)}


def group_norm(groups: int, epsilon: float) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        y = F.group_norm(v["x"].transpose(1, 2), groups, v["gamma"], v["beta"], epsilon)
        return {"y": y.transpose(1, 2)}

    return kernel


def causal_attention(v: Tensors, heads: int = 2) -> Tensors:
    def by_head(stem: str) -> Any:
        flat = F.linear(v["x"], v[f"W_{stem}"].T, v[f"b_{stem}"])
        return flat.unflatten(-1, (heads, -1)).transpose(1, 2)

    found = F.scaled_dot_product_attention(*map(by_head, "qkv"), is_causal=True)
    return {"y": F.linear(found.transpose(1, 2).flatten(2), v["W_o"].T, v["b_o"])}


def whole_attention(v: Tensors, heads: int = 2) -> Tensors:
    """torch's own layer, which has the features of its input in its heads."""
    width = v["W_q"].shape[1]
    module = torch.nn.MultiheadAttention(width, heads, batch_first=True).double()
    packed = {
        "in_proj_weight": _rows(v, "W", "qkv"),
        "in_proj_bias": torch.cat([v[f"b_{stem}"] for stem in "qkv"]),
        "out_proj.weight": v["W_o"].T,
        "out_proj.bias": v["b_o"],
    }
    mask = torch.nn.Transformer.generate_square_subsequent_mask(v["x"].shape[1]).double()
    y, _ = functional_call(module, packed, (v["x"],) * 3, {"attn_mask": mask, "is_causal": True})
    return {"y": y}


def learned_positions(v: Tensors) -> Tensors:
    return {"y": v["x"] + F.embedding(torch.arange(v["x"].shape[1]), v["table"])}


def gpt_block(activation: Callable[[Any], Any], epsilon: float = 1e-5) -> Kernel:
    """torch's encoder layer, normalised before, with a mask."""

    def kernel(v: Tensors) -> Tensors:
        width, wide = v["x"].shape[-1], v["up.b"].shape[0]
        options: Any = {"activation": activation, "batch_first": True, "norm_first": True}
        options["layer_norm_eps"] = epsilon
        module = torch.nn.TransformerEncoderLayer(width, 2, wide, 0.0, **options).double()
        attend = {n.removeprefix("attend."): t for n, t in v.items() if n.startswith("attend.")}
        packed = {
            "self_attn.in_proj_weight": _rows(attend, "W", "qkv"),
            "self_attn.in_proj_bias": torch.cat([attend[f"b_{stem}"] for stem in "qkv"]),
            "self_attn.out_proj.weight": attend["W_o"].T,
            "self_attn.out_proj.bias": attend["b_o"],
        }
        for ours, theirs in (("up", "linear1"), ("down", "linear2")):
            packed |= {f"{theirs}.weight": v[f"{ours}.W"].T, f"{theirs}.bias": v[f"{ours}.b"]}
        for ours, theirs in (("norm_1", "norm1"), ("norm_2", "norm2")):
            packed |= {f"{theirs}.weight": v[f"{ours}.gamma"], f"{theirs}.bias": v[f"{ours}.beta"]}
        mask = torch.nn.Transformer.generate_square_subsequent_mask(v["x"].shape[1]).double()
        return {"y": functional_call(module, packed, (v["x"], mask), {"is_causal": True})}

    return kernel


def unary(function: Callable[[Any], Any]) -> Kernel:
    return lambda v: {"y": function(v["x"])}


def of_singular_values(a: float, b: float, c: float) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        left, s, right = torch.linalg.svd(v["x"], full_matrices=False)
        return {"y": left @ torch.diag(a * s + b * s**3 + c * s**5) @ right}

    return kernel


def binary(function: Callable[[Any, Any], Any]) -> Kernel:
    return lambda v: {"y": function(v["a"], v["b"])}


def squared_error(v: Tensors) -> Tensors:
    return {"y": F.mse_loss(v["prediction"], v["target"], reduction="none")}


def cross_entropy(v: Tensors) -> Tensors:
    """torch wants the classes on axis 1; the target is either indices or probabilities."""
    target = v["target"] if v["target"].dtype == torch.int64 else v["target"].transpose(1, 2)
    return {"y": F.cross_entropy(v["logits"].transpose(1, 2), target, reduction="none")}


def accuracy(v: Tensors) -> Tensors:
    return {"y": (v["logits"].argmax(-1) == v["target"]).double()}


def clipped_cross_entropy(epsilon: float) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        clipped = torch.log(torch.clamp(v["probabilities"], epsilon, 1 - epsilon))
        target = v["target"].argmax(-1)
        return {"y": F.nll_loss(clipped.transpose(1, 2), target, reduction="none")}

    return kernel


def evaluate(
    kernel: Kernel, given: Mapping[str, Any], against: Iterable[str], cotangents: Mapping[str, Any]
) -> dict[str, Any]:
    """A kernel's outputs and, where there are cotangents, its gradients."""
    names = list(against)
    leaves = {n: torch.tensor(a, requires_grad=n in names) for n, a in given.items()}
    found = dict(kernel(leaves))
    if cotangents:
        total = sum((found[n] * torch.tensor(c)).sum() for n, c in cotangents.items())
        gradients = torch.autograd.grad(total, [leaves[n] for n in names])
        found |= {f"gradient.{n}": g for n, g in zip(names, gradients, strict=True)}
    return {n: value.detach().numpy() for n, value in found.items()}


def optimizer(make: Callable[..., Any], slots: Mapping[str, str], **options: float) -> Any:
    """Steps of a ``torch.optim`` class; ``slots`` maps neutral names to its state's names."""

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        p = torch.nn.Parameter(torch.tensor(given["p"], dtype=torch.float64))
        stepper = make([p], lr=1.0, **options)
        history: dict[str, list[Any]] = {"p": [], **{n: [] for n in slots}}
        for g, rate in zip(given["gradients"], given["learning_rates"], strict=True):
            p.grad = torch.tensor(g, dtype=torch.float64)
            stepper.param_groups[0]["lr"] = rate
            stepper.step()
            history["p"].append(p.detach().clone())
            for name, theirs in slots.items():
                history[name].append(stepper.state[p][theirs].expand_as(p).clone())
        return {name: torch.stack(values) for name, values in history.items()}

    return run


def warmup_cosine(v: Tensors) -> Tensors:
    """torch.optim's two schedules, one after the other, asked step by step."""
    first, steps = (int(v[name].flatten()[0]) for name in ("first", "steps"))
    stepper = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler
    rise = scheduler.LinearLR(stepper, 1 / first, total_iters=first - 1)
    fall = scheduler.CosineAnnealingLR(stepper, steps - first)
    both = scheduler.SequentialLR(stepper, [rise, fall], [first - 1])
    factors = []
    for _ in range(steps):
        factors.append(both.get_last_lr()[0])
        stepper.step()
        both.step()
    return {"y": torch.tensor(factors, dtype=torch.float64)[v["t"].long() - 1]}
