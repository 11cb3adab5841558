"""The scan of a loss: states that go over the steps of inputs, for its equations to end with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from harness.errors import Place, SpecError, did_you_mean
from harness.language import schema
from harness.language.declared_axes import read_dims
from harness.language.document import Document
from harness.language.evaluate import Evaluator
from harness.language.expressions import parse_equations
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
from harness.program.ir import Type


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
