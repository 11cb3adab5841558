"""Calls whose equations become the body of one call node, so that a backend may run its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import SpecError, did_you_mean
from harness.program.dims import Dim
from harness.program.ir import Node
from harness.spec import schema
from harness.spec.attributes import GivenAttributes, plain, read_attributes
from harness.spec.axes import match
from harness.spec.evaluate import Evaluator
from harness.spec.expressions import Call, Expr, Name, Negate, Number, parse_equations
from harness.spec.input_types import NAMES, entries_of
from harness.spec.library import content
from harness.spec.meaning import meaning
from harness.spec.scope import BoundValue, Scope, check_read, check_used

SINGULAR: Mapping[str, str] = {
    "inputs": "input",
    "attributes": "attribute",
    "parameters": "parameter",
    "state": "state",
    "noise": "noise",
    "statistics": "statistic",
}


class CallEvaluator(Evaluator):
    """Evaluates equations in which losses may be called."""

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        names = super().callable_names(scope)
        return tuple(sorted([*names, *self.library.names("loss")])) if scope.losses else names

    def call(self, expr: Call, scope: Scope) -> int:
        name = expr.function
        if scope.losses and name not in scope.names and self.library.has("loss", name):
            return self.loss(expr, scope)
        return super().call(expr, scope)

    def loss(self, expr: Call, scope: Scope) -> int:
        """Call a loss: one value for each example. Keywords may be attributes."""
        name = expr.function
        definition = self.library.find("loss", name, expr.place)
        spec, document = content(definition, schema.Loss), definition.document
        given, arguments = _split_attributes(expr, spec)
        owner = GivenAttributes(f"loss {name!r}", given, expr.place, document)
        attributes = read_attributes(self.library, spec.attributes, owner, {})
        values = self.arguments(arguments, scope, list(spec.inputs), ())
        inner = Scope(dict(attributes))
        self.bind_inputs(expr, spec.inputs, values, inner, {})
        self.builder.begin()
        with self.called(name, expr.place):
            equations = parse_equations(spec.equations, document.locator(("equations",)))
            self.run(equations, inner, f"{name}/")
            output = self.result(inner, spec.output, document.place_of(("output",)))
            for section in ("inputs", "attributes"):
                check_used(inner, getattr(spec, section), document, section, SINGULAR[section])
            check_read(equations, inner, ())
        info = {
            "kind": "loss",
            "label": name,
            "definition": name,
            "meaning": meaning(self.library, "loss", name, attributes),
            "attributes": plain(attributes),
            "roles": tuple(spec.inputs),
            "results": (spec.output,),
        }
        (result,) = self.close([values[n] for n in spec.inputs], [output], info)
        self.places[result] = expr.place
        return result

    def arguments(
        self, expr: Call, scope: Scope, inputs: Sequence[str], optional: Sequence[str]
    ) -> dict[str, int]:
        """Positional arguments are inputs; keywords are inputs or initial states.

        Raises:
            SpecError: an argument is missing, unknown or given twice.
        """
        if len(expr.arguments) > len(inputs):
            raise SpecError(
                f"{expr.function} takes {', '.join(inputs)}; found {len(expr.arguments)} arguments",
                expr.place,
            )
        values = {n: self.tensor(a, scope) for n, a in zip(inputs, expr.arguments, strict=False)}
        known = [*inputs, *optional]
        for name, argument in expr.keywords:
            if name not in known or name in values:
                problem = "is given twice" if name in values else "is unknown"
                hint = "" if name in values else did_you_mean(name, known)
                raise SpecError(
                    f"{expr.function}: argument {name!r} {problem}{hint} "
                    f"(known: {', '.join(known)})",
                    argument.place,
                )
            values[name] = self.tensor(argument, scope)
        for name in inputs:
            if name not in values:
                raise SpecError(f"{expr.function}: argument {name!r} is missing", expr.place)
        return values

    def bind_inputs(
        self,
        expr: Call,
        inputs: Mapping[str, Any],
        values: Mapping[str, int],
        inner: Scope,
        sizes: dict[str, Dim],
    ) -> None:
        """Match the arguments' shapes with the declared ones and put them in scope."""
        for name, declared in inputs.items():
            value = values[name]
            axes = declared.shape if isinstance(declared, schema.Input) else declared
            fail = self.failure(value, expr.place)
            match(f"{expr.function}: {name}", axes, self.type_of(value), sizes, inner.rest, fail)
            inner.names[name] = BoundValue(value)
        for name, declared in inputs.items():
            found = self.type_of(values[name])
            fail = self.failure(values[name], expr.place)
            wanted = entries_of(declared)
            if wanted.kind != found.kind:
                raise fail(
                    f"{expr.function}: {name} is declared as {NAMES[wanted.kind]}, found "
                    f"{NAMES[found.kind]}"
                )
            if wanted.size is None or found.bound is None:
                continue
            most = found.bound - wanted.more
            if sizes.setdefault(wanted.size, most) != most:
                known, more = sizes[wanted.size], f" + {wanted.more}" if wanted.more else ""
                raise fail(
                    f"{expr.function}: {name} is an index below {wanted.size}{more} = "
                    f"{known + wanted.more}, found one below {found.bound}"
                )

    def close(self, inputs: list[int], outputs: list[int], info: dict[str, Any]) -> list[int]:
        """End the body; a result is a value of its own even where it is just an argument."""
        if outputs[0] in inputs or outputs[0] in outputs[1:]:
            outputs[0] = self.builder.emit("multiply", self.builder.constant(1.0), outputs[0])
        body = self.builder.end(inputs, outputs)
        self.builder.append(
            Node("call", tuple(inputs), tuple(outputs), info, body, self.builder.place)
        )
        return outputs


def _split_attributes(expr: Call, spec: schema.Loss) -> tuple[dict[str, Any], Call]:
    """The keywords of a loss's call that are attributes, and the call without them."""
    given = {n: _literal(n, value) for n, value in expr.keywords if n in spec.attributes}
    rest = tuple((n, value) for n, value in expr.keywords if n not in spec.attributes)
    return given, Call(expr.function, expr.arguments, rest, place=expr.place)


def _literal(name: str, value: Expr) -> float | str:
    match value:
        case Number(number):
            return number
        case Negate(Number(number)):
            return -number
        case Name(id):
            return id
        case _:
            raise SpecError(f"attribute {name!r} is a number or a function's name", value.place)
