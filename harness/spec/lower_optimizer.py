"""An optimizer's update as a program: elementwise, so one rule serves parameters of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import SpecError
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.flops import ELEMENTWISE
from harness.program.ir import Port, Type, UpdateRule
from harness.program.primitives import EVERY, TABLE, TypeMismatch
from harness.spec import schema
from harness.spec.attributes import GivenAttributes, PlaceOf, read_attributes
from harness.spec.evaluate import Evaluator
from harness.spec.expressions import parse_equations
from harness.spec.library import Definition, Library, content
from harness.spec.meaning import meaning
from harness.spec.scope import BoundValue, Scope, check_assigned, check_read, check_used

# Every parameter in turn, as one row of entries.
ENTRIES = Type((Dim.of("entries"),))
# All that an update may be made of: primitives whose every entry is made of one of each operand.
ALLOWED = frozenset({*ELEMENTWISE.intersection(TABLE), "constant", "stop_gradient"})


class EntrywiseBuilder(Builder):
    """Refuses whatever makes one entry of several, or moves it.

    In truth a parameter has two axes or none, and a framework keeps several of them in one tensor,
    transposed or joined: there, a sum over "all entries" is one over those of other parameters.
    """

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append a primitive.

        Raises:
            TypeMismatch: it is not elementwise, or the operands do not fit.
        """
        if op not in ALLOWED:
            what = f"{op} ({EVERY[op]})" if op in EVERY else op
            raise TypeMismatch(
                f"{what} is not elementwise, and an optimizer's update must be: backends run it "
                "on tensors of any shape, into which they have packed several parameters "
                "(allowed: + - * / ** < <= > >= ==, exp, log, tanh, sqrt, where, stop_gradient, "
                "and functions made of them)"
            )
        return super().emit(op, *inputs, **attributes)


def lower_update(
    library: Library, name: str, given: Mapping[str, Any], place_of: PlaceOf | None
) -> UpdateRule:
    """The rule of optimizer ``name`` with some attributes given.

    Raises:
        SpecError: there is no such optimizer, it has no learning_rate, or is wrong in another way.
    """
    at = place_of("optimizer", False) if place_of else None
    definition = library.find("optimizer", name, at)
    spec, document = content(definition, schema.Optimizer), definition.document
    if "learning_rate" not in spec.attributes:
        raise SpecError("an optimizer has a learning_rate", document.place_of(("attributes",)))
    owner = GivenAttributes(
        f"optimizer {name!r}", given, at or document.place_of(()), document, place_of
    )
    attributes = read_attributes(library, spec.attributes, owner, {})
    evaluator = Evaluator(library)
    evaluator.builder = builder = EntrywiseBuilder()
    types = {"p": ENTRIES, "g": ENTRIES, "t": Type(()), "learning_rate": Type(())}
    values = {n: builder.value(type_, n) for n, type_ in types.items()}
    slots = {n: builder.value(ENTRIES, n) for n in spec.slots}
    scope = Scope(dict(attributes), frozenset({"p", *spec.slots}))
    scope.names.update({n: BoundValue(v) for n, v in {**values, **slots}.items()})
    equations = parse_equations(spec.update, document.locator(("update",)))
    evaluator.run(equations, scope, "")
    check_read(equations, scope, ["p", *spec.slots])
    _check_total(evaluator, scope, definition, spec)
    return UpdateRule(
        name=name,
        attributes={n: a for n, a in attributes.items() if isinstance(a, float)},
        types=builder.types,
        nodes=tuple(builder.nodes),
        parameter=values["p"],
        gradient=values["g"],
        step=values["t"],
        learning_rate=values["learning_rate"],
        slots=tuple(Port(n, v) for n, v in slots.items()),
        new_parameter=scope.value("p"),
        new_slots=tuple(Port(n, scope.value(n)) for n in spec.slots),
        meaning=meaning(library, "optimizer", name, attributes),
    )


def _check_total(
    evaluator: Evaluator, scope: Scope, definition: Definition, spec: schema.Optimizer
) -> None:
    """All that is declared is used, and what is carried on gets a next value of its shape."""
    document = definition.document
    update = document.place_of(("update",))
    check_used(scope, spec.attributes, document, "attributes", "attribute")
    check_used(scope, spec.slots, document, "slots", "slot")
    check_assigned(scope, spec.slots, document, "slots", "slot")
    if "p" not in scope.assigned or "g" not in scope.used:
        raise SpecError("an update assigns p, and makes use of g", update)
    for name in ("p", *spec.slots):
        found = evaluator.type_of(scope.value(name))
        if found != ENTRIES:
            raise SpecError(f"{name!r} is {ENTRIES}, and becomes {found}", scope.assigned[name])
