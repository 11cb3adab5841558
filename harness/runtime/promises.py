"""Checks that the methods of a backend return what the backend contract promises.

The worker checks each value as soon as a method returns it, so the error names this method. Without
the check, the error would appear later, in other code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array, can_send
from harness.errors import shorten
from harness.program.primitives import OFFERED, TABLE

# Limits for versions and settings, which every record repeats: the number of texts, their length.
MOST_TEXTS = 100
LONGEST = 200
MOST_BYTES = 2**63

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class ContractError(Exception):
    """Error: a backend's method breaks its promise; the message names the method."""


def describe_type(value: Any) -> str:
    """Describe a value's type, for a message."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def check_type(value: T, kind: type[Any], source: str, wanted: str) -> T:
    """Return ``value`` after checking that its type is ``kind``.

    For the error message, ``source`` names the method that returned the value, and ``wanted``
    describes the expected value.

    Raises:
        ContractError: the value has another type.
    """
    if not isinstance(value, kind):
        raise ContractError(f"{source} returned {describe_type(value)}; expected {wanted}")
    return value


def check_function(value: F, source: str) -> F:
    """Return ``value`` after checking that it can be called; ``source`` names the method that
    returned it.

    Raises:
        ContractError: the value cannot be called.
    """
    if not callable(value):
        raise ContractError(f"{source} returned {describe_type(value)}; expected a function")
    return value


def check_mapping(value: Any, source: str) -> Mapping[str, Any]:
    """Return ``value`` after checking that it is a mapping; ``source`` names the method that
    returned it.

    Raises:
        ContractError: the value is not a mapping.
    """
    mapping: Mapping[str, Any] = check_type(
        value, Mapping, source, "a dictionary of tensors by name"
    )
    return mapping


def check_pair(value: Any, source: str, wanted: str) -> tuple[Any, Any]:
    """Return ``value`` after checking that it has two entries. For the error message, ``source``
    names the method that returned it, and ``wanted`` describes the two entries.

    Raises:
        ContractError: the value does not have two entries.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ContractError(f"{source} returned {describe_type(value)}; expected {wanted}")
    return value[0], value[1]


def check_table(value: Any) -> Mapping[str, Callable[..., Any]]:
    """Return a backend's table of primitives after checking that it maps names to functions.

    Raises:
        ContractError: the table is not a mapping, or a value is not a function.
    """
    check_type(value, Mapping, "primitives", "a dictionary of functions by name")
    for name, primitive in value.items():
        if not callable(primitive):
            raise ContractError(
                f"{name!r} in the table of primitives is {describe_type(primitive)}; "
                "expected a function"
            )
    primitives: Mapping[str, Callable[..., Any]] = value
    return primitives


def check_texts(value: Any, source: str) -> dict[str, str]:
    """Return the mapping ``value``, whose values may be of any type, as a dictionary from name to
    text. Each text is cut to :data:`LONGEST` characters.

    ``source`` names the method that returned the mapping, for the error message.

    Raises:
        ContractError: the value is not a mapping, or has more than :data:`MOST_TEXTS` names.
    """
    mapping = check_type(value, Mapping, source, "a dictionary of texts by name")
    if len(mapping) > MOST_TEXTS:
        raise ContractError(f"{source} returned {len(mapping):,} texts; {MOST_TEXTS} are allowed")
    return {shorten(str(n), LONGEST): shorten(str(text), LONGEST) for n, text in mapping.items()}


def check_memory(value: Any, source: str) -> int | None:
    """Return ``value`` after checking that it is a possible number of bytes, or None. ``source``
    names the method that returned it.

    Raises:
        ContractError: the value is not a whole number, or is larger than any machine's memory.
    """
    if value is None:
        return None
    number = check_type(value, Integral, source, "a number of bytes, or None")
    if not 0 <= number < MOST_BYTES:
        raise ContractError(f"{source} returned more bytes than any machine has")
    return int(number)


def check_names(value: Any, source: str) -> list[str]:
    """Return ``value`` after checking that it is a list of names. ``source`` names the method that
    returned it.

    Raises:
        ContractError: the value is not a list of names. A single text is also an error.
    """
    is_list = isinstance(value, Sequence | frozenset | set) and not isinstance(value, str | bytes)
    if not is_list or not all(isinstance(name, str) for name in value):
        text = repr(value) if isinstance(value, str) else describe_type(value)
        raise ContractError(f"{source} returned {text}; expected a list of names")
    return list(value)


def missing_primitives(backend: Any, dtype: str) -> list[str]:
    """Return the optional primitives that a backend does not have in ``dtype``, according to its
    method ``lacks``.

    For a backend without this method, return an empty list.

    Raises:
        ContractError: the result is not a list of names, or a name is not an optional primitive.
    """
    source = f"lacks({dtype!r})"
    names = check_names(getattr(backend, "lacks", lambda _: ())(dtype), source)
    for name in names:
        if name not in OFFERED:
            what = "which every backend must have" if name in TABLE else "which is not a primitive"
            raise ContractError(f"{source} names {name!r}, {what}; allowed: {', '.join(OFFERED)}")
    return names


def check_results(values: Any, nodes: Sequence[Any], source: str) -> Sequence[Any]:
    """Return the results of a native call (of the framework's own layer) after checking that there
    is one for each of ``nodes``. ``source`` names the call.

    Raises:
        ContractError: there are more or fewer results, or they are not in a list or a tuple.
    """
    if not isinstance(values, tuple | list) or len(values) != len(nodes):
        text = (
            f"{len(values)} results" if isinstance(values, tuple | list) else describe_type(values)
        )
        raise ContractError(f"{source} returned {text}; expected {len(nodes)}")
    return values


def check_array(value: Any, name: str) -> Array:
    """Return ``value`` after checking that it is an array. The backend's method ``numpy()``
    returned it for the result ``name``.

    Raises:
        ContractError: the value is not an array, or its dtype is not one of numpy's own.
    """
    if not isinstance(value, np.ndarray | np.generic):
        raise ContractError(
            f"numpy() returned {describe_type(value)} for {name}; expected a numpy array"
        )
    if not can_send(value.dtype):
        raise ContractError(f"numpy() returned an array of dtype {value.dtype} for {name}")
    return np.asarray(value)
