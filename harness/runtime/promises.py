"""Check the promises of a backend's methods at the border of the worker.

Values from a plugin are checked where they enter. A broken promise is then an error that names the
method, not a later error in code that uses the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array, travels
from harness.errors import shorten
from harness.program.primitives import OFFERED, TABLE

# Limits of texts that every record repeats: versions and settings.
MOST_TEXTS = 100
LONGEST = 200
MOST_BYTES = 2**63

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class ContractError(Exception):
    """The error of a backend's method that breaks its promise; the message names the method."""


def described(value: Any) -> str:
    """Return a value's type as text for a message."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def instance(value: T, kind: type[Any], source: str, wanted: str) -> T:
    """Return the value that ``source`` returned if it has the expected type.

    Raises:
        ContractError: it has another type.
    """
    if not isinstance(value, kind):
        raise ContractError(f"{source} returned {described(value)}; {wanted} is wanted")
    return value


def function(value: F, source: str) -> F:
    """Return the value that ``source`` returned if it can be called.

    Raises:
        ContractError: it cannot be called.
    """
    if not callable(value):
        raise ContractError(f"{source} returned {described(value)}; a function is wanted")
    return value


def named(value: Any, source: str) -> Mapping[str, Any]:
    """Return the value that ``source`` returned if it is a mapping.

    Raises:
        ContractError: it is not a mapping.
    """
    found: Mapping[str, Any] = instance(value, Mapping, source, "a dictionary of tensors by name")
    return found


def pair(value: Any, source: str, wanted: str) -> tuple[Any, Any]:
    """Return the value that ``source`` returned if it has two entries.

    Raises:
        ContractError: it does not have two entries.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ContractError(f"{source} returned {described(value)}; {wanted} are wanted")
    return value[0], value[1]


def table(value: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the table of primitives if it maps names to functions.

    Raises:
        ContractError: it is not a mapping, or a value is not a function.
    """
    instance(value, Mapping, "primitives", "a dictionary of functions by name")
    for name, primitive in value.items():
        if not callable(primitive):
            raise ContractError(
                f"{name!r} of the table is {described(primitive)}; a function is wanted"
            )
    found: Mapping[str, Callable[..., Any]] = value
    return found


def texts(value: Any, source: str) -> dict[str, str]:
    """Return texts by name, each cut to the length of a line; other values become text.

    Raises:
        ContractError: it is not a mapping, or has more than :data:`MOST_TEXTS` names.
    """
    found = instance(value, Mapping, source, "a dictionary of texts by name")
    if len(found) > MOST_TEXTS:
        raise ContractError(f"{source} returned {len(found):,} texts; {MOST_TEXTS} are allowed")
    return {shorten(str(n), LONGEST): shorten(str(text), LONGEST) for n, text in found.items()}


def memory(value: Any, source: str) -> int | None:
    """Return a number of bytes, or None.

    Raises:
        ContractError: it is not a whole number, or one that no machine has.
    """
    if value is None:
        return None
    whole = instance(value, Integral, source, "a number of bytes, or None,")
    if not 0 <= whole < MOST_BYTES:
        raise ContractError(f"{source} returned a number of bytes that no machine has")
    return int(whole)


def names(value: Any, source: str) -> list[str]:
    """Return a list of names.

    Raises:
        ContractError: it is not a list of names; a single text is not one either.
    """
    listed = isinstance(value, Sequence | frozenset | set) and not isinstance(value, str | bytes)
    if not listed or not all(isinstance(name, str) for name in value):
        found = repr(value) if isinstance(value, str) else described(value)
        raise ContractError(f"{source} returned {found}; a list of names is wanted")
    return list(value)


def lacking(backend: Any, dtype: str) -> list[str]:
    """Return the offered primitives that a backend says it lacks in a dtype.

    An object without ``lacks`` lacks none.

    Raises:
        ContractError: they are not a list of names, or a name is not an offered primitive.
    """
    source = f"lacks({dtype!r})"
    found = names(getattr(backend, "lacks", lambda _: ())(dtype), source)
    for name in found:
        if name not in OFFERED:
            what = "which every backend must have" if name in TABLE else "which is no primitive"
            raise ContractError(f"{source} names {name!r}, {what}; allowed: {', '.join(OFFERED)}")
    return found


def each(values: Any, nodes: Sequence[Any], source: str) -> Sequence[Any]:
    """Return the results of a claimed call if there is one for each entry of ``nodes``.

    Raises:
        ContractError: there are more or fewer, or they are not in a list or a tuple.
    """
    if not isinstance(values, tuple | list) or len(values) != len(nodes):
        found = f"{len(values)} results" if isinstance(values, tuple | list) else described(values)
        raise ContractError(f"{source} returned {found}; {len(nodes)} results are wanted")
    return values


def array(value: Any, name: str) -> Array:
    """Return the array that ``numpy()`` returned for the result ``name``.

    Raises:
        ContractError: it is not an array, or has a dtype that is not numpy's own.
    """
    if not isinstance(value, np.ndarray | np.generic):
        raise ContractError(
            f"numpy() returned {described(value)} for {name}; a numpy array is wanted"
        )
    if not travels(value.dtype):
        raise ContractError(f"numpy() returned an array of dtype {value.dtype} for {name}")
    return np.asarray(value)
