"""Conversion of loops, which layers and losses declare with ``scan``, to nodes of a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import SpecError, did_you_mean
from harness.files.forms import KeyPath
from harness.language.document import Document
from harness.language.evaluate import Evaluator
from harness.language.expressions import parse_equations
from harness.language.scope import BoundValue, Scope, check_assigned, check_read, check_used
from harness.program.dims import Dim
from harness.program.ir import Type

SINGULAR: Mapping[str, str] = {
    "inputs": "input",
    "attributes": "attribute",
    "parameters": "parameter",
    "state": "state",
    "noise": "noise",
    "statistics": "statistic",
    "constants": "constant",
}
# Two lists of values: a loop's sequences and their slices, or its carried and stacked values.
Carried = tuple[list[int], list[int]]


@dataclass(frozen=True)
class DeclaredLoop:
    """A loop that a definition declares.

    ``step`` has the equations of a step. ``over`` maps names in these equations to inputs or noise,
    which must be in ``sources``; a name stands for one step of the input. ``path`` has the keys
    that lead to the loop in the document, and ``axis`` is the axis of the inputs over which the
    loop runs. ``means`` maps each noise to its mean in inference.
    """

    document: Document
    path: KeyPath
    over: Mapping[str, str]
    step: str
    scope: Scope
    label: str
    sources: Sequence[str]
    others: str = ""
    axis: int = 1
    means: Mapping[str, float] = field(default_factory=dict)


def make_slices(evaluator: Evaluator, loop: DeclaredLoop) -> Carried:
    """Return two lists of value numbers: the sequences that a loop runs over (with the loop's axis
    first), and the slice of each sequence at one step. In the loop's scope, bind the names of the
    slices to them.

    Raises:
        SpecError: an input is unknown, lacks the axis of the loop, or has a different length.
    """
    sequences: list[int] = []
    slices: list[int] = []
    lengths: list[Dim] = []
    for name, source in loop.over.items():
        at = loop.document.place_of((*loop.path, "over", name))
        if source not in loop.sources:
            hint = did_you_mean(source, loop.sources)
            raise SpecError(
                f"cannot scan over {source!r}: it is not an input{loop.others}{hint}", at
            )
        value = loop.scope.value(source)
        type_, axis = evaluator.type_of(value), loop.axis
        if len(type_.shape) <= axis:
            raise evaluator.error_about(value, at)(
                f"the scan loops over axis {axis}, which is missing"
            )
        loop.scope.used.add(source)
        lengths.append(type_.shape[axis])
        if lengths[-1] != lengths[0]:
            raise evaluator.error_about(value, at)(
                f"the inputs of a scan must have the same length, found {lengths[-1]} "
                f"after {lengths[0]}"
            )
        rest = (*type_.shape[:axis], *type_.shape[axis + 1 :])
        slice_type = Type(rest, type_.kind, type_.bound)
        if source in loop.means:  # a constant, so no sequence is needed
            mean = evaluator.builder.filled(loop.means[source], slice_type.shape)
            loop.scope.names[name] = BoundValue(mean)
            continue
        sequences.append(evaluator.builder.axis_first(value, axis))
        slices.append(evaluator.builder.value(slice_type, f"{loop.label}/{name}"))
        loop.scope.names[name] = BoundValue(slices[-1])
    return sequences, slices


def run_loop(
    evaluator: Evaluator,
    loop: DeclaredLoop,
    carried: Iterable[str],
    starts: Sequence[int],
    carries: Sequence[int],
    slices: Carried,
    output: str | None = None,
    reverse: bool = False,
) -> Carried:
    """Append a loop to the program. Return two lists of value numbers: the carried states after the
    last step, and the ``output`` at all steps (one value, or none).

    ``carried`` has the names of the states, ``starts`` their initial values, and ``carries`` their
    values at the start of a step. ``slices`` is the result of :func:`make_slices`.

    Raises:
        SpecError: a state changes its shape or is never assigned, or a slice is never used.
    """
    document, scope, names = loop.document, loop.scope, list(carried)
    scope.names.update(zip(names, map(BoundValue, carries), strict=True))
    evaluator.builder.begin()
    equations = parse_equations(loop.step, document.locator((*loop.path, "step")))
    evaluator.run_equations(equations, scope, f"{loop.label}/")
    results: list[int] = []
    if output is not None:
        at = document.place_of((*loop.path, "output"))
        results = [evaluator.find_output(scope, output, at)]
        if len(evaluator.type_of(results[0]).shape) < (axis := loop.axis):
            needed = (
                "the axis batch"
                if axis == 1
                else f"at least {axis} axes before the axis of the steps"
            )
            raise evaluator.error_about(results[0], at)(f"the output of a step needs {needed}")
    check_read(equations, scope, names)
    check_assigned(scope, names, document, "state", "state")
    check_used(scope, loop.over, document, (*loop.path, "over"), "slice")
    after = [scope.value(name) for name in names]
    for name, carry, value in zip(names, carries, after, strict=True):
        check_same_type(evaluator, document, scope, "state", name, carry, value)
    body = evaluator.builder.end([*carries, *slices[1]], [*after, *results])
    last, stacked = evaluator.builder.scan(body, starts, slices[0], reverse=reverse)
    return last, [evaluator.builder.axis_back(value, loop.axis) for value in stacked]


def check_same_type(
    evaluator: Evaluator,
    document: Document,
    scope: Scope,
    section: str,
    name: str,
    before: int,
    after: int,
) -> None:
    """Check that an update of a state or statistic keeps its shape and kind. ``before`` and
    ``after`` are the numbers of the old and the new value. ``section`` and ``name`` are its keys in
    the file.

    Raises:
        SpecError: the shape or the kind changes.
    """
    old_type, new_type = evaluator.type_of(before), evaluator.type_of(after)
    if new_type != old_type:
        at = scope.assigned.get(name) or document.place_of_key((section, name))
        raise evaluator.error_about(after, at)(
            f"{SINGULAR[section]} {name!r} has type {old_type}, which cannot change to {new_type}"
        )
