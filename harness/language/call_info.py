"""What a layer's call says of itself, for backends that may claim it and for exports."""

from __future__ import annotations

from typing import Any

from harness.language.attributes import plain
from harness.language.instances import LayerCall
from harness.language.library import Library
from harness.language.meaning import meaning, of_held
from harness.program.ir import Meaning


def layer_info(library: Library, call: LayerCall, noise: bool) -> dict[str, Any]:
    """The attributes of a call's node. ``noise`` says whether any comes in."""
    spec = call.instance.layer
    output = spec.scan.output if spec.scan else spec.output
    return {
        **_known(call),
        "meaning": meaning(library, "layer", spec.layer, call.instance.attributes),
        "roles": (
            *(*spec.inputs, *spec.state, *(spec.noise if noise else ())),
            *(*spec.parameters, *spec.statistics),
        ),
        "results": (output, *spec.state, *spec.statistics),
    }


def held_info(call: LayerCall, holder: Meaning, noise: bool) -> dict[str, Any]:
    """The same for what a layer of layers, or a model, holds itself: parameters and noise, which
    are what the call gives. Inputs come in where noise is declared, as they say how many numbers
    it has."""
    spec = call.instance.layer
    return {
        **_known(call),
        "meaning": of_held(holder),
        "roles": (
            *(spec.inputs if spec.noise else ()),
            *(spec.noise if noise else ()),
            *spec.parameters,
        ),
        "results": (*spec.parameters, *spec.noise),
    }


def _known(call: LayerCall) -> dict[str, Any]:
    return {
        "kind": "layer",
        "instance": call.instance.name,
        "label": call.label,
        "definition": call.instance.layer.layer,
        "attributes": plain(call.instance.attributes),
        "sizes": dict(call.sizes),
    }
