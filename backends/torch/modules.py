"""The torch.nn modules that equal layers of a spec, and the names of a module's attributes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness.extend import ClaimableCall, Native, Program
from harness.extend.program import calls_by_layer
from harness.extend.source import identifier

from .layers import CLAIMS

# Names that the classes in an exported file define themselves.
OWN = re.compile(r"initial_state|forward_\d+")


def _linear(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    rows, units = shapes["W"]
    return f"nn.Linear({rows}, {units}{'' if 'b' in shapes else ', bias=False'}"


def _embedding(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    rows, units = shapes["table"]
    return f"nn.Embedding({rows}, {units}"


def _layer_norm(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    return f"nn.LayerNorm({shapes['gamma'][0]}, eps={attributes['epsilon']!r}"


def _rms_norm(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    return f"nn.RMSNorm({shapes['gamma'][0]}, eps={attributes['epsilon']!r}"


def _rnn(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    rows, units = shapes["W"]
    bias = "" if "b" in shapes else ", bias=False"
    kind = "" if attributes["activation"] == "tanh" else ', nonlinearity="relu"'
    return f"nn.RNN({rows}, {units}{kind}{bias}, batch_first=True"


def _gated(name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], str]:
    def made(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
        rows, units = shapes["W_i" if name == "LSTM" else "W_z"]
        both = ", bidirectional=True" if any(n.startswith("back_") for n in shapes) else ""
        return f"nn.{name}({rows}, {units}{both}, batch_first=True"

    return made


def _convolution(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    *kernel, channels, units = shapes["W"]
    return _windows(f"Conv{len(kernel)}d", kernel[0], (channels, units), "", shapes, attributes)


def _depthwise(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    kernel, _, channels, multiplier = shapes["W"]
    both, groups = (channels, channels * multiplier), f", groups={channels}"
    return _windows("Conv2d", kernel, both, groups, shapes, attributes)


def _transposed(shapes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    kernel, _, units, channels = shapes["W"]
    return _windows("ConvTranspose2d", kernel, (channels, units), "", shapes, attributes)


def _windows(
    name: str,
    kernel: int,
    channels: tuple[int, int],
    more: str,
    shapes: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> str:
    options = {n: int(attributes[n]) for n in ("stride", "padding", "dilation")}
    # Write only arguments that differ from torch's defaults.
    said = [f", {n}={v}" for n, v in options.items() if v != (0 if n == "padding" else 1)]
    bias = "" if "b" in shapes else ", bias=False"
    return f"nn.{name}({channels[0]}, {channels[1]}, {kernel}{''.join(said)}{more}{bias}"


# Name of a definition -> a function that writes its torch.nn module. batch_norm is missing, because
# torch updates its statistics with the unbiased variance.
MODULES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    "embedding": _embedding,
    "dense": _linear,
    "dense_without_bias": _linear,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "simple_rnn": _rnn,
    "simple_rnn_two_biases": _rnn,
    "simple_rnn_without_bias": _rnn,
    **dict.fromkeys(("conv1d", "conv2d", "conv2d_without_bias"), _convolution),
    "depthwise_conv2d": _depthwise,
    "conv2d_transpose": _transposed,
    **dict.fromkeys(("lstm", "bidirectional_lstm"), _gated("LSTM")),
    **dict.fromkeys(("gru_reset_after", "bidirectional_gru_reset_after"), _gated("GRU")),
}


def natives(program: Program) -> dict[str, tuple[ClaimableCall, Native]]:
    """Return by layer name the layers that can be torch.nn modules, each with its native
    implementation."""
    found: dict[str, tuple[ClaimableCall, Native]] = {}
    for key, (layer, *_) in calls_by_layer(program).items():
        native = CLAIMS[layer.definition](layer) if layer.definition in MODULES else None
        if native is not None:
            found[key] = layer, native
    return found


def attribute(name: str) -> str:
    """Return a name for the attribute of a module that holds a layer or parameter; different names
    stay different."""
    # Add one more underscore to a name that already ends in underscores, so that names stay
    # different.
    stem = name.rstrip("_")
    taken = (
        keyword.iskeyword(stem) or OWN.fullmatch(stem) or hasattr(torch.nn.Module(), stem or name)
    )
    return identifier(f"{name}_" if taken else name)
