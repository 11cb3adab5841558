"""Initial distributions of parameters, as a spec declares them.

Groups of rows of one parameter ("stripes") can have different distributions, and several parameters
(a "block") can be drawn together as one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import Place, SpecError, UsageError
from harness.language import schema
from harness.language.attributes import Attribute, read_number
from harness.language.axes import read_dim
from harness.language.initializers import Law, argument_names
from harness.program.dims import Dim, Shape, shape_text

Initial = schema.Initializer | list[schema.Rows]


@dataclass(frozen=True)
class DistributionAttributes:
    """The attributes whose names may stand for arguments of a distribution. ``used`` collects the
    names that do occur."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


def read_distribution(
    init: Initial,
    shape: Shape,
    block: str | None,
    sizes: Mapping[str, Dim],
    attributes: DistributionAttributes,
    place: Place,
) -> dict[str, object]:
    """Return the initial distribution of a parameter as a dictionary with two keys.

    ``block`` is the name of the parameter's block. ``stripes`` is a tuple of dictionaries with the
    keys ``rows``, ``law`` and ``arguments``, one for each group of rows. Parameters of a block are
    drawn side by side as a single matrix, whose shape decides the fan-in and the fan-out, as Keras
    does for the kernel of an LSTM.

    Raises:
        SpecError: the groups do not add up to the parameter's rows, or a distribution is wrong.
    """
    if isinstance(init, str | dict):
        law = _read_initializer(init, len(shape), attributes, place)
        return {"stripes": ({"rows": shape[0] if shape else Dim(1), **law},), "block": block}
    if not shape or not init:
        raise SpecError(
            f"a list of row groups needs groups and rows, found {shape_text(shape)}", place
        )
    rows = [read_dim(part.rows, sizes, place) for part in init]
    laws = [_read_initializer(part.init, len(shape), attributes, place) for part in init]
    total = sum(rows, Dim())
    if total != shape[0]:
        raise SpecError(
            f"the groups have {total} rows in total, but the number of rows of the parameter is "
            f"{shape[0]}",
            place,
        )
    stripes = tuple({"rows": n, **law} for n, law in zip(rows, laws, strict=True))
    return {"stripes": stripes, "block": block}


def attribute_names_in(init: Initial) -> set[str]:
    """Return the names of attributes that occur as arguments of the initial distribution
    ``init``."""
    laws = [init] if isinstance(init, str | dict) else [part.init for part in init]
    arguments_ = (a for law in laws if isinstance(law, dict) for a in law.values())
    return {value for values in arguments_ for value in values.values() if isinstance(value, str)}


def _read_initializer(
    init: schema.Initializer, rank: int, attributes: DistributionAttributes, place: Place
) -> dict[str, object]:
    """Check that the initializer ``init`` fits a parameter with ``rank`` axes. Return a dictionary
    with its name and arguments."""
    initializers = {init: {}} if isinstance(init, str) else init
    if len(initializers) != 1:
        names_text = ", ".join(initializers) or "none"
        raise SpecError(
            f"give one initializer, as {{normal: {{std: 0.1}}}}; found {names_text}", place
        )
    ((name, values),) = initializers.items()
    try:
        needed = argument_names(name)
        if set(needed) != set(values):
            names_text = ", ".join(needed) or "no arguments"
            raise SpecError(
                f"{name} takes {names_text}; found {', '.join(values) or 'none'}", place
            )
        numbers = {
            k: read_number(k, v, attributes.attributes, attributes.used, place)
            for k, v in values.items()
        }
        # Check the arguments and the number of axes; fan-in and fan-out do not matter here.
        Law(name, 1, 1, numbers).check_axes(rank)
    except UsageError as error:
        raise SpecError(str(error), place) from None
    return {"law": name, "arguments": numbers}
