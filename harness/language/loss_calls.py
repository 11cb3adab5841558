"""Calls whose equations become the body of one call node, so that a backend may run its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.errors import Place, SpecError, did_you_mean
from harness.language import schema
from harness.language.attributes import plain
from harness.language.call_arguments import attributes_of, inputs_of
from harness.language.declared_axes import match, read_dims
from harness.language.document import Document
from harness.language.evaluate import Evaluator
from harness.language.expressions import Call, parse_equations
from harness.language.input_types import NAMES, entries_of
from harness.language.library import content
from harness.language.meaning import meaning
from harness.language.scope import (
    BoundValue,
    Scope,
    as_sizes,
    check_assigned,
    check_read,
    check_used,
)
from harness.language.size_expressions import names_of_sizes
from harness.program.dims import Dim
from harness.program.ir import Kind, Node, Type

# The scan of a loss: states that go over the steps of inputs, for its equations to end with.


def scan_states(
    made: Evaluator, spec: schema.Loss, document: Document, inner: Scope, sizes: Mapping[str, Dim]
) -> None:
    """Run the scan of a loss, and bring the last values of its states into scope.

    Raises:
        SpecError: a state is of another shape after a step, is never assigned or never used, or
            the scan goes over what is no input, or has no axis of steps.
    """
    if spec.scan is None:
        return
    builder, label = made.builder, spec.loss
    starts, carries = [], []
    during = Scope(dict(inner.names), frozenset(spec.state), inner.rest)
    for name, state in spec.state.items():
        place = partial(_place, document, ("state", name, "shape"))
        inner.used.update(names_of_sizes(state.shape))
        known = {**as_sizes(inner.names), **sizes}
        shape = read_dims(state.shape, known, inner.rest, place)
        starts.append(builder.filled(state.start, shape))
        carries.append(builder.value(Type(shape)))
        during.names[name] = BoundValue(carries[-1])
    sequences, slices = _slices(made, spec, document, inner, during)
    builder.begin()
    assert spec.scan is not None
    equations = parse_equations(spec.scan.step, document.locator(("scan", "step")))
    made.run(equations, during, f"{label}/")
    check_read(equations, during, spec.state)
    check_assigned(during, spec.state, document, "state", "state")
    check_used(during, spec.state, document, "state", "state")
    check_used(during, spec.scan.over, document, ("scan", "over"), "slice")
    after = [during.value(name) for name in spec.state]
    for name, carry, value in zip(spec.state, carries, after, strict=True):
        if made.type_of(value) != made.type_of(carry):
            raise made.failure(value, during.assigned[name])(
                f"state {name!r} is {made.type_of(carry)}, and cannot become {made.type_of(value)}"
            )
    body = builder.end([*carries, *slices], after)
    last, _ = builder.scan(body, starts, sequences)
    inner.used |= during.used
    inner.names |= dict(zip(spec.state, map(BoundValue, last), strict=True))


def _slices(
    made: Evaluator, spec: schema.Loss, document: Document, inner: Scope, during: Scope
) -> tuple[list[int], list[int]]:
    """The inputs with their steps first, and a step's slice of each, which comes into scope."""
    sequences: list[int] = []
    slices: list[int] = []
    assert spec.scan is not None
    for name, source in spec.scan.over.items():
        at = document.place_of(("scan", "over", name))
        if source not in spec.inputs:
            hint = did_you_mean(source, spec.inputs)
            raise SpecError(f"cannot scan over {source!r}: it is not an input{hint}", at)
        value = inner.value(source)
        type_ = made.type_of(value)
        inner.used.add(source)
        if len(type_.shape) < 2:
            raise made.failure(value, at)("a scan goes over axis 1, and there is none")
        sequences.append(made.builder.axis_first(value, 1))
        rest = (type_.shape[0], *type_.shape[2:])
        slices.append(made.builder.value(Type(rest, type_.kind, type_.bound)))
        lengths = [made.type_of(one).shape[0] for one in sequences]
        if lengths[-1] != lengths[0]:
            raise made.failure(value, at)(
                f"the inputs of a scan have the same length, found {lengths[-1]} after {lengths[0]}"
            )
        during.names[name] = BoundValue(slices[-1])
    return sequences, slices


def _place(document: Document, path: tuple[str | int, ...], number: int) -> Place:
    return document.place_of((*path, number))


# How the name of a loss starts whose target is class indices.
SPARSE = "sparse_"
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
        attributes = attributes_of(
            self.library, f"loss {name!r}", expr, spec.attributes, document, scope
        )
        values = inputs_of(self, expr, scope, list(spec.inputs), attributes=list(spec.attributes))
        inner = Scope(dict(attributes))
        sizes = {n: d for n, d in attributes.items() if isinstance(d, Dim)}
        self.bind_inputs(expr, spec.inputs, values, inner, sizes)
        inner.names.update({n: d for n, d in sizes.items() if n not in inner.names})
        self.builder.begin()
        with self.called(name, expr.place):
            scan_states(self, spec, document, inner, sizes)
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

    def bind_inputs(
        self,
        expr: Call,
        inputs: Mapping[str, Any],
        values: Mapping[str, int],
        inner: Scope,
        sizes: dict[str, Dim],
    ) -> None:
        """Match the arguments' kinds and shapes with the declared ones and put them in scope."""
        for name, declared in inputs.items():
            found = self.type_of(values[name])
            if (wanted := entries_of(declared)).kind != found.kind:
                raise self.failure(values[name], expr.place)(
                    f"{expr.function}: {name} is declared as {NAMES[wanted.kind]}, found "
                    f"{NAMES[found.kind]}{self._twin(expr.function, found.kind)}"
                )
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
            if wanted.size is None or found.bound is None:
                continue
            most = found.bound - wanted.more
            size = wanted.size
            known = Dim(size) if isinstance(size, int) else sizes.setdefault(size, most)
            if known != most:
                told = "" if isinstance(size, int) else f"{size}{' + 1' * wanted.more} = "
                # A size of the arguments is what it is; an attribute was given by the model.
                hint = f" (write {size}: {most})" if size in inner.names else ""
                raise fail(
                    f"{expr.function}: {name} is an index below {told}{known + wanted.more}, "
                    f"found one below {found.bound}{hint}"
                )

    def _twin(self, loss: str, found: Kind) -> str:
        """The loss that takes class indices where this one takes floats, or the other way round."""
        twin, of = f"{SPARSE}{loss}", "class indices"
        if loss.startswith(SPARSE):
            twin, of = loss.removeprefix(SPARSE), "floats"
        fits = found == ("float" if loss.startswith(SPARSE) else "index")
        return f"; {twin} takes {of}" if fits and self.library.has("loss", twin) else ""

    def close(self, inputs: list[int], outputs: list[int], info: dict[str, Any]) -> list[int]:
        """End the body; a result is a value of its own even where it is just an argument."""
        if outputs[0] in inputs or outputs[0] in outputs[1:]:
            outputs[0] = self.builder.emit("multiply", self.builder.constant(1.0), outputs[0])
        body = self.builder.end(inputs, outputs)
        self.builder.append(
            Node("call", tuple(inputs), tuple(outputs), info, body, self.builder.place)
        )
        return outputs
