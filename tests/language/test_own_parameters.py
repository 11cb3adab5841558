"""Parameters and noise that a layer of layers has of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scaled_model import MODEL, SCALED, STEM, scaled
from wording import Wording

from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.initial_values import initial_parameters
from harness.language.library import Library
from harness.language.model import Spec
from harness.oracle import oracle
from harness.program.ir import Phase
from harness.program.signature import noise_ports
from harness.runtime.native import ClaimableCall

OWN = {"scaled": ("scale", "shift"), "stem": ("token",)}


def test_they_are_named_by_the_way_to_them_before_those_of_the_layers_inside() -> None:
    program = scaled().program("training")
    dense = ("up.W", "up.b", "down.W", "down.b")
    assert [port.name for port in program.parameters] == [
        *("stem.token", "stem.embed.W", "stem.embed.b"),
        *(f"blocks.0.{name}" for name in (*OWN["scaled"], *dense)),
        *(f"blocks.1.{name}" for name in (*OWN["scaled"], *dense)),
        *(f"again.{name}" for name in (*OWN["scaled"], *dense)),
    ]
    # Each call draws noise of its own; a layer that is called twice has its parameters once.
    assert [port.name for port in noise_ports(program)] == [
        *("blocks.0.kept", "blocks.1.kept", "again.kept", "again.2.kept"),
    ]
    assert not noise_ports(scaled().program("inference"))


def test_laws_are_those_of_the_definition_or_of_the_use() -> None:
    arrays = initial_parameters(scaled().program("training"), 0)
    assert arrays["blocks.0.scale"].tolist() == [0.5] * 4
    assert arrays["again.scale"].tolist() == [-2.0] * 4
    assert arrays["again.shift"].tolist() == [0.0] * 4
    assert not np.array_equal(arrays["blocks.0.shift"], arrays["blocks.1.shift"])


def run(spec: Spec, phase: Phase, given: dict[str, Any], sizes: dict[str, int]) -> Any:
    program = spec.program(phase)
    ports = (*program.parameters, *program.inputs)
    env = {port.value: given[port.name] for port in ports}
    nodes = [node for node in program.nodes if node.op != "call" or "loss" not in str(node)]
    wanted = {port.name: port.value for port in program.outputs}["y"]
    upto = next(n for n, node in enumerate(nodes) if wanted in node.outputs)
    return oracle.run(tuple(nodes[: upto + 1]), env, {**program.sizes, **sizes})[wanted]


@pytest.mark.parametrize("phase", ["training", "inference"])
def test_the_layer_computes_what_its_equations_say(phase: Phase) -> None:
    spec = scaled()
    program = spec.program(phase)
    rng = np.random.default_rng(1)
    given = {p.name: rng.normal(size=program.shape(p)) for p in program.parameters}
    x = given["x"] = rng.normal(size=(2, 3, 3))
    sizes = {"batch": 2, "time": 3}
    for port in noise_ports(program):
        given[port.name] = rng.integers(0, 2, size=program.shape(port, sizes)).astype(float)

    def block(name: str, call: str, h: Any) -> Any:
        p = {n: given[f"{name}.{n}"] for n in (*OWN["scaled"], "up.W", "up.b", "down.W", "down.b")}
        kept = given.get(f"{call}.kept", 0.75)
        inner = np.tanh(h @ p["up.W"] + p["up.b"]) @ p["down.W"] + p["down.b"]
        return h + p["scale"] * inner * (kept / 0.75) + p["shift"]

    h = x @ given["stem.embed.W"] + given["stem.embed.b"]
    h = np.concatenate([np.broadcast_to(given["stem.token"], (2, 1, 4)), h], axis=1)
    for name, call in (("blocks.0",) * 2, ("blocks.1",) * 2, ("again",) * 2, ("again", "again.2")):
        h = block(name, call, h)
    np.testing.assert_allclose(run(spec, phase, given, sizes), h, rtol=1e-12)


def test_no_backend_is_asked_for_the_whole_layer() -> None:
    program = scaled().program("training")
    asked = [ClaimableCall.of(program, node) for node in program.calls]
    own = [layer for layer in asked if layer.node.attributes["definition"] in OWN]
    assert {layer.definition for layer in own} == {"parameters of scaled", "parameters of stem"}
    shown = {layer.node.attributes["instance"]: dict(layer.shapes) for layer in own}
    assert shown["blocks.1"] == {"scale": (4,), "shift": (4,)}
    library = Library(overrides={("layer", "scaled"): SCALED})
    assert checksum(library, "layer", "scaled") not in {layer.checksum for layer in own}


def test_what_they_are_used_for_is_what_the_layer_means() -> None:
    texts = (SCALED, SCALED.replace("scale * down", "shift * down").replace("+ shift", "+ scale"))
    found = {checksum(Library(overrides={("layer", "l"): t.replace("layer: scaled", "layer: l")}),
                      "layer", "l") for t in texts}  # fmt: skip
    assert len(found) == 2


@pytest.mark.parametrize(
    ("model", "layers", "told"),
    [
        (
            MODEL,
            {"scaled": SCALED.replace(" + shift", "")},
            "<layers/scaled.yaml>:8:3 ... 'shift'",
        ),
        (
            MODEL,
            {"scaled": SCALED.replace(" * (kept / keep)", " * keep")},
            "'kept'",
        ),
        (
            MODEL,
            {"scaled": SCALED.replace("  shift: {shape: [features]", "  up: {shape: [features]")},
            "'up'",
        ),
        (
            MODEL,
            {"stem": STEM.replace("token: {shape: [units]", "token: {shape: [time, units]")},
            "cannot",
        ),
        (
            MODEL,
            {"stem": STEM.replace("token + 0 *", "embed + 0 *")},
            "'embed' ... embed(x)",
        ),
        (
            MODEL.replace("{shift: {normal", "{W: {normal"),
            {},
            "'W' ... 'init' ... 'layers'",
        ),
        (
            MODEL.replace("again: {layer: scaled, wide: 6", "again: {layer: scaled, wide: 6, "
                          "shares: stem"),
            {},
            "",
        ),
        (
            MODEL,
            {"stem": STEM.replace("parameters:", "statistics:")},
            "'statistics' ... 'training' ... 'inference'",
        ),
        (
            MODEL,
            {"stem": STEM.replace("parameters:", "statistics:")
             .replace("equations:", "inference: y = embed(x)\ntraining:")},
            "'layers' need ... 'equations' ... 'training' ... 'inference'",
        ),
        (
            MODEL,
            {"stem": STEM.replace("equations: |", "scan:\n  over: {x_t: x}\n  step: |")
             .replace("e = embed(x)", "  e = embed(x_t)").replace("  y = c", "    y = c")
             .replace("output: y", "  output: y")},
            "'layers' need ... 'equations' ... 'scan'",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(
    model: str, layers: dict[str, str], told: str, wording: Wording
) -> None:
    with pytest.raises(SpecError) as caught:
        scaled(model, **layers)
    wording.line(caught.value, told)
