"""Mistakes in handing over parameters, each with what would make up for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from harness.arrays import Array, ArrayDict
from harness.program.signature import local_of, owner_of


def hypotheses(parameters: ArrayDict) -> Iterator[tuple[str, ArrayDict]]:
    """Mistakes in handing over parameters, each with the parameters that would make up for it."""
    trades = list(_trades(parameters))
    for layer, one, other, stems in trades:
        if len(stems) > 1:
            text = f"the gates {one} and {other} of {layer} trade places"
            yield text, _traded(parameters, layer, one, other, stems)
    for layer, one, other, stems in trades:
        for stem in stems:
            text = f"{stem}_{one} and {stem}_{other} of {layer} trade places"
            yield text, _traded(parameters, layer, one, other, [stem])
    for name, array in parameters.items():
        if array.ndim == 2 and array.shape[0] == array.shape[1]:
            layer, local = owner_of(name), local_of(name)
            yield f"{local} of {layer} is transposed", {**parameters, name: array.T}


def _trades(parameters: ArrayDict) -> Iterator[tuple[str, str, str, list[str]]]:
    """Every layer with two of its gates, and the stems (W, U, b) that both have in one shape."""
    gates: dict[str, dict[str, list[str]]] = {}
    for name in parameters:
        layer, local = owner_of(name), local_of(name)
        stem, _, gate = local.rpartition("_")
        if stem:
            gates.setdefault(layer, {}).setdefault(gate, []).append(stem)
    for layer, stems in gates.items():
        for one, other in itertools.combinations(stems, 2):
            shapes = {
                stem: {parameters[f"{layer}.{stem}_{gate}"].shape for gate in (one, other)}
                for stem in stems[one]
                if stem in stems[other]
            }
            yield layer, one, other, [stem for stem, both in shapes.items() if len(both) == 1]


def _traded(
    parameters: ArrayDict, layer: str, one: str, other: str, stems: Sequence[str]
) -> dict[str, Array]:
    traded = dict(parameters)
    for stem in stems:
        first, second = f"{layer}.{stem}_{one}", f"{layer}.{stem}_{other}"
        traded[first], traded[second] = parameters[second], parameters[first]
    return traded
