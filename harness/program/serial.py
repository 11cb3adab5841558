"""Conversion of programs and update rules to JSON data, for workers and reproducers."""

from __future__ import annotations

import hashlib
import json
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.errors import HarnessError, shorten
from harness.program.dims import Dim
from harness.program.ir import Block, Composite, Meaning, Node, Port, Program, Type
from harness.program.updates import Total, UpdateRule

CLASSES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (Dim, Type, Block, Meaning, Node, Port, Composite, Program, Total, UpdateRule)
}
NAMES = {cls: tuple(field.name for field in fields(cls)) for cls in CLASSES.values()}
MOST_DEPTH = 100
# Size of the cache of decoded texts: enough for the checks of a cell and of some earlier cells.
CACHED_TEXTS = 64
# The cache of encoded programs: ``id`` of a program -> a weak reference, and the encoded text. The
# reference removes the entry when the program is deleted.
_texts: dict[int, tuple[weakref.ref[Program], str]] = {}
PLAIN = (bool, int, float, str, type(None))
TypeTest = Callable[[Any], bool]


def encode(value: Any) -> Any:
    """Convert a value, e.g. a program, to JSON data. :func:`decode` converts the data back, but
    returns lists as tuples.

    Raises:
        HarnessError: the value contains an object of a type that programs do not contain.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is tuple or kind is list:
        return [encode(item) for item in value]
    if kind in NAMES:
        content = [encode(getattr(value, name)) for name in NAMES[kind]]
        return {"class": kind.__name__, "fields": content}
    if isinstance(value, Mapping):
        return {"map": [[encode(k), encode(v)] for k, v in value.items()]}
    raise HarnessError(f"a program cannot contain {value!r}")


def encoded(value: Any) -> str:
    """Return a value as JSON text for :func:`decoded`. The text of a program is cached.

    Raises:
        HarnessError: the value contains an object of a type that programs do not contain.
    """
    if not isinstance(value, Program):
        return json.dumps(encode(value))
    number = id(value)
    if number not in _texts:
        text = json.dumps(encode(value))
        _texts[number] = (weakref.ref(value, lambda _: _texts.pop(number, None)), text)
    return _texts[number][1]


@lru_cache(maxsize=CACHED_TEXTS)
def decoded(text: str) -> Any:
    """Convert a text of :func:`encoded` back to its value; equal texts give the same object.

    Raises:
        HarnessError: the text is not the result of :func:`encoded`.
    """
    return decode(json.loads(text))


def digest(value: Any) -> str:
    """Return the sha256 (hex) of the encoded value. Equal values have equal digests.

    Raises:
        HarnessError: the value contains an object of a type that programs do not contain.
    """
    return hashlib.sha256(json.dumps(encode(value)).encode()).hexdigest()


def decode(data: Any) -> Any:
    """Convert JSON data of :func:`encode` back to the value.

    Raises:
        HarnessError: the data are not the result of :func:`encode`, e.g. because of an unknown
            class, a field of a wrong type, or too deep nesting.
    """
    return _decode(data, 0)


def _decode(data: Any, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise HarnessError("the data of the program are nested too deeply")
    if isinstance(data, list | tuple):
        return tuple([_decode(item, depth + 1) for item in data])
    if isinstance(data, Mapping):
        return (
            _decode_mapping(data, depth + 1) if "map" in data else _decode_instance(data, depth + 1)
        )
    if isinstance(data, str):
        return _decode_text(data)
    # Reject integers of more than 64 bits.
    if isinstance(data, PLAIN) and not (isinstance(data, int) and abs(data) >> 63):
        return data
    raise HarnessError(f"a program cannot contain the {type(data).__name__} {shorten(repr(data))}")


def _decode_text(data: str) -> str:
    try:
        data.encode()
    except UnicodeEncodeError:
        raise HarnessError("a text in the program is not valid Unicode") from None
    return data


def _decode_mapping(data: Mapping[str, object], depth: int) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    pairs = data["map"]
    for pair in pairs if isinstance(pairs, list | tuple) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], PLAIN):
            raise HarnessError(
                "a mapping in a program must be a list of pairs of a key and a value"
            )
        mapping[pair[0]] = _decode(pair[1], depth)
    return mapping


def _decode_instance(data: Mapping[str, object], depth: int) -> Any:
    name, content = data.get("class"), data.get("fields")
    if not isinstance(name, str) or name not in CLASSES:
        name_text = shorten(repr(name))
        raise HarnessError(
            f"a program cannot contain {name_text}; another version may have written it"
        )
    tests = _field_tests(CLASSES[name])
    if not isinstance(content, list | tuple) or len(content) != len(tests):
        raise HarnessError(
            f"a {name} must have {len(tests)} fields; another version may have written it"
        )
    values = [_decode(item, depth) for item in content]
    for (field, test), value in zip(tests.items(), values, strict=True):
        if not test(value):
            raise HarnessError(f"{field!r} of a {name} cannot be {shorten(repr(value))}")
    return CLASSES[name](*values)


@cache
def _field_tests(cls: type) -> Mapping[str, TypeTest]:
    hints = get_type_hints(cls)
    return {field.name: _type_test(hints[field.name]) for field in fields(cls)}


def _type_test(hint: Any) -> TypeTest:
    """Return a function that tests whether a value fits ``hint``, the type annotation of a
    dataclass field."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if origin is Literal:
        return lambda value: isinstance(value, str) and value in inner
    if origin in (Union, types.UnionType):
        tests = [_type_test(part) for part in inner]
        return lambda value: any(test(value) for test in tests)
    if origin is tuple:
        return _tuple_test([_type_test(part) for part in inner if part is not ...], ... in inner)
    if origin is not None:  # a mapping
        key, item = map(_type_test, inner)
        return lambda value: (
            isinstance(value, dict) and all(key(k) and item(v) for k, v in value.items())
        )
    if hint is float:
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    return lambda value: isinstance(value, hint)


def _tuple_test(tests: list[TypeTest], endless: bool) -> TypeTest:
    if endless:
        (test,) = tests
        return lambda value: isinstance(value, tuple) and all(map(test, value))
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(tests)
        and all(test(item) for test, item in zip(tests, value, strict=True))
    )
