"""Strategies that damage real inputs: their bytes, their words, and the values of their JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Edit = Callable[[bytes], bytes]

# What breaks readers: markup, escapes, other encodings, numbers at the edges, code.
HOSTILE_TEXTS = (
    "",
    "\0",
    "[/bold]",
    "\x1b[2J",
    '"""\nimport os\n"""',
    "../../../etc/passwd",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "\ud800",
    "é" * 300,
    "x" * 70_000,
    "__class__",
    "self",
    "None",
    "1e400",
    "-0",
    "9" * 400,
    "{" * 40,
    "%s%n{0.__class__}",
)
HOSTILE_NUMBERS = (
    *(0, -1, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(0.5, -0.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")),
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *HOSTILE_TEXTS,
    *HOSTILE_NUMBERS,
    *(None, True, False, [], {}, [[]], [None], {"": None}, {"class": "Node"}, [0] * 1000),
)
WORDS = tuple(
    word.encode("utf-8", "surrogatepass")
    for word in (
        *HOSTILE_TEXTS,
        *map(str, HOSTILE_NUMBERS),
        *("null", "true", "~", "&a", "*a", "!!python/object:os.system", "<<", "---", "- ", ": "),
        *("(", ")", "**", "//", "@", "lambda", "[0]", ".real", "=", ",", "\n", "\r", "\t", "#"),
    )
)


def _spliced(data: bytes, start: int, stop: int, new: bytes) -> bytes:
    start, stop = sorted((start % (len(data) + 1), stop % (len(data) + 1)))
    return data[:start] + new + data[stop:]


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    if not data:
        return data
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def _swapped_lines(data: bytes, one: int, other: int) -> bytes:
    lines = data.split(b"\n")
    one, other = one % len(lines), other % len(lines)
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def edits() -> st.SearchStrategy[Edit]:
    """One damage to bytes."""
    place = st.integers(0, 1 << 20)
    short = st.integers(0, 40)

    def splice(start: int, length: int, new: bytes) -> Edit:
        return lambda data: _spliced(data, start, start % (len(data) + 1) + length, new)

    return st.one_of(
        st.builds(splice, place, short, st.sampled_from(WORDS)),
        st.builds(splice, place, short, st.binary(max_size=8)),
        st.builds(lambda at: lambda data: data[: at % (len(data) + 1)], place),
        st.builds(lambda at, bit: lambda data: _flipped(data, at, bit), place, st.integers(0, 7)),
        st.builds(lambda a, b: lambda data: _swapped_lines(data, a, b), place, place),
        st.builds(
            lambda a, b, at: lambda data: _spliced(data, at, at, data[a % 4096 : b % 4096]),
            *(place, place, place),
        ),
    )


def damaged(seeds: Sequence[bytes], most: int = 4) -> st.SearchStrategy[bytes]:
    """One of some real inputs with a few damages."""

    def apply(data: bytes, wanted: Sequence[Edit]) -> bytes:
        for edit in wanted:
            data = edit(data)
        return data

    return st.builds(apply, st.sampled_from(seeds), st.lists(edits(), min_size=1, max_size=most))


def retyped(seed: Any, most: int = 2) -> st.SearchStrategy[Any]:
    """JSON's own types with a few of its values, at any depth, replaced, removed or renamed."""
    change = st.tuples(
        st.integers(0, 1 << 16),
        st.sampled_from(("replace", "remove", "rename", "nest")),
        st.sampled_from(HOSTILE_VALUES),
    )

    def apply(changes: Sequence[tuple[int, str, Any]]) -> Any:
        found = json.loads(json.dumps(seed))
        for at, kind, value in changes:
            places = list(_places(found))
            if places:
                # A copy: a later change may be one of this very value.
                _change(*places[at % len(places)], kind, deepcopy(value))
        return found

    return st.builds(apply, st.lists(change, min_size=1, max_size=most))


def _places(value: Any) -> Any:
    """Every container with every key of it."""
    if isinstance(value, Mapping):
        for key in list(value):
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from _places(value[index])


def _change(container: Any, key: Any, kind: str, value: Any) -> None:
    if kind == "remove":
        del container[key]
    elif kind == "rename" and isinstance(container, dict) and isinstance(value, str):
        container[value] = container.pop(key)
    elif kind == "nest":
        container[key] = [container[key]]
    else:
        container[key] = value
