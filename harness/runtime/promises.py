"""The promises of a backend's methods: the border of the worker.

What comes from a plugin is looked at where it comes in, so that a broken promise is an error that
names the method, and not another one deep in what was built on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array, travels
from harness.errors import shorten
from harness.program.primitives import OFFERED, TABLE

# What every record repeats: versions and settings.
MOST_TEXTS = 100
LONGEST = 200
MOST_BYTES = 2**63

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class ContractError(Exception):
    """A method of a backend returned something else than it promises; the message says which."""


def described(value: Any) -> str:
    """A value by its type, for a message."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def instance(value: T, kind: type[Any], source: str, wanted: str) -> T:
    """A value that ``source`` returned, of the kind that is wanted.

    Raises:
        ContractError: it is of another.
    """
    if not isinstance(value, kind):
        raise ContractError(f"{source} returned {described(value)}; {wanted} is wanted")
    return value


def function(value: F, source: str) -> F:
    """A function that ``source`` returned.

    Raises:
        ContractError: it cannot be called.
    """
    if not callable(value):
        raise ContractError(f"{source} returned {described(value)}; a function is wanted")
    return value


def named(value: Any, source: str) -> Mapping[str, Any]:
    """Tensors by name.

    Raises:
        ContractError: it is not a mapping.
    """
    found: Mapping[str, Any] = instance(value, Mapping, source, "a dictionary of tensors by name")
    return found


def pair(value: Any, source: str, wanted: str) -> tuple[Any, Any]:
    """Two things.

    Raises:
        ContractError: there are not two.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ContractError(f"{source} returned {described(value)}; {wanted} are wanted")
    return value[0], value[1]


def table(value: Any) -> Mapping[str, Callable[..., Any]]:
    """The table of primitives.

    Raises:
        ContractError: it is none, or holds something else than functions.
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
    """Texts by name, each cut to what a line can hold; what is not text is made one.

    Raises:
        ContractError: it is not a mapping, or has very many names.
    """
    found = instance(value, Mapping, source, "a dictionary of texts by name")
    if len(found) > MOST_TEXTS:
        raise ContractError(f"{source} returned {len(found):,} texts; {MOST_TEXTS} are allowed")
    return {shorten(str(n), LONGEST): shorten(str(text), LONGEST) for n, text in found.items()}


def memory(value: Any, source: str) -> int | None:
    """A number of bytes, or None.

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
    """A list of names.

    Raises:
        ContractError: it is none; one text is none either.
    """
    listed = isinstance(value, Sequence | frozenset | set) and not isinstance(value, str | bytes)
    if not listed or not all(isinstance(name, str) for name in value):
        found = repr(value) if isinstance(value, str) else described(value)
        raise ContractError(f"{source} returned {found}; a list of names is wanted")
    return list(value)


def lacking(backend: Any, dtype: str) -> list[str]:
    """Return the offered primitives that a backend says it lacks in a dtype; none of what is no
    backend.

    Raises:
        ContractError: they are no list of names, or one of them is no offered primitive.
    """
    source = f"lacks({dtype!r})"
    found = names(getattr(backend, "lacks", lambda _: ())(dtype), source)
    for name in found:
        if name not in OFFERED:
            what = "which every backend must have" if name in TABLE else "which is no primitive"
            raise ContractError(f"{source} names {name!r}, {what}; allowed: {', '.join(OFFERED)}")
    return found


def each(values: Any, nodes: Sequence[Any], source: str) -> Sequence[Any]:
    """As many results as a claimed call has.

    Raises:
        ContractError: there are more or fewer, or it is not a list of them.
    """
    if not isinstance(values, tuple | list) or len(values) != len(nodes):
        found = f"{len(values)} results" if isinstance(values, tuple | list) else described(values)
        raise ContractError(f"{source} returned {found}; {len(nodes)} results are wanted")
    return values


def array(value: Any, name: str) -> Array:
    """An array that ``numpy()`` made of a tensor, the result ``name``.

    Raises:
        ContractError: it is not an array, or of a dtype that is not numpy's own.
    """
    if not isinstance(value, np.ndarray | np.generic):
        raise ContractError(
            f"numpy() returned {described(value)} for {name}; a numpy array is wanted"
        )
    if not travels(value.dtype):
        raise ContractError(f"numpy() returned an array of dtype {value.dtype} for {name}")
    return np.asarray(value)
