"""Write traced loops as layers with a ``scan``, each with a definition of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.language.axes import axes_text
from harness.language.builtins import BUILTINS
from harness.porting.cells import recognise_cell, rule_end
from harness.porting.equations import Equations
from harness.porting.graph import TracedCall
from harness.porting.rewriting import Calls
from harness.porting.structure import common_owner
from harness.porting.templates import snake_case, write_number

# The name of a new state, until its name is known to be free.
NEXT = "_next"


def expand_loops(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Replace a ``scan`` call by a call of a layer; its attribute ``definition`` has the layer."""
    if call.op != "scan":
        return [call]
    a = call.attributes
    body = [_call_of(node) for node in a["body"]]
    weights = [c for c in body if c.op == "weight"]
    arrays = [str(c.attributes["name"]) for c in weights]
    owner = common_owner(arrays)
    shapes = {n: c.shape for n, c in zip(arrays, weights, strict=True)}
    cell = recognise_cell(a, {c.name: c for c in body})
    if cell is not None:
        layer, settings, parts = cell
        shipped = {
            "layer": layer,
            "settings": {"units": call.shape[-1], **settings},
            "weights": {ours: [p[0], rule_end(p, shapes[p[0]])] for ours, p in parts.items()},
            "channels": -1,
            "owner": owner,
        }
        return [replace(call, op="layer", attributes=shipped, values=None)]
    local = {n: re.sub(r"\W", "_", n.removeprefix(f"{owner}.")) for n in arrays}
    sequences = [done[i] for i in call.inputs]
    lines = _definition(call, body, local, sequences)
    attributes = {
        "layer": "",
        "definition": lines,
        "name": a["name"],
        "settings": {},
        "weights": {local[n]: [n, ""] for n in arrays},
        "channels": -1,
        "owner": owner,
    }
    return [replace(call, op="layer", attributes=attributes, values=None)]


def _call_of(node: Mapping[str, Any]) -> TracedCall:
    return TracedCall(
        node["name"],
        node["op"],
        tuple(node["inputs"]),
        node["attributes"],
        tuple(node["shape"]),
        node["kind"],
    )


def _definition(
    call: TracedCall,
    body: Sequence[TracedCall],
    local: Mapping[str, str],
    sequences: Sequence[TracedCall],
) -> list[str]:
    """Return the lines of a layer's definition after its name."""
    a = call.attributes
    shapes = {c.attributes["name"]: c.shape for c in body if c.op in ("input", "weight")}
    steps, output = write_step(call, body, local)
    names = ["x"] if len(sequences) == 1 else a["over"]
    over = ", ".join(f"{name}_t: {name}" for name in names)
    lines = [
        f"summary: A loop over time, from {call.place or 'the model'}.",
        "source: The traced model.",
        "inputs:",
        *(f"  {n}: {_input(s)}" for n, s in zip(names, sequences, strict=True)),
        "parameters:",
        *(
            f"  {ours}: {{shape: {axes_text(shapes[theirs])}, init: {{normal: {{std: 0.02}}}}}}"
            for theirs, ours in local.items()
        ),
        "state:",
    ]
    for name, _, start in a["states"]:
        init = f", init: {write_number(start)}" if start else ""
        lines.append(f"  {name}: {{shape: {axes_text(shapes[name])}{init}}}")
    lines += ["scan:", f"  over: {{{over}}}"]
    lines += ["  reverse: true"] if a["reverse"] else []
    return [*lines, "  step: |", *(f"    {line}" for line in steps), f"  output: {output}"]


def write_step(
    call: TracedCall, body: Sequence[TracedCall], local: Mapping[str, str]
) -> tuple[list[str], str]:
    """Return the equations of one step, and the name of the output."""
    a = call.attributes
    single = len(a["over"]) == 1
    names = {}
    for c in body:
        if c.op == "input":
            own = str(c.attributes["name"])
            names[c.name] = ("x_t" if single else f"{own}_t") if own in a["over"] else own
        elif c.op == "weight":
            names[c.name] = local[c.attributes["name"]]
    new = {result: name for name, result, _ in a["states"]}
    equations = Equations(lambda value, hint: _number(value), names, lambda c, kind: "")
    equations.taken = {*names.values(), *BUILTINS, "y", *(n + NEXT for n in new.values())}
    uses = {c.name: sum(c.name in other.inputs for other in body) for c in body}
    output = new.get(a["output"], "y")
    for c in body:
        if c.name in new and c.name not in names:
            equations.add(c, uses[c.name] + 1, new[c.name] + NEXT)
        else:
            equations.add(c, uses[c.name], "y" if c.name == a["output"] else "")
    lines = equations.lines
    for name, result, _ in a["states"]:
        if result in names:  # a state that becomes an input or another state
            lines.append(f"{name} = {names[result]}")
        else:
            lines = _take_name(lines, name)
    return lines, output


def _take_name(lines: list[str], name: str) -> list[str]:
    """Give a new state its name, as soon as no later equation reads the old state."""
    position = next(n for n, line in enumerate(lines) if line.startswith(f"{name}{NEXT} ="))
    if any(re.search(rf"\b{name}\b", line) for line in lines[position + 1 :]):
        return [*lines, f"{name} = {name}{NEXT}"]
    return [re.sub(rf"\b{name}{NEXT}\b", name, line) for line in lines]


def _number(value: Any) -> str:
    return value if isinstance(value, str) else write_number(value)


def _input(sequence: TracedCall) -> str:
    """Return the declaration of a loop's input."""
    shape = axes_text(sequence.shape)
    return f"{{shape: {shape}, boolean: true}}" if sequence.kind == "boolean" else shape


def name_definitions(
    calls: Sequence[TracedCall], taken: Iterable[str]
) -> tuple[tuple[TracedCall, ...], dict[str, list[str]]]:
    """Give the definitions of loops names; equal definitions share one.

    Returns:
        The calls with the names of their layers, and the lines of each definition by name.
    """
    by_name: dict[str, list[str]] = {}
    reserved = set(taken)
    named: list[TracedCall] = []
    for call in calls:
        lines = call.attributes.get("definition")
        if lines is None:
            named.append(call)
            continue
        name = next((n for n, own in by_name.items() if own[1:] == lines[1:]), "")
        number = 1
        while not name or (name in reserved and name not in by_name):
            base = snake_case(call.attributes["name"]) or "loop"
            name = base if number == 1 else f"{base}_{number}"
            number += 1
            name = "" if name in by_name else name
        by_name.setdefault(name, lines)
        named.append(replace(call, attributes={**call.attributes, "layer": name}))
    return tuple(named), by_name
