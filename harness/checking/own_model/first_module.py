"""The first module of a user's model that differs from the spec, as a hint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.checking.first_difference import join_names
from harness.checking.own_model.checks import ModelContext
from harness.checking.own_model.guesses import Hint, guesses_of_module
from harness.checking.own_model.modules import Event, ModuleComparison
from harness.checking.own_model.spec_values import SpecValues
from harness.errors import several
from harness.program.signature import call_key
from harness.runtime.answers import Arguments, RecordedModules
from harness.worker.remote import WorkerFault

# Models with more numbers than this are not compared by module, because all values must fit into
# memory several times.
ENTRIES = 20_000_000


def find_first_module(
    context: ModelContext, material: Arguments, dtype: str, explain: bool
) -> tuple[Hint, Hint]:
    """Return a hint that names the first module whose output is wrong although its input is right,
    or the modules between which the first difference arises. Return a second hint with a change of
    the module's layer that would explain its output. A hint is empty if there is nothing to name,
    e.g. if the framework records no calls of modules.

    Args:
        context: The user's model. A worker has loaded it.
        material: The weights and the inputs of the pass.
        dtype: The dtype of the tolerances.
        explain: Search for a change of the module's layer.
    """
    nothing = Hint("")
    if context.case.entries > ENTRIES:
        return nothing, nothing
    recorded = _record(context, material)
    if not recorded["calls"]:
        return nothing, nothing
    values = SpecValues(context, context.material(material), dtype)
    comparison = ModuleComparison(values, recorded)
    if not comparison.compared:
        return nothing, nothing
    return describe(comparison), _explain(comparison) if explain else nothing


def _explain(comparison: ModuleComparison) -> Hint:
    """Return the hint of the first change of a layer that gives the wrong output of its module from
    the right inputs. Return an empty hint if there is no such change."""
    event, values = comparison.first_wrong, comparison.values
    if event is None or event.is_input or event.unit is None or not math.isfinite(event.error):
        return Hint("")
    program, unit = values.program, event.unit
    numbers = {port.name: port.value for port in program.parameters}
    weights = {name: values.given[value] for name, value in numbers.items()}
    inputs = {v: values.arrays[v] for v in unit.reads.inputs if v in values.arrays}
    array = comparison.arrays[event.array]
    for hint, changed_program, parameters in guesses_of_module(program, weights, unit.layers):
        changed = {numbers[name]: array for name, array in parameters.items()}
        results = values.recompute([event.value], inputs | changed, changed_program)
        if values.is_explained(array, event.value, results[event.value]):
            return hint
    return Hint("")


def _record(context: ModelContext, material: Arguments) -> RecordedModules:
    material = context.material(material)
    context.remote.load(material)
    try:
        recorded: RecordedModules = context.remote.call(
            "modules", inputs=material.inputs, state=material.state
        )
    except WorkerFault:  # e.g. a module that rejects hooks
        return {"arrays": {}, "calls": [], "weights": {}, "named": {}}
    return recorded


def find_random_module(context: ModelContext) -> str:
    """Return a text that names the first module whose output changes from pass to pass, or the
    first module whose input changes; an empty text if there is no such module."""
    first, second = (_record(context, context.case.material) for _ in range(2))
    changed: list[tuple[int, str]] = []
    for one, other in zip(first["calls"], second["calls"], strict=False):
        for before, after, time, verb in (
            (one["inputs"], other["inputs"], one["start"], "gets"),
            (one["outputs"], other["outputs"], one["end"], "returns"),
        ):
            pairs = zip(before, after, strict=False)
            if any(not np.array_equal(first["arrays"][a], second["arrays"][b]) for a, b in pairs):
                changed.append((time, f"{one['module'] or 'the model'} {verb}"))
    return f"the first module: {min(changed)[1]} different numbers" if changed else ""


def describe(comparison: ModuleComparison) -> Hint:
    """Describe the first wrong event of a comparison, and the modules that the model never
    calls."""
    count = f"({several(comparison.compared, 'module')} compared)"
    first = comparison.first_wrong
    uncalled = _describe_uncalled(comparison)
    if first is None:
        last = comparison.last_right()
        right = (
            f"Every compared module is right, so the fault is after {last.module}" if last else ""
        )
        return Hint("; ".join(filter(None, (right, uncalled))) + f" {count}")
    assert first.unit is not None
    text = (_describe_input if first.is_input else _describe_output)(comparison, first)
    return Hint("; ".join(filter(None, (text, uncalled))) + f" {count}", first.unit.layers)


def _describe_output(comparison: ModuleComparison, event: Event) -> str:
    """Describe a module whose output is wrong."""
    unit = event.unit
    assert unit is not None
    text = f"First wrong module: {unit}: its "
    text += "input is right, its output" if comparison.is_right(unit) else "output"
    text += f" {_describe_error(comparison, event)}"
    inside = (
        e.module.partition(" (")[0]
        for e in comparison.events
        if unit.first["start"] < e.time < event.time and e.status == "right"
    )
    names = [name for name in dict.fromkeys(inside) if name not in ("", unit.name)]
    return f"{text}; right inside it: {join_names(names, most=6)}" if names else text


def _describe_input(comparison: ModuleComparison, event: Event) -> str:
    """Describe the modules between which the first difference arises."""
    last = comparison.last_right(event)
    text = "First difference: "
    text += (
        f"between {last.module} (right) and {event.module}" if last else f"before {event.module}"
    )
    names = [
        e.module
        for e in comparison.events
        if e.status == "unknown" and e.module and (last.time if last else 0) < e.time < event.time
    ]
    text += f", through {join_names(list(dict.fromkeys(names)))}" if names else ""
    text += f": its input {_describe_error(comparison, event)}"
    maker = next((n for n in comparison.values.nodes if event.value in n.outputs), None)
    assert event.unit is not None
    own = _name_value(comparison, event.value, event.unit.layers)
    if event.found is not None:
        text += f", because it is {_name_value(comparison, event.found)} instead of {own}"
    elif maker is not None and maker.place and "output" not in own:
        text += f"; the spec computes it in {maker.place}"
    return text


def _describe_error(comparison: ModuleComparison, event: Event) -> str:
    array, expected = comparison.arrays[event.array], comparison.values.arrays[event.value]
    if comparison.values.error(array, event.value) is None:
        return f"has the shape {list(array.shape)}, expected {list(expected.shape)} in any order"
    step = comparison.values.first_wrong_step(array, event.value)
    text = f"differs by {event.error:.1e}" if math.isfinite(event.error) else "differs"
    return text if step is None else f"{text} from time step {step} on"


def _describe_uncalled(comparison: ModuleComparison) -> str:
    match = comparison.match
    names = [
        f"{modules} (spec: {layer})"
        for layer, modules in match.uncalled.items()
        if not comparison.is_computed(match.layers[layer][0])
    ]
    return f"the model never calls {join_names(names)}" if names else ""


def _name_value(comparison: ModuleComparison, value: int, reader: Sequence[str] = ()) -> str:
    """Return a text for a value of the spec, e.g. "the output of norm". The text does not mention
    the layers ``reader``."""
    program = comparison.values.program
    for node in program.calls:
        if value in node.outputs:
            return f"the output of {call_key(node)}"
    for port in program.inputs:
        if port.value == value:
            return f"the input {port.name}"
    for node in program.calls:
        if value in node.inputs and call_key(node) not in reader:
            return f"the input of {call_key(node)}"
    maker = next(node for node in comparison.values.nodes if value in node.outputs)
    return f"the result of {maker.op} in {maker.place}" if maker.place else f"a {maker.op}"
