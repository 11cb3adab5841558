"""Names of the layers of a user's Keras model: in the names of variables, and in a spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any


def variable_paths(model: Any, variables: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each layer of a model by the layer's identity. The name of a layer is the
    longest common start of the names of its variables. A layer inside a layer of the same name,
    such as the cell of an LSTM, has its own name too."""
    names = {id(variable): name.split(".") for name, variable in variables.items()}
    layers: dict[int, str] = {id(model): ""}
    for layer in model._flatten_layers(include_self=False):
        owners = [names[id(v)][:-1] for v in layer.variables if id(v) in names]
        common = takewhile(lambda parts: len(set(parts)) == 1, zip(*owners, strict=False))
        name = ".".join(parts[0] for parts in common) if owners else layer.name
        layers[id(layer)] = f"{name}.{layer.name}" if name in layers.values() else name
    return layers


def attribute_paths(model: Any) -> dict[int, str]:
    """Return the path of attributes that leads to each layer, e.g. ``blocks.0.norm1``, by the
    layer's identity. The path is empty if Keras made up the name, as for ``dense_1`` in a model
    without attributes."""
    paths: dict[int, str] = {}

    def visit(layer: Any, start: str) -> None:
        for name, part in _parts(layer):
            if id(part) not in paths:
                is_attribute = name != part.name
                full = f"{start}{name}"
                paths[id(part)] = full if is_attribute or not has_automatic_name(part) else ""
                visit(part, f"{full}.")

    visit(model, "")
    return paths


def has_automatic_name(layer: Any) -> bool:
    """Return whether Keras made up a layer's name from its class, e.g. ``dense_1``."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return re.fullmatch(rf"{words}(_\d+)?", layer.name) is not None


def _parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers in the public attributes of a layer, then the layers of a model, each with
    its name there."""
    for name, value in vars(layer).items():
        if not name.startswith("_"):
            yield from _layers_in(name, value)
    for part in getattr(layer, "layers", ()):
        yield part.name, part


def _layers_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(value, "_flatten_layers"):
        yield name, value
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _layers_in(f"{name}.{number}", part)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _layers_in(f"{name}.{key}", part)
