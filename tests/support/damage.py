"""Damaged files: JSON with a missing field, a wrong type or an absurd value, and changed bytes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]

ABSURD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    1.5,
    -1e308,
    "",
    "Infinity",
    "NaN",
    "\ud800 \x1b[31m [/bold]",
    [],
    [1],
    ["a", None],
    {},
    {"a": {"class": "Program", "fields": []}},
    DEEP,
)
GONE = object()


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in JSON data, as a tuple of keys and indices."""
    yield path
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of JSON data with another value at a path, or without this path."""
    if not path:
        return value
    data = copy.deepcopy(data)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    if value is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return data


def mutations(data: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """Yield random copies of JSON data, each damaged at one place."""
    chosen = random.Random(seed)
    paths = list(places(data))
    for _ in range(count):
        path = chosen.choice(paths)
        yield changed(data, path, chosen.choice(ABSURD if not path else (*ABSURD, GONE)))


def flips(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield random copies of bytes: cut off, or with a part changed, repeated or cleared."""
    chosen = random.Random(seed)
    for _ in range(count):
        at = chosen.randrange(len(content))
        kind = chosen.randrange(4)
        if kind == 0:
            yield content[:at]
        elif kind == 1:
            yield content[:at] + bytes([chosen.randrange(256)]) + content[at + 1 :]
        elif kind == 2:
            yield content[:at] + content[max(0, at - 40) :]
        else:
            yield content[:at] + bytes(8) + content[at + 8 :]
