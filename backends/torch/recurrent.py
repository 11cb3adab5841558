"""The native recurrent layers of the backend ``torch``: the functions that torch.nn's modules
call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.extend import (
    Chain,
    ClaimableCall,
    FrozenZeros,
    Join,
    Native,
    Packing,
    Part,
    Piece,
    Tensors,
)

Tensor = Any
# This number saturates a gate in every dtype if it is added to the gate's input: the sigmoid is 0
# or 1, and its derivative is 0.
OPEN = 1e4


def _recurrent(
    label: str, states: Sequence[str], pieces: Mapping[str, Piece], units: int
) -> Native:
    kernel = getattr(torch, label.removeprefix("torch."))
    both = any(name.endswith("_reverse") for name in pieces)
    ways = [(s, f"back_{s}") if both else (s,) for s in states]

    def chain(layers: Sequence[tuple[Tensors, Tensors]]) -> Sequence[Tensor]:
        # States have the shape [layers * directions, batch, units]; cuDNN needs them contiguous.
        initial = [torch.stack([values[s] for values, _ in layers for s in way]) for way in ways]
        weights = [packed[name] for _, packed in layers for name in pieces]
        x = layers[0][0]["x"]
        output, *final = _call(kernel, x, initial, weights, both, len(layers))
        return [output, *(state[n] for n in range(len(initial[0])) for state in final)]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        return chain([(values, packed)])

    # Layers can run in one call of torch only if they have the same number of units.
    return Native(label, run, Packing(pieces), chain=Chain((label, *pieces, units), chain))


def _call(
    kernel: Any,
    x: Tensor,
    initial: Sequence[Tensor],
    weights: Sequence[Tensor],
    both: bool,
    layers: int = 1,
) -> Sequence[Tensor]:
    # Use training mode only if a tensor requires gradients: oneDNN then stores data for the
    # backward pass, and cuDNN needs it. Without dropout, training and evaluation mode compute the
    # same.
    training = any(tensor.requires_grad for tensor in (x, *initial, *weights))
    # Without biases, each direction has only two weights: for the input and for the state.
    has_biases = len(weights) > 2 * (1 + both) * layers
    dropout, batch_first = 0.0, True
    with torch.set_grad_enabled(training):
        results: Sequence[Tensor] = kernel(
            x, initial if len(initial) > 1 else initial[0], weights,
            has_biases, layers, dropout, training, both, batch_first,
        )  # fmt: skip
    return results


# The names of the weights of one direction in torch.
_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _gates(prefix: str, order: str, transpose: bool) -> Join:
    return Join(tuple(Part(f"{prefix}_{gate}", transpose) for gate in order), 0)


def _gated(layer: ClaimableCall) -> bool:
    return (layer.attributes["activation"], layer.attributes["gate"]) == ("tanh", "sigmoid")


def directions(layer: ClaimableCall) -> list[tuple[str, str]]:
    """Return a pair for each direction of a recurrent layer: the prefix of its parameters in the
    spec (``back_`` or empty), and the suffix of its tensors in torch (``_reverse`` or empty)."""
    back = any(name.startswith("back_") for name in layer.shapes)
    return [("", ""), ("back_", "_reverse")] if back else [("", "")]


def _gate_pieces(
    layer: ClaimableCall, order: str, second: Callable[[str], Piece]
) -> dict[str, Piece]:
    """Return how the tensors of a torch layer with gates correspond to the spec's parameters, by
    torch's tensor names. ``order`` is torch's order of the gates, e.g. ``ifgo``. ``second(prefix)``
    returns the same for the second bias."""
    pieces: dict[str, Piece] = {}
    for way, end in directions(layer):
        pieces |= {
            f"weight_ih_l0{end}": _gates(f"{way}W", order, transpose=True),
            f"weight_hh_l0{end}": _gates(f"{way}U", order, transpose=True),
        }
        if layer.attributes.get("bias", True):
            pieces |= {
                f"bias_ih_l0{end}": _gates(f"{way}b", order, transpose=False),
                f"bias_hh_l0{end}": second(way),
            }
    return pieces


def _simple_rnn(layer: ClaimableCall) -> Native | None:
    activation = layer.attributes["activation"]
    if activation not in ("tanh", "relu"):
        return None
    pieces: dict[str, Piece] = {
        "weight_ih_l0": Part("W", transpose=True),
        "weight_hh_l0": Part("U", transpose=True),
    }
    if "b" in layer.shapes:
        second = Part("c") if "c" in layer.shapes else FrozenZeros(layer.shapes["b"])
        pieces |= {"bias_ih_l0": Part("b"), "bias_hh_l0": second}
    return _recurrent(f"torch.rnn_{activation}", ["h"], pieces, len(layer.shapes["U"]))


def _lstm(layer: ClaimableCall) -> Native | None:
    bias, two = layer.attributes["bias"], layer.attributes["second_bias"]
    if not _gated(layer) or (two and not bias):
        return None
    units = layer.shapes["U_i"][0]

    def second(way: str) -> Piece:
        return _gates(f"{way}c", "ifgo", transpose=False) if two else FrozenZeros((4 * units,))

    pieces = _gate_pieces(layer, "ifgo", second)
    return _recurrent("torch.lstm", ["h", "c"], pieces, units)


def _masked_lstm(layer: ClaimableCall) -> Native | None:
    """Return torch's LSTM for a bidirectional LSTM with a padding mask.

    In each direction, unmasked steps are moved to the front, so that one call computes all steps.
    The masked steps come after them. Their gates are saturated so that the state ``c`` stays the
    same. The final state ``h`` is the output of the last unmasked step. torch's packed sequences
    are not used: they reject fully masked rows, and on a CPU they are three times slower in
    inference, and four to eight times in training.
    """
    if not _gated(layer):
        return None
    (units,) = layer.shapes["b_i"]
    pieces = _gate_pieces(layer, "ifgo", lambda way: FrozenZeros((4 * units,)))
    # For each gate, the column of input weights that saturates the gate in masked steps.
    saturating = torch.tensor([-OPEN, OPEN, 0.0, 0.0]).repeat_interleave(units)[:, None]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x, mask = values["x"], values["mask"]
        counts = mask.sum(1, keepdim=True)
        # Masked inputs may have any value, also NaN.
        rows = torch.cat([torch.where(mask[..., None], x, 0.0), ~mask[..., None]], -1)
        column = saturating.to(x.device, x.dtype)
        outputs, states = [], []
        for way, end in directions(layer):
            start = {name: values[f"{way}{name}"] for name in "hc"}
            weights = [packed[f"{n}_l0{end}"] for n in _WEIGHTS]
            weights[0] = torch.cat([weights[0], column], 1)
            places = _sorted_positions(mask, counts, backwards=bool(way))[..., None]
            sorted_rows = torch.zeros_like(rows).scatter(1, places.expand_as(rows), rows)
            first = [start[name][None] for name in "hc"]
            sorted_outputs, _, c = _call(torch.lstm, sorted_rows, first, weights, both=False)
            last = (counts - 1).clamp(min=0)[..., None].expand(-1, -1, units)
            h = torch.where(counts > 0, sorted_outputs.gather(1, last)[:, 0], start["h"])
            steps = sorted_outputs.gather(1, places.expand(-1, -1, units))
            outputs.append(torch.where(mask[..., None], steps, 0.0))
            states += [h, c[0]]
        return [torch.cat(outputs, -1), *states]

    return Native("torch.lstm", run, Packing(pieces))


def _sorted_positions(mask: Tensor, counts: Tensor, backwards: bool) -> Tensor:
    """Return an array [batch, time] with the new position of each step, if unmasked steps are moved
    to the front. ``counts`` [batch, 1] are the numbers of unmasked steps. With ``backwards``, the
    order of the unmasked steps is reversed."""
    rank = mask.cumsum(1)
    front = counts - rank if backwards else rank - 1
    steps = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, front, counts + steps - rank)


def _gru_reset_after(layer: ClaimableCall) -> Native | None:
    if not _gated(layer):
        return None
    pieces = _gate_pieces(layer, "rzn", lambda way: _gates(f"{way}c", "rzn", transpose=False))
    return _recurrent("torch.gru", ["h"], pieces, len(layer.shapes["U_n"]))


# The functions that use cuDNN on a GPU.
CUDNN = frozenset({"torch.rnn_tanh", "torch.rnn_relu", "torch.lstm", "torch.gru"})

RECURRENT: Mapping[str, Callable[[ClaimableCall], Native | None]] = {
    "simple_rnn": _simple_rnn,
    "simple_rnn_two_biases": _simple_rnn,
    "simple_rnn_without_bias": _simple_rnn,
    **dict.fromkeys(("lstm", "bidirectional_lstm"), _lstm),
    "masked_bidirectional_lstm": _masked_lstm,
    **dict.fromkeys(("gru_reset_after", "bidirectional_gru_reset_after"), _gru_reset_after),
}
