"""How a parameter's initial values are declared: a law, stripes of laws, or part of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.dims import Dim, Shape
from harness.errors import Place, SpecError, UsageError
from harness.initializers import arguments
from harness.spec import schema
from harness.spec.shapes import read_dim


def read_init(
    init: Any, shape: Shape, block: str | None, sizes: Mapping[str, Dim], owner: str, place: Place
) -> dict[str, Any]:
    """The law as plain data: ``stripes`` of ``{rows, law, arguments}``, and the ``block``.

    A block's parameters are drawn as one matrix, side by side, so that its fans are those of the
    whole (as Keras draws an LSTM's kernel).
    """
    if isinstance(init, list):
        stripes = []
        for stripe in init:
            given = schema.Rows.model_validate(stripe) if isinstance(stripe, dict) else stripe
            rows = read_dim(given.rows, sizes, place)
            stripes.append({"rows": rows, **_law(given.init, place)})
        total = Dim()
        for stripe in stripes:
            total = total + stripe["rows"]
        if total != shape[0]:
            raise SpecError(f"the stripes have {total} rows, the parameter {shape[0]}", place)
    else:
        rows = shape[0] if shape else Dim(1)
        stripes = [{"rows": rows, **_law(init, place)}]
    return {"stripes": stripes, "block": f"{owner}.{block}" if block else None}


def _law(init: schema.Initializer, place: Place) -> dict[str, Any]:
    name, given = (init, {}) if isinstance(init, str) else next(iter(init.items()), ("", {}))
    if isinstance(init, dict) and len(init) != 1:
        raise SpecError(f"one initializer, as in {{normal: {{std: 0.1}}}}; found {init!r}", place)
    try:
        wanted = arguments(name)
    except UsageError as error:
        raise SpecError(str(error), place) from None
    if set(wanted) != set(given):
        listed = ", ".join(wanted) or "no arguments"
        raise SpecError(f"{name} takes {listed}; found {', '.join(given) or 'none'}", place)
    return {"law": name, "arguments": {k: float(v) for k, v in given.items()}}
