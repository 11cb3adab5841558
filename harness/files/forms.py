"""Validation of JSON from untrusted files by pydantic models, which are called forms.

Valid data have every field of the form, with the field's type. Error messages are plainer than
pydantic's, and name the position of the field. ``docs/security.md`` lists the forms and their
limits.
"""

from __future__ import annotations

import enum
import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, RootModel, Strict, ValidationError

from harness.errors import did_you_mean, known_names, shorten

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Scalar = str | int | float | bool
Data = Scalar | list["Data"] | dict[str, "Data"]
# The place of a value in data: keys and list indices, outermost first.
KeyPath = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


# The largest number of required keys that a message names if a value is not a mapping.
MOST_NAMED = 2


@dataclass(frozen=True)
class Complaint:
    """An error that validation found in the data, with its message.

    ``path`` has the keys and indices that lead to the wrong value, e.g. ``("layers", 2)``.
    ``at_key`` is True if the last key itself is wrong, and not its value.
    """

    path: KeyPath
    message: str
    at_key: bool = False


@dataclass(frozen=True)
class _Located:
    """A pydantic error, with its position in the data and in the model.

    ``path`` has the keys that lead to the wrong value. ``annotation`` is the type that rejected the
    value, and ``holder`` the type of the mapping or list around the value. ``choices`` lists the
    union types along the path, outermost first: the path of each union, and pydantic's label of the
    union member that it tried.
    """

    details: ErrorDetails
    path: KeyPath
    annotation: Any
    holder: Any
    choices: tuple[tuple[KeyPath, str], ...]


def complaints(error: ValidationError, model: type[BaseModel], data: Data) -> list[Complaint]:
    """Return the errors that pydantic found when it validated ``data`` as ``model``, reworded for
    users. The list is never empty."""
    located = [_locate(details, model, data) for details in error.errors(include_url=False)]
    return list(dict.fromkeys(_complain_all(located, 0)))


def _locate(details: ErrorDetails, model: type[BaseModel], data: Any) -> _Located:
    path: KeyPath = ()
    choices: tuple[tuple[KeyPath, str], ...] = ()
    annotation: Any = model
    holder: Any = None
    for step in details["loc"]:
        members = _members(annotation)
        if len(members) > 1:
            # pydantic puts the union member that it tried into the path; the file has no such key.
            choices = (*choices, (path, str(step)))
            annotation = next((m for m in members if _is_labelled(m, str(step))), None)
        elif step != "[key]":
            holder = members[0] if members else None
            annotation = _annotation_of(holder, step)
            path = (*path, step)
    return _Located(details, path, annotation, holder, choices)


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union type, without None. For any other type, return a list that has
    only this type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = (_members(member) for member in get_args(annotation))
        return [member for group in members for member in group if member is not type(None)]
    if _is_class(annotation, RootModel):
        return _members(annotation.model_fields["root"].annotation)
    return [annotation]


def _is_class(annotation: Any, base: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, base)


def _is_labelled(member: Any, label: str) -> bool:
    if _is_class(member, BaseModel):
        fields = member.model_fields.values()
        tags = (tag for each in fields for tag in _literals(each.annotation))
        return label == member.__name__ or label in tags
    type_ = get_origin(member) or member
    return label.lower().startswith(getattr(type_, "__name__", str(type_)).lower())


def _literals(annotation: Any) -> tuple[str, ...]:
    """Return the values that a Literal or an enum allows; () for any other type."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if _is_class(annotation, enum.Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def _annotation_of(holder: Any, step: str | int) -> Any:
    """Return the type of the value under the key or index ``step``. ``holder`` is the type of the
    mapping or list that contains the value. Return None if the type is unknown."""
    if _is_class(holder, BaseModel):
        return _fields(holder).get(str(step))
    arguments = get_args(holder)
    origin = get_origin(holder)
    if not isinstance(origin, type) or not arguments:
        return None
    if isinstance(step, int) and origin is tuple and arguments[-1] is not ...:
        return arguments[step] if step < len(arguments) else None
    return arguments[0] if isinstance(step, int) else arguments[-1]


def _fields(model: type[BaseModel]) -> dict[str, object]:
    """Return a dictionary from a field's key in a file to the field's type, for all fields of a
    pydantic model."""
    fields = model.model_fields.items()
    return {str(each.validation_alias or name): each.annotation for name, each in fields}


def _complain_all(located: Sequence[_Located], level: int) -> Iterator[Complaint]:
    """Yield the errors as messages. If a value has a union type, pydantic reports errors for every
    member of the union; yield only those of the member that fits best. ``level`` is the nesting
    depth of unions."""
    unions: dict[KeyPath, list[_Located]] = {}
    for item in located:
        if len(item.choices) > level:
            unions.setdefault(item.choices[level][0], []).append(item)
        else:
            yield _complain(item)
    for path, group in unions.items():
        by_label: dict[str, list[_Located]] = {}
        for item in group:
            by_label.setdefault(item.choices[level][1], []).append(item)
        fitting = [
            items
            for items in by_label.values()
            if not all(_has_wrong_type(item, path) for item in items)
        ]
        if fitting:
            yield from _complain_all(min(fitting, key=len), level + 1)
        else:
            yield _wrong_type(group)


def _has_wrong_type(item: _Located, path: KeyPath) -> bool:
    """Return whether an error says that the value at ``path`` itself, and not a value inside it,
    has a wrong type."""
    return item.path == path and bool(_expectation(item))


def _expectation(item: _Located) -> str:
    if item.details["type"] in ("literal_error", "enum"):
        allowed = ", ".join(map(repr, _literals(item.annotation)))
        return f"one of {allowed or item.details['ctx']['expected']}"
    expected = _EXPECTED.get(item.details["type"], "")
    members = [m for m in _members(item.annotation) if _is_class(m, BaseModel)]
    if expected == "a mapping" and members and item.path:
        needed = [key for key, each in members[0].model_fields.items() if each.is_required()]
        if 1 <= len(needed) <= MOST_NAMED:
            return f"{expected} with {' and '.join(map(repr, needed))}"
    return expected


def _wrong_type(items: Sequence[_Located]) -> Complaint:
    value, path = items[0].details["input"], items[0].path
    expected = " or ".join(dict.fromkeys(map(_expectation, items)))
    allowed = [name for item in items for name in _literals(item.annotation)]
    hint = did_you_mean(value, allowed)
    # A file of another kind may contain text that must not appear in a log.
    found_text = "text" if not path and isinstance(value, str) else _show(value)
    return Complaint(path, f"expected {expected}, found {found_text}{hint}")


def _complain(item: _Located) -> Complaint:
    details, path = item.details, item.path
    context = details.get("ctx", {})
    at_key = details["loc"][-1:] == ("[key]",)
    match details["type"]:
        case "extra_forbidden":
            known = sorted(_fields(item.holder)) if _is_class(item.holder, BaseModel) else []
            instead = getattr(item.holder, "INSTEAD", {}).get(path[-1])
            return Complaint(path, _unknown("key", path[-1], known, instead), at_key=True)
        case "missing":
            part = "entry" if isinstance(path[-1], int) else "key"
            return Complaint(path[:-1], f"missing {part} {path[-1]!r}")
        case "union_tag_not_found":
            return Complaint(path, f"missing key {context['discriminator']}")
        case "union_tag_invalid":
            key = context["discriminator"].strip("'")
            known = sorted(tag.strip("'") for tag in context["expected_tags"].split(", "))
            return Complaint((*path, key), _unknown(key, context["tag"], known))
        case "value_error":
            return Complaint(path, str(context["error"]), at_key)
    if _expectation(item) and not at_key:
        return _wrong_type([item])
    words = details["msg"].replace("Input should ", "must ")
    message = f"{words[:1].lower()}{words[1:]}, found {_show(details['input'])}"
    return Complaint(path, message, at_key)


def _unknown(noun: str, value: object, known: Sequence[str], instead: str | None = None) -> str:
    hint = f"; {instead}" if instead else did_you_mean(value, known)
    return f"unknown {noun} {_show(value)}{hint}{known_names(known, hint) if known else ''}"


def _show(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return repr(shorten(value))
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return shorten(repr(value))


M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
# The largest number of errors in one message.
MOST_SHOWN = 3
WORDS = ("NaN", "Infinity", "-Infinity")


class Form(BaseModel):
    """The base class of all forms (pydantic models of untrusted files). Validation does not convert
    values to other types, and keeps unknown fields."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, defer_build=True, ser_json_inf_nan="constants"
    )


class Malformed(ValueError):
    """Error: data do not match the expected form. The message names the field and the problem."""


def _number(value: Any) -> Any:
    # JSON has no infinity, so files store it as a string that float() reads.
    if isinstance(value, str) and value in WORDS:
        return float(value)
    if isinstance(value, int) and abs(value) >> 1000:
        raise ValueError(f"the number has too many digits, found {shorten(str(value)[:80])}")
    return value


Number = Annotated[float, BeforeValidator(_number)]
# A list in a file, stored as an immutable tuple.
Several = Annotated[tuple[T, ...], Strict(False)]


def plain(value: Any) -> Any:
    """Convert data to JSON values. NaN and infinities, which JSON lacks, become the strings in
    :data:`WORDS`."""
    if isinstance(value, float) and not math.isfinite(value):
        return WORDS[0] if math.isnan(value) else WORDS[1] if value > 0 else WORDS[2]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def read_json(text: bytes | str, what: str) -> Any:
    """Parse JSON.

    Raises:
        Malformed: the text is not JSON, or is nested too deeply; ``what`` describes the text.
    """
    try:
        return json.loads(text)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # also UnicodeDecodeError, and integers with too many digits
        reason = str(error)
    raise Malformed(f"{what} is not JSON: {reason}")


def formed(data: Any, form: type[M], what: str = "") -> M:
    """Validate ``data``, and return them as an object of the class ``form``.

    Raises:
        Malformed: a field is missing or has a wrong type; ``what`` starts the message.
    """
    try:
        return form.model_validate(data)
    except ValidationError as error:
        complaints_ = complaints(error, form, data)
    messages = []
    for complaint in complaints_[:MOST_SHOWN]:
        place = ".".join(shorten(str(step)) for step in complaint.path)
        messages.append(f"{place}: {complaint.message}" if place else complaint.message)
    if len(complaints_) > MOST_SHOWN:
        messages.append(f"and {len(complaints_) - MOST_SHOWN} more")
    raise Malformed(f"{what}: {'; '.join(messages)}" if what else "; ".join(messages))
