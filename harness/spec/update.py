"""An optimizer's update as a program: elementwise, so one rule serves parameters of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.dims import Dim
from harness.errors import Place, SpecError
from harness.program import Node, Port, Type
from harness.spec import schema
from harness.spec.evaluate import Evaluator, Scope, Tensor, check_read, check_used
from harness.spec.expressions import parse_equations
from harness.spec.layers import read_attributes
from harness.spec.library import Library, content


@dataclass(frozen=True)
class UpdateRule:
    """One step of an optimizer.

    In: ``parameter``, ``gradient``, the scalars ``step`` (from 1) and ``learning_rate``, and the
    ``slots``, which start as zeros. Out: ``new_parameter`` and ``new_slots``.
    """

    name: str
    attributes: Mapping[str, float]
    types: Mapping[int, Type]
    nodes: tuple[Node, ...]
    parameter: int
    gradient: int
    step: int
    learning_rate: int
    slots: tuple[Port, ...]
    new_parameter: int
    new_slots: tuple[Port, ...]


def lower_update(
    library: Library,
    name: str,
    given: Mapping[str, Any],
    place_of: Callable[[str, bool], Place] | None,
) -> UpdateRule:
    """The rule of optimizer ``name`` with some attributes given."""
    at = place_of("optimizer", False) if place_of else None
    definition = library.find("optimizer", name, at)
    spec = content(definition, schema.Optimizer)
    document = definition.document
    if "learning_rate" not in spec.attributes:
        raise SpecError("an optimizer has a learning_rate", document.place_of(("attributes",)))
    owner = f"optimizer {name!r}"
    root = at or document.place_of(())
    attributes = read_attributes(spec.attributes, given, definition, {}, root, owner, place_of)
    evaluator = Evaluator(library)
    builder = evaluator.builder
    shape = (Dim.of("entries"),)
    values = {n: builder.value(Type(shape), n) for n in ("p", "g")}
    values.update({n: builder.value(Type(()), n) for n in ("t", "learning_rate")})
    slots = {n: builder.value(Type(shape), n) for n in spec.slots}
    scope = Scope({n: a for n, a in attributes.items() if n != "learning_rate"})
    scope.names.update({n: Tensor(v) for n, v in {**values, **slots}.items()})
    equations = parse_equations(spec.update, document.locator(("update",)))
    evaluator.run(equations, scope, "")
    check_used(scope, spec.attributes, definition, "attributes", "attribute")
    check_used(scope, spec.slots, definition, "slots", "slot")
    check_read(equations, scope, ["p", *spec.slots])
    after = {n: scope.names[n] for n in ("p", *spec.slots)}
    for n, bound in after.items():
        before = {**values, **slots}[n]
        if not isinstance(bound, Tensor) or bound.value == before:
            raise SpecError(f"{n!r} must be assigned", document.place_of(("update",)))
        if builder.types[bound.value] != Type(shape):
            found = builder.types[bound.value]
            raise SpecError(f"{n!r} becomes {found}", document.place_of(("update",)))
    news = {n: bound.value for n, bound in after.items() if isinstance(bound, Tensor)}
    return UpdateRule(
        name=name,
        attributes={n: float(a) for n, a in attributes.items() if isinstance(a, float)},
        types=builder.types,
        nodes=tuple(builder.nodes),
        parameter=values["p"],
        gradient=values["g"],
        step=values["t"],
        learning_rate=values["learning_rate"],
        slots=tuple(Port(n, v) for n, v in slots.items()),
        new_parameter=news["p"],
        new_slots=tuple(Port(n, news[n]) for n in spec.slots),
    )
