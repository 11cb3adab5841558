"""An optimizer's update as a program: one rule, which serves parameters of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import Place, SpecError, did_you_mean, shorten
from harness.files.complaints import KeyPath
from harness.program.ir import Port, Total, UpdateRule
from harness.spec import schema
from harness.spec.added_slots import AddedSlots
from harness.spec.attributes import Attribute, GivenAttributes, PlaceOf, read_attributes
from harness.spec.document import Document
from harness.spec.entrywise import ENTRIES, NUMBER, EntrywiseBuilder, UpdateEvaluator
from harness.spec.expressions import Expr, parse_equations, parse_expression
from harness.spec.library import Definition, Library, content
from harness.spec.meaning import meaning
from harness.spec.scope import BoundValue, Scope, check_assigned, check_read, check_used

# How a slot may start, beside numbers and attributes. Zeros are what it starts as unless told.
STARTS: Mapping[str, Mapping[str, Any] | None] = {
    "zeros": None,
    "ones": {"constant": {"value": 1.0}},
    "p": {"parameter": {}},
}


@dataclass(frozen=True)
class Around:
    """What a model puts around an optimizer's equations: texts, and where they stand.

    ``schedule`` and each of ``given`` (attributes as equations of the step) come with the path to
    them in the model's document. ``accumulate`` and ``average`` are numbers.
    """

    document: Document
    gradient: str | None = None
    total: Mapping[str, str] = field(default_factory=dict)
    schedule: tuple[str, KeyPath] | None = None
    given: Mapping[str, tuple[str, KeyPath]] = field(default_factory=dict)
    accumulate: int | None = None
    average: float | None = None

    def expression(self, text: str, path: KeyPath) -> Expr:
        """An expression of the model's file."""
        return parse_expression(text, self.document.locator(path))


def lower_use(library: Library, use: schema.OptimizerUse, document: Document) -> UpdateRule:
    """The rule of a model's ``optimizer``, with those of its groups of parameters.

    Raises:
        SpecError: as for :func:`lower_update`.
    """
    given, root = dict(use.model_extra or {}), ("optimizer",)
    paths: dict[str, KeyPath] = {name: (*root, name) for name in given}
    rule = _one(library, use, document, given, paths, use.schedule, (*root, "schedule"))
    groups: dict[str, UpdateRule] = {}
    for number, group in enumerate(use.groups):
        at: KeyPath = (*root, "groups", number)
        own = dict(group.model_extra or {})
        schedule = use.schedule if group.schedule is None else group.schedule
        path = (*(root if group.schedule is None else at), "schedule")
        of_own = {name: (*at, name) for name in own}
        made = _one(library, use, document, given | own, paths | of_own, schedule, path)
        if not own and group.schedule is None:
            told = "a group gives attributes or a schedule of its own, found none"
            raise SpecError(told, document.place_of(at))
        patterns = group.parameters
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            groups.setdefault(pattern, made)
    return replace(rule, groups=groups)


def _one(
    library: Library,
    use: schema.OptimizerUse,
    document: Document,
    given: Mapping[str, Any],
    paths: Mapping[str, KeyPath],
    schedule: str | float | None,
    path: KeyPath,
) -> UpdateRule:
    def place_of(name: str, key: bool) -> Place:
        where = paths.get(name, ("optimizer", name))
        return document.place_of_key(where) if key else document.place_of(where)

    around = Around(
        document,
        use.gradient,
        use.total,
        None if schedule is None else (str(schedule), path),
        {name: (text, paths[name]) for name, text in given.items() if isinstance(text, str)},
        use.accumulate,
        use.average,
    )
    return lower_update(library, use.optimizer, given, place_of, around)


def lower_update(
    library: Library,
    name: str,
    given: Mapping[str, Any],
    place_of: PlaceOf | None,
    around: Around | None = None,
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
    around = around or Around(document)
    plain = {n: v for n, v in given.items() if n not in around.given or n not in spec.attributes}
    owner = GivenAttributes(
        f"optimizer {name!r}", plain, at or document.place_of(()), document, place_of
    )
    attributes = read_attributes(library, spec.attributes, owner, {})
    return _Lowering(library, definition, spec, attributes, around).rule(name)


class _Lowering:
    """One optimizer, and what a model puts around it, on their way to a rule."""

    def __init__(
        self,
        library: Library,
        definition: Definition,
        spec: schema.Optimizer,
        attributes: Mapping[str, Attribute],
        around: Around,
    ) -> None:
        self.definition, self.spec, self.around = definition, spec, around
        self.attributes = dict(attributes)
        self.evaluator = UpdateEvaluator(library)
        self.evaluator.builder = self.builder = EntrywiseBuilder()
        types = {"p": ENTRIES, "g": ENTRIES, "t": NUMBER, "learning_rate": NUMBER}
        self.values = {n: self.builder.value(type_, n) for n, type_ in types.items()}
        self.slots = {n: self.builder.value(ENTRIES, n) for n in spec.slots}
        self.totals: list[Total] = []
        self.added = AddedSlots(self.builder, self.values, around.accumulate, around.average)

    def rule(self, name: str) -> UpdateRule:
        """The rule."""
        document, spec = self.definition.document, self.spec
        outer, rate = self._outer()
        scope = Scope(dict(self.attributes), frozenset({"p", *spec.slots}))
        values = {
            **self.values,
            **self.slots,
            "t": self.added.count,
            "g": outer["g"],
            "learning_rate": rate,
        }
        scope.names.update({n: BoundValue(v) for n, v in values.items()})
        scope.names.update({n: BoundValue(v) for n, v in self._by_step().items()})
        for total, text in spec.total.items():
            self._total(total, parse_expression(text, document.locator(("total", total))), scope)
        equations = parse_equations(spec.update, document.locator(("update",)))
        self.evaluator.run(equations, scope, "")
        check_read(equations, scope, ["p", *spec.slots])
        self._check_all(scope)
        before = {"p": self.values["p"], **self.slots}
        after = self.added.finished(before, {n: scope.value(n) for n in before})
        numbers = {n: a for n, a in self.attributes.items() if isinstance(a, float)}
        starts = {**{n: self._start(n) for n in spec.slots}, **self.added.starts}
        slots = {**self.slots, **self.added.slots}
        library = self.evaluator.library
        return UpdateRule(
            name=name,
            attributes={n: a for n, a in numbers.items() if n not in self.around.given},
            types=self.builder.types,
            nodes=self.builder.taken(),
            parameter=self.values["p"],
            gradient=self.values["g"],
            step=self.values["t"],
            learning_rate=self.values["learning_rate"],
            slots=tuple(Port(n, v, starts[n]) for n, v in slots.items()),
            new_parameter=after["p"],
            new_slots=tuple(Port(n, after[n]) for n in slots),
            meaning=meaning(library, "optimizer", name, self.attributes),
            totals=tuple(self.totals),
            rate=None if rate == self.values["learning_rate"] else rate,
            fed=None if outer["g"] == self.values["g"] else outer["g"],
            varying=tuple(n for n in self.around.given if n in spec.attributes),
            added=tuple(self.added.slots),
        )

    def _outer(self) -> tuple[dict[str, int], int]:
        """What the model makes of the gradient and of the learning rate."""
        around, rate = self.around, self.values["learning_rate"]
        names = {"p": self.values["p"], "g": self.added.gradient, "t": self.added.count}
        scope = Scope({n: BoundValue(v) for n, v in names.items()})
        for total, text in around.total.items():
            self._total(total, around.expression(text, ("optimizer", "total", total)), scope)
        if around.gradient is not None:
            found = around.expression(around.gradient, ("optimizer", "gradient"))
            names["g"] = self.evaluator.typed(found, scope, "'gradient'", [ENTRIES])
            if "g" not in scope.used:
                raise SpecError("'gradient' makes use of g", found.place)
        check_used(scope, around.total, around.document, ("optimizer", "total"), "total")
        if around.schedule is not None:
            factor = self._of_step("'schedule'", *around.schedule)
            rate = self.builder.emit("multiply", rate, factor)
        return names, rate

    def _total(self, name: str, expression: Expr, scope: Scope) -> None:
        """Bind a name to a sum over the whole model."""
        if name in scope.names:
            raise SpecError(f"{name!r} is taken: give the total another name", expression.place)
        part = self.evaluator.typed(expression, scope, f"total {name!r}", [ENTRIES])
        whole = self.builder.emit("sum", part, axis=(0,), keepdims=False)
        value = self.builder.value(NUMBER, name)
        self.totals.append(Total(name, self.builder.taken(), whole, value))
        scope.names[name] = BoundValue(value)

    def _by_step(self) -> dict[str, int]:
        """The attributes that the model gives as equations of the step."""
        found = {}
        for name, (text, path) in self.around.given.items():
            if name == "learning_rate":
                raise SpecError(
                    f"attribute {name!r} is a number, found {shorten(repr(text))}: phases of a "
                    "training set it anew; give what it is multiplied by at step t as 'schedule'",
                    self.around.document.place_of(path),
                )
            found[name] = self._of_step(repr(name), text, path)
        return found

    def _of_step(self, what: str, text: str, path: KeyPath) -> int:
        scope = Scope({"t": BoundValue(self.added.count)})
        return self.evaluator.typed(self.around.expression(text, path), scope, what, [NUMBER])

    def _start(self, slot: str) -> Mapping[str, Any] | None:
        """How a slot starts.

        Raises:
            SpecError: it is none of the ways in which one can.
        """
        given = self.spec.slots[slot]
        if isinstance(given, str) and given in STARTS:
            return STARTS[given]
        number = self.attributes.get(given) if isinstance(given, str) else float(given)
        if not isinstance(number, float):
            known = [*STARTS, *self.attributes]
            hint = did_you_mean(str(given), known)
            raise SpecError(
                f"a slot starts as {', '.join(STARTS)}, a number or the value of an attribute, "
                f"found {shorten(repr(given))}{hint}",
                self.definition.document.place_of(("slots", slot)),
            )
        return {"constant": {"value": number}} if number else None

    def _check_all(self, scope: Scope) -> None:
        """All that is declared is used, and what is carried on gets a next value of its shape."""
        document, spec = self.definition.document, self.spec
        update = document.place_of(("update",))
        starts = {start for start in spec.slots.values() if isinstance(start, str)}
        read = [name for name in spec.attributes if name not in starts]
        check_used(scope, read, document, "attributes", "attribute")
        check_used(scope, spec.slots, document, "slots", "slot")
        check_used(scope, spec.total, document, "total", "total")
        check_assigned(scope, spec.slots, document, "slots", "slot")
        if "p" not in scope.assigned or "g" not in scope.used:
            raise SpecError("an update assigns p, and makes use of g", update)
        for name in ("p", *spec.slots):
            found = self.evaluator.type_of(scope.value(name))
            if found != ENTRIES:
                raise SpecError(f"{name!r} is {ENTRIES}, and becomes {found}", scope.assigned[name])
