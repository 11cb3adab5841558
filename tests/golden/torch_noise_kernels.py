"""Layers with noise by torch's own parts, the noise handed in."""

from __future__ import annotations

import torch

from golden.torch_kernels import Kernel, Tensors


def dropout(keep: float) -> Kernel:
    return lambda v: {"y": torch.mul(v["x"], v["kept"]) / keep}


def gaussian_sample(v: Tensors) -> Tensors:
    scale = torch.sqrt(torch.exp(v["log_variance"]))
    shift = torch.distributions.transforms.AffineTransform(v["center"], scale)
    return {"y": shift(v["unit"])}


def zoneout_lstm(v: Tensors) -> Tensors:
    """torch's cell, after which some entries are as before."""
    cell = torch.nn.LSTMCell(v["x"].shape[-1], v["h"].shape[-1]).double()
    weights = {
        f"weight_{part}h": torch.cat([v[f"{letter}_{gate}"].T for gate in "ifgo"])
        for part, letter in (("i", "W"), ("h", "U"))
    }
    bias = torch.cat([v[f"b_{gate}"] for gate in "ifgo"])
    weights |= {"bias_ih": bias, "bias_hh": torch.zeros_like(bias)}
    h, c, outputs = v["h"], v["c"], []
    for step, x in enumerate(v["x"].unbind(1)):
        after = torch.func.functional_call(cell, weights, (x, (h, c)))
        h = torch.lerp(after[0], h, v["state_stays"][:, step])
        c = torch.lerp(after[1], c, v["cell_stays"][:, step])
        outputs.append(h)
    return {"y": torch.stack(outputs, 1), "last_h": h, "last_c": c}
