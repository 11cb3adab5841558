"""One rule of an optimizer: its equations, for parameters of any shape or for matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import SpecError, did_you_mean, shorten
from harness.files.complaints import KeyPath
from harness.language.added_slots import AddedSlots
from harness.language.attributes import Attribute
from harness.language.declared_axes import RestAxes, read_dims
from harness.language.definitions import MATRIX_NAMES
from harness.language.document import Document
from harness.language.entrywise import (
    NUMBER,
    EntrywiseBuilder,
    EntrywiseEvaluator,
    MatrixBuilder,
    UpdateBuilder,
    UpdateEvaluator,
)
from harness.language.expressions import Expr, parse_equations, parse_expression
from harness.language.library import Definition, Library
from harness.language.meaning import meaning
from harness.language.optimizer_schema import Matrices, Optimizer, ShapedSlot
from harness.language.scope import BoundValue, Scope, check_assigned, check_read, check_used
from harness.program.dims import Dim
from harness.program.ir import Port, Type
from harness.program.updates import ENTRIES, MATRIX, Total, UpdateRule

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


class RuleLowering:
    """One optimizer, and what a model puts around it, on their way to a rule.

    With ``matrices`` it is the rule of those. ``used`` are then the names that its equations read.
    """

    def __init__(
        self,
        library: Library,
        definition: Definition,
        spec: Optimizer,
        attributes: Mapping[str, Attribute],
        around: Around,
        matrices: Matrices | None = None,
    ) -> None:
        self.definition, self.spec, self.around = definition, spec, around
        self.attributes = dict(attributes)
        self.part: Optimizer | Matrices = spec if matrices is None else matrices
        self.path: KeyPath = () if matrices is None else ("matrices",)
        self.sizes = {} if matrices is None else {n: Dim.of(n) for n in MATRIX_NAMES}
        self.type = ENTRIES if matrices is None else MATRIX
        self.builder: UpdateBuilder = EntrywiseBuilder() if matrices is None else MatrixBuilder()
        evaluator = EntrywiseEvaluator if matrices is None else UpdateEvaluator
        self.evaluator = evaluator(library, self.builder)
        types = {"p": self.type, "g": self.type, "t": NUMBER, "learning_rate": NUMBER}
        self.values = {n: self.builder.value(type_, n) for n, type_ in types.items()}
        self.slots = {n: self.builder.value(self._type_of_slot(n), n) for n in self.part.slots}
        self.totals: list[Total] = []
        gathered = around.accumulate, around.average
        self.added = AddedSlots(self.builder, self.values, self.type, *gathered)
        self.used: set[str] = set()

    def rule(self, name: str) -> UpdateRule:
        """The rule."""
        document, spec, part = self.definition.document, self.spec, self.part
        outer, rate = self._outer()
        scope = Scope({**self.attributes, **self.sizes}, frozenset({"p", *part.slots}))
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
        equations = parse_equations(part.update, document.locator((*self.path, "update")))
        self.evaluator.run(equations, scope, "")
        check_read(equations, scope, ["p", *part.slots])
        self._check_all(scope)
        before = {"p": self.values["p"], **self.slots}
        after = self.added.finished(before, {n: scope.value(n) for n in before})
        numbers = {n: a for n, a in self.attributes.items() if isinstance(a, float)}
        starts = {**{n: self._start(n) for n in part.slots}, **self.added.starts}
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
            names["g"] = self.evaluator.typed(found, scope, "'gradient'", [self.type])
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
        part = self.evaluator.typed(expression, scope, f"total {name!r}", [self.type])
        axes = tuple(range(len(self.type.shape)))
        whole = self.builder.emit("sum", part, axis=axes, keepdims=False)
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

    def _type_of_slot(self, slot: str) -> Type:
        """That of the parameter, or of a shape of its own.

        Raises:
            SpecError: the shape has something else in it than rows, columns and numbers.
        """
        given = self.part.slots[slot]
        if not isinstance(given, ShapedSlot):
            return self.type
        path = (*self.path, "slots", slot, "shape")
        at = self.definition.document.place_of
        return Type(read_dims(given.shape, self.sizes, RestAxes(), lambda n: at((*path, n))))

    def _start(self, slot: str) -> Mapping[str, Any] | None:
        """How a slot starts.

        Raises:
            SpecError: it is none of the ways in which one can.
        """
        given = self.part.slots[slot]
        if isinstance(given, ShapedSlot):
            return None
        if isinstance(given, str) and given in STARTS:
            return STARTS[given]
        number = self.attributes.get(given) if isinstance(given, str) else float(given)
        if not isinstance(number, float):
            known = [*STARTS, *self.attributes]
            hint = did_you_mean(str(given), known)
            raise SpecError(
                f"a slot starts as {', '.join(STARTS)}, a number or the value of an attribute, "
                f"found {shorten(repr(given))}{hint}",
                self.definition.document.place_of((*self.path, "slots", slot)),
            )
        return {"constant": {"value": number}} if number else None

    def _check_all(self, scope: Scope) -> None:
        """What is carried on gets a next value of its shape, and all slots are used; of attributes
        and totals it is said in ``used``."""
        document, slots = self.definition.document, (*self.path, "slots")
        starts = {start for start in self.part.slots.values() if isinstance(start, str)}
        self.used = scope.used | starts
        check_used(scope, ["learning_rate"], document, "attributes", "attribute")
        check_used(scope, self.part.slots, document, slots, "slot")
        check_assigned(scope, self.part.slots, document, slots, "slot")
        update = document.place_of((*self.path, "update"))
        if "p" not in scope.assigned or "g" not in scope.used:
            raise SpecError("an update assigns p, and makes use of g", update)
        for name, value in {"p": self.values["p"], **self.slots}.items():
            given, found = self.builder.types[value], self.evaluator.type_of(scope.value(name))
            if found != given:
                raise SpecError(f"{name!r} is {given}, and becomes {found}", scope.assigned[name])
