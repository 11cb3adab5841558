"""Conversion of an optimizer, with the settings in a model's ``optimizer`` section, to an update
rule (the operations that update a parameter)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import Place, SpecError, did_you_mean, shorten
from harness.files.forms import KeyPath
from harness.language.added_slots import AddedSlots
from harness.language.attributes import Attribute, AttributeSettings, PlaceOf, read_attributes
from harness.language.axes import RestAxes, read_dims
from harness.language.checksums import meaning
from harness.language.definitions import MATRIX_NAMES
from harness.language.document import Document
from harness.language.evaluate import Evaluator
from harness.language.expressions import parse_equations, parse_expression
from harness.language.library import Definition, Library, content
from harness.language.optimizer_schema import Matrices, Optimizer, OptimizerUse, ShapedSlot
from harness.language.scope import BoundValue, Scope, check_assigned, check_read, check_used
from harness.language.tree import Call, Expr
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.infer import TypeMismatch
from harness.program.ir import Node, Port, Type
from harness.program.primitives import ELEMENTWISE, EVERY
from harness.program.updates import ENTRIES, MATRIX, Total, UpdateRule

# An optimizer's equations may contain only elementwise operations, and reductions over all axes.

NUMBER = Type(())
# Primitives that reduce all entries of a parameter to one number.
REDUCING = frozenset({"sum", "max"})
# Primitives that an update may contain.
ALLOWED = frozenset(
    {*ELEMENTWISE.intersection(EVERY), *REDUCING, "astype", "constant", "extent", "stop_gradient"}
)
REDUCTIONS = ("sum", "max", "mean", "var")
# Additional primitives that an update of matrices may contain.
MATRIX_PRIMITIVES = frozenset({"matmul", "permute_dims", "expand_dims", "squeeze"})


# Error messages for primitives that are not allowed.
_REJECTED_FOR_ENTRIES = (
    "{} is not elementwise, but an optimizer's update must be: backends run it on tensors of any "
    "shape (allowed: + - * / ** < <= > >= == !=, exp, log, tanh, sqrt, erf, sin, cos, floor, "
    "where, stop_gradient, functions of these, and sum, max, mean and var over the whole "
    "tensor; an update for matrices goes in 'matrices')"
)
_REJECTED_FOR_MATRICES = (
    "an update of matrices cannot use {} (allowed: elementwise operations, @, permute_dims, "
    "expand_dims, and sum, max, mean and var over some or all axes)"
)


class UpdateBuilder(Builder):
    """A builder of the nodes of an optimizer's update. It rejects primitives that an update must
    not contain, e.g. because they move entries.

    A parameter can have any number of axes, and a framework may store it transposed or together
    with other parameters, so an update must treat all entries alike. With ``matrices``, the
    parameter is a matrix in the layout that its layer declares.
    """

    def __init__(self, matrices: bool) -> None:
        super().__init__()
        self.allowed = ALLOWED | MATRIX_PRIMITIVES if matrices else ALLOWED
        self.rejection = _REJECTED_FOR_MATRICES if matrices else _REJECTED_FOR_ENTRIES

    def take_nodes(self) -> tuple[Node, ...]:
        """Remove and return the nodes that were appended since the last call."""
        nodes = tuple(self.nodes)
        self.nodes.clear()
        return nodes

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append a primitive.

        Raises:
            TypeMismatch: the primitive is not allowed, or the operands do not fit.
        """
        if op not in self.allowed:
            raise TypeMismatch(self.rejection.format(f"{op} ({EVERY[op]})" if op in EVERY else op))
        return super().emit(op, *inputs, **attributes)


class UpdateEvaluator(Evaluator):
    """An evaluator of an optimizer's equations. With ``matrices``, parameters are matrices.
    Otherwise they may have any shape, and reductions are over all axes."""

    def __init__(self, library: Library, builder: UpdateBuilder, matrices: bool) -> None:
        super().__init__(library)
        self.builder, self.matrices = builder, matrices

    def evaluate_typed(self, expr: Expr, scope: Scope, label: str, expected: Type) -> int:
        """Evaluate an expression, and check that its type is ``expected``. Messages call the
        expression ``label``.

        Raises:
            SpecError: the expression has a different type.
        """
        value = self.tensor(expr, scope)
        if (type_ := self.type_of(value)) != expected:
            raise SpecError(f"{label} must be {expected}, found {type_}", expr.place)
        return value

    def call(self, expr: Call, scope: Scope) -> int:
        """Evaluate a call of a function.

        Raises:
            SpecError: a reduction has the keyword ``axis``, or the call is wrong otherwise.
        """
        axis = dict(expr.keywords).get("axis")
        if axis is not None and expr.function in REDUCTIONS and not self.matrices:
            raise SpecError(
                f"{expr.function} over some axes is not elementwise, but an optimizer's update "
                "must be, because parameters can have any number of axes: leave out axis=, so that "
                f"{expr.function} is over the whole tensor, or write an update for matrices in "
                "'matrices'",
                axis.place,
            )
        return super().call(expr, scope)

    def matrix_product(self, left: int, right: int, place: Place) -> int:
        if self.matrices:
            return super().matrix_product(left, right, place)
        return self.emit("matmul", left, right, place=place)  # the builder rejects this


# Names for the initial values of a slot; a slot may also start at a number or an attribute. None
# means zeros.
STARTS: Mapping[str, Mapping[str, Any] | None] = {
    "zeros": None,
    "ones": {"constant": {"value": 1.0}},
    "p": {"parameter": {}},
}


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a model's ``optimizer`` section that add equations to the optimizer's equations.

    ``schedule`` is a pair: the text of an expression, and its key path in the model's file.
    ``given`` maps each attribute that depends on the step to such a pair.
    """

    document: Document
    gradient: str | None = None
    total: Mapping[str, str] = field(default_factory=dict)
    schedule: tuple[str, KeyPath] | None = None
    given: Mapping[str, tuple[str, KeyPath]] = field(default_factory=dict)
    accumulate: int | None = None
    average: float | None = None

    def expression(self, text: str, path: KeyPath) -> Expr:
        """Parse an expression of the model's file."""
        return parse_expression(text, self.document.locator(path))


class RuleLowering:
    """The conversion of an optimizer to an update rule. With ``matrices``, the rule is for
    two-dimensional parameters only. ``used`` has the names that the equations read."""

    def __init__(
        self,
        library: Library,
        definition: Definition,
        spec: Optimizer,
        attributes: Mapping[str, Attribute],
        around: ModelSettings,
        matrices: Matrices | None = None,
    ) -> None:
        self.definition, self.spec, self.around = definition, spec, around
        self.attributes = dict(attributes)
        self.part: Optimizer | Matrices = spec if matrices is None else matrices
        self.path: KeyPath = () if matrices is None else ("matrices",)
        self.sizes = {} if matrices is None else {n: Dim.of(n) for n in MATRIX_NAMES}
        self.type = ENTRIES if matrices is None else MATRIX
        self.builder = UpdateBuilder(matrices is not None)
        self.evaluator = UpdateEvaluator(library, self.builder, matrices is not None)
        types = {"p": self.type, "g": self.type, "t": NUMBER, "learning_rate": NUMBER}
        self.values = {n: self.builder.value(type_, n) for n, type_ in types.items()}
        self.slots = {n: self.builder.value(self._slot_type(n), n) for n in self.part.slots}
        self.totals: list[Total] = []
        gathered = around.accumulate, around.average
        self.added = AddedSlots(self.builder, self.values, self.type, *gathered)
        self.used: set[str] = set()

    def rule(self, name: str) -> UpdateRule:
        """Convert the optimizer and return its update rule."""
        document, spec, part = self.definition.document, self.spec, self.part
        outer, rate = self._lower_settings()
        scope = Scope({**self.attributes, **self.sizes}, frozenset({"p", *part.slots}))
        values = {
            **self.values,
            **self.slots,
            "t": self.added.count,
            "g": outer["g"],
            "learning_rate": rate,
        }
        scope.names.update({n: BoundValue(v) for n, v in values.items()})
        scope.names.update({n: BoundValue(v) for n, v in self._evaluate_varying().items()})
        for total, text in spec.total.items():
            self._append_total(
                total, parse_expression(text, document.locator(("total", total))), scope
            )
        equations = parse_equations(part.update, document.locator((*self.path, "update")))
        self.evaluator.run_equations(equations, scope, "")
        check_read(equations, scope, ["p", *part.slots])
        self._check_assigned(scope)
        before = {"p": self.values["p"], **self.slots}
        after = self.added.update_results(before, {n: scope.value(n) for n in before})
        numbers = {n: a for n, a in self.attributes.items() if isinstance(a, float)}
        starts = {**{n: self._initial_slot_value(n) for n in part.slots}, **self.added.starts}
        slots = {**self.slots, **self.added.slots}
        library = self.evaluator.library
        return UpdateRule(
            name=name,
            attributes={n: a for n, a in numbers.items() if n not in self.around.given},
            types=self.builder.types,
            nodes=self.builder.take_nodes(),
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

    def _lower_settings(self) -> tuple[dict[str, int], int]:
        """Return two things: a dictionary with the values of p, g and t for the optimizer's
        equations, and the learning rate after the schedule. If the model sets ``gradient``, g is
        the value of this expression."""
        around, rate = self.around, self.values["learning_rate"]
        names = {"p": self.values["p"], "g": self.added.gradient, "t": self.added.count}
        scope = Scope({n: BoundValue(v) for n, v in names.items()})
        for total, text in around.total.items():
            self._append_total(total, around.expression(text, ("optimizer", "total", total)), scope)
        if around.gradient is not None:
            expression = around.expression(around.gradient, ("optimizer", "gradient"))
            names["g"] = self.evaluator.evaluate_typed(expression, scope, "'gradient'", self.type)
            if "g" not in scope.used:
                raise SpecError("'gradient' must use g", expression.place)
        check_used(scope, around.total, around.document, ("optimizer", "total"), "total")
        if around.schedule is not None:
            factor = self._evaluate_of_step("'schedule'", *around.schedule)
            rate = self.builder.emit("multiply", rate, factor)
        return names, rate

    def _append_total(self, name: str, expression: Expr, scope: Scope) -> None:
        """Compute the sum of ``expression`` over all entries of all parameters, and bind ``name``
        to it."""
        if name in scope.names:
            raise SpecError(
                f"{name!r} is in use: give the total a different name", expression.place
            )
        part = self.evaluator.evaluate_typed(expression, scope, f"total {name!r}", self.type)
        axes = tuple(range(len(self.type.shape)))
        total_sum = self.builder.emit("sum", part, axis=axes, keepdims=False)
        value = self.builder.value(NUMBER, name)
        self.totals.append(Total(name, self.builder.take_nodes(), total_sum, value))
        scope.names[name] = BoundValue(value)

    def _evaluate_varying(self) -> dict[str, int]:
        """Evaluate the attributes that the model sets to expressions of the step number ``t``.
        Return a dictionary from attribute to value number."""
        values = {}
        for name, (text, path) in self.around.given.items():
            if name == "learning_rate":
                raise SpecError(
                    f"attribute {name!r} must be a number, found {shorten(repr(text))}: training "
                    "phases set it; write a factor that depends on step t in 'schedule'",
                    self.around.document.place_of(path),
                )
            values[name] = self._evaluate_of_step(repr(name), text, path)
        return values

    def _evaluate_of_step(self, label: str, text: str, path: KeyPath) -> int:
        scope = Scope({"t": BoundValue(self.added.count)})
        return self.evaluator.evaluate_typed(
            self.around.expression(text, path), scope, label, NUMBER
        )

    def _slot_type(self, slot: str) -> Type:
        """Return the type of a slot (an array that the optimizer stores for each parameter). Its
        shape is the declared shape, or, without one, the shape of the parameter.

        Raises:
            SpecError: a declared shape contains something other than rows, columns and numbers.
        """
        declaration = self.part.slots[slot]
        if not isinstance(declaration, ShapedSlot):
            return self.type
        path = (*self.path, "slots", slot, "shape")
        at = self.definition.document.place_of
        return Type(read_dims(declaration.shape, self.sizes, RestAxes(), lambda n: at((*path, n))))

    def _initial_slot_value(self, slot: str) -> Mapping[str, Any] | None:
        """Return the initial value of a slot as a dictionary, e.g. ``{"parameter": {}}`` for a copy
        of the parameter; None means zeros.

        Raises:
            SpecError: the initial value is unknown.
        """
        start = self.part.slots[slot]
        if isinstance(start, ShapedSlot):
            return None
        if isinstance(start, str) and start in STARTS:
            return STARTS[start]
        number = self.attributes.get(start) if isinstance(start, str) else float(start)
        if not isinstance(number, float):
            allowed = [*STARTS, *self.attributes]
            hint = did_you_mean(str(start), allowed)
            raise SpecError(
                f"a slot must start as {', '.join(STARTS)}, a number or the value of an attribute, "
                f"found {shorten(repr(start))}{hint}",
                self.definition.document.place_of((*self.path, "slots", slot)),
            )
        return {"constant": {"value": number}} if number else None

    def _check_assigned(self, scope: Scope) -> None:
        """Check that the equations of the update assign p and all slots, and that the new values
        have the old types. Store the names that the equations read in ``used``."""
        document, slots = self.definition.document, (*self.path, "slots")
        starts = {start for start in self.part.slots.values() if isinstance(start, str)}
        self.used = scope.used | starts
        check_used(scope, ["learning_rate"], document, "attributes", "attribute")
        check_used(scope, self.part.slots, document, slots, "slot")
        check_assigned(scope, self.part.slots, document, slots, "slot")
        update = document.place_of((*self.path, "update"))
        if "p" not in scope.assigned or "g" not in scope.used:
            raise SpecError("an update must assign p and use g", update)
        for name, value in {"p": self.values["p"], **self.slots}.items():
            old_type, new_type = (
                self.builder.types[value],
                self.evaluator.type_of(scope.value(name)),
            )
            if new_type != old_type:
                raise SpecError(
                    f"{name!r} is {old_type}, but becomes {new_type}", scope.assigned[name]
                )


def lower_section(library: Library, use: OptimizerUse, document: Document) -> UpdateRule:
    """Return the update rule for a model's ``optimizer`` section, including the rules for its
    parameter groups.

    Raises:
        SpecError: the optimizer is unknown or wrong, or a group is wrong.
    """
    attributes, root = dict(use.model_extra or {}), ("optimizer",)
    paths: dict[str, KeyPath] = {name: (*root, name) for name in attributes}
    rule = _lower_with_settings(
        library, use, document, attributes, paths, use.schedule, (*root, "schedule")
    )
    groups: dict[str, UpdateRule] = {}
    for number, group in enumerate(use.groups):
        at: KeyPath = (*root, "groups", number)
        group_attributes = dict(group.model_extra or {})
        if "learning_rate" in group_attributes:
            message = (
                "a group cannot set the learning rate, because training phases set it: give a "
                "factor of the rate in 'schedule', as in schedule: 0.1"
            )
            raise SpecError(message, document.place_of_key((*at, "learning_rate")))
        schedule = use.schedule if group.schedule is None else group.schedule
        path = (*(root if group.schedule is None else at), "schedule")
        own_paths = {name: (*at, name) for name in group_attributes}
        group_rule = _lower_with_settings(
            library, use, document, attributes | group_attributes, paths | own_paths, schedule, path
        )
        if not group_attributes and group.schedule is None and group.matrices:
            message = "a group must set attributes or a schedule, found neither"
            raise SpecError(message, document.place_of(at))
        if not group.matrices:
            if group_rule.matrices is None:
                message = f"{use.optimizer} has no separate update for matrices: leave this out"
                raise SpecError(message, document.place_of((*at, "matrices")))
            group_rule = replace(group_rule, matrices=None)
        for pattern in group.patterns:
            groups.setdefault(pattern, group_rule)
    return replace(rule, groups=groups)


def _lower_with_settings(
    library: Library,
    use: OptimizerUse,
    document: Document,
    attributes: Mapping[str, object],
    paths: Mapping[str, KeyPath],
    schedule: str | float | None,
    path: KeyPath,
) -> UpdateRule:
    def place_of(name: str, key: bool) -> Place:
        key_path = paths.get(name, ("optimizer", name))
        return document.place_of_key(key_path) if key else document.place_of(key_path)

    around = ModelSettings(
        document,
        use.gradient,
        use.total,
        None if schedule is None else (str(schedule), path),
        {name: (text, paths[name]) for name, text in attributes.items() if isinstance(text, str)},
        use.accumulate,
        use.average,
    )
    return lower_update(library, use.optimizer, attributes, place_of, around)


def lower_update(
    library: Library,
    name: str,
    values: Mapping[str, object],
    place_of: PlaceOf | None,
    around: ModelSettings | None = None,
) -> UpdateRule:
    """Return the update rule of the optimizer ``name`` with the attributes ``values``. ``around``
    has settings of the model that add equations. ``place_of`` returns the position of an attribute.

    Raises:
        SpecError: the optimizer is unknown, has no learning_rate, or has another error.
    """
    at = place_of("optimizer", False) if place_of else None
    definition = library.find("optimizer", name, at)
    spec, document = content(definition, Optimizer), definition.document
    if "learning_rate" not in spec.attributes:
        raise SpecError("an optimizer needs a learning_rate", document.place_of(("attributes",)))
    around = around or ModelSettings(document)
    plain = {n: v for n, v in values.items() if n not in around.given or n not in spec.attributes}
    owner = AttributeSettings(
        f"optimizer {name!r}", plain, at or document.place_of(()), document, place_of
    )
    attributes = read_attributes(library, spec.attributes, owner, {})
    rate = "learning_rate"
    _check_rate(
        attributes[rate],
        owner.at(rate) if rate in plain else document.place_of(("attributes", rate)),
    )
    elementwise = RuleLowering(library, definition, spec, attributes, around)
    rule, lowered = elementwise.rule(name), [elementwise]
    if spec.matrices is not None:
        of_matrices = RuleLowering(library, definition, spec, attributes, around, spec.matrices)
        rule = replace(rule, matrices=of_matrices.rule(name))
        lowered.append(of_matrices)
    used = Scope({}, used={name for lowering in lowered for name in lowering.used})
    check_used(used, spec.attributes, document, "attributes", "attribute")
    check_used(used, spec.total, document, "total", "total")
    return rule


def _check_rate(rate: Any, at: Place) -> None:
    if isinstance(rate, float) and rate < 0:
        raise SpecError(
            f"a learning rate must be at least 0, found {rate:g}: steps go down the gradient; "
            "to go up, change the sign of the loss",
            at,
        )
