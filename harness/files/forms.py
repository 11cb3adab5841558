"""Data of a stranger's file as data of a known form: one way for JSON, whatever it is of.

What passes has every field that the form names, of its type; what does not is a message with the
field's place. ``docs/security.md`` lists the forms and their limits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict, ValidationError

from harness.errors import shorten
from harness.files.complaints import complaints

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
# Of the complaints about one piece of data, so many are shown.
MOST_SHOWN = 3
WORDS = ("NaN", "Infinity", "-Infinity")


class Form(BaseModel):
    """Base of all forms: types are not converted, fields that are not known stay as they are."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, defer_build=True, ser_json_inf_nan="constants"
    )


class Malformed(ValueError):
    """Data are not of the form that they should have; the message says where and how."""


def _number(value: Any) -> Any:
    # JSON has no infinity: such numbers are strings that float() reads.
    if isinstance(value, str) and value in WORDS:
        return float(value)
    if isinstance(value, int) and abs(value) >> 1000:
        raise ValueError(f"no number has so many digits, found {shorten(str(value)[:80])}")
    return value


Number = Annotated[float, BeforeValidator(_number)]
# A list of a file, that nobody changes.
Several = Annotated[tuple[T, ...], Strict(False)]


def plain(value: Any) -> Any:
    """Data as JSON has them: numbers that are not finite become the strings of :data:`WORDS`."""
    if isinstance(value, float) and not math.isfinite(value):
        return WORDS[0] if math.isnan(value) else WORDS[1] if value > 0 else WORDS[2]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def read_json(text: bytes | str, what: str) -> Any:
    """Return the value that JSON stands for.

    Raises:
        Malformed: ``what`` the text is is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # UnicodeDecodeError is one, and too many digits are
        reason = str(error)
    raise Malformed(f"{what} is not JSON: {reason}")


def formed(data: Any, form: type[M], what: str = "") -> M:
    """Return the data as an instance of a form.

    Raises:
        Malformed: a field is missing or of another type; ``what`` the data are stands before it.
    """
    try:
        return form.model_validate(data)
    except ValidationError as error:
        found = complaints(error, form, data)
    told = []
    for complaint in found[:MOST_SHOWN]:
        place = ".".join(shorten(str(step)) for step in complaint.path)
        told.append(f"{place}: {complaint.message}" if place else complaint.message)
    if len(found) > MOST_SHOWN:
        told.append(f"and {len(found) - MOST_SHOWN} more")
    raise Malformed(f"{what}: {'; '.join(told)}" if what else "; ".join(told))
