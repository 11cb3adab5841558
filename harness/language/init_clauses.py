"""How a parameter's initial values are declared: a law, stripes of laws, or part of a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Place, SpecError, UsageError
from harness.language import schema
from harness.language.attributes import Attribute, number_of
from harness.language.initializers import Law, arguments, expected
from harness.language.size_expressions import read_dim
from harness.program.dims import Dim, Shape, shape_text

Initial = schema.Initializer | list[schema.Rows]


@dataclass(frozen=True)
class LawAttributes:
    """The attributes that arguments of laws may name, and where those that are go."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


def read_init(
    init: Initial,
    shape: Shape,
    block: str | None,
    sizes: Mapping[str, Dim],
    known: LawAttributes,
    place: Place,
) -> dict[str, Any]:
    """The law as plain data: ``stripes`` of ``{rows, law, arguments}``, and the ``block``.

    A block's parameters are drawn as one matrix, side by side, so that its fans are those of the
    whole (as Keras draws an LSTM's kernel).

    Raises:
        SpecError: the stripes are not the rows of the parameter, or a law is wrong.
    """
    if isinstance(init, str | dict):
        rows = shape[0] if shape else Dim(1)
        law = _law(init, len(shape), known, place)
        return {"stripes": ({"rows": rows, **law},), "block": block}
    if not shape or not init:
        raise SpecError(f"stripes need rows to share out, and this is {shape_text(shape)}", place)
    stripes = tuple(
        {"rows": read_dim(part.rows, sizes, place), **_law(part.init, len(shape), known, place)}
        for part in init
    )
    total = Dim()
    for stripe in stripes:
        total = total + stripe["rows"]
    if total != shape[0]:
        raise SpecError(f"the stripes have {total} rows, the parameter {shape[0]}", place)
    return {"stripes": stripes, "block": block}


def names_in_laws(init: Initial) -> set[str]:
    """The attributes that laws name as arguments."""
    laws = [init] if isinstance(init, str | dict) else [part.init for part in init]
    arguments_ = (a for law in laws if isinstance(law, dict) for a in law.values())
    return {value for given in arguments_ for value in given.values() if isinstance(value, str)}


def _law(init: schema.Initializer, rank: int, known: LawAttributes, place: Place) -> dict[str, Any]:
    """A law that exists, with the arguments that it takes, for a parameter of ``rank`` axes."""
    given = {init: {}} if isinstance(init, str) else init
    if len(given) != 1:
        listed = ", ".join(given) or "none"
        raise SpecError(f"one initializer, as in {{normal: {{std: 0.1}}}}; found {listed}", place)
    ((name, values),) = given.items()
    try:
        wanted = arguments(name)
        if set(wanted) != set(values):
            listed = ", ".join(wanted) or "no arguments"
            raise SpecError(f"{name} takes {listed}; found {', '.join(values) or 'none'}", place)
        numbers = {
            k: number_of(k, v, known.attributes, known.used, place) for k, v in values.items()
        }
        # Any size will do to see whether the arguments, and the number of axes, are possible.
        expected(Law(name, 1, 1, numbers), (1,) * rank)
    except UsageError as error:
        raise SpecError(str(error), place) from None
    return {"law": name, "arguments": numbers}
