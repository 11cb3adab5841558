"""Test calls of ``windows`` and ``overlap_add`` in which every attribute affects the result."""

from __future__ import annotations

from typing import Any

import numpy as np

Framing = dict[str, tuple[int, ...]]
IMAGE = np.random.default_rng(4).normal(size=(2, 6, 5, 3))


def framing(**changed: tuple[int, ...]) -> Framing:
    """Return attributes for windows over two axes; ``changed`` replaces the defaults."""
    plain = {"axes": (1, 2), "size": (3, 2), "stride": (1, 1), "dilation": (1, 1)}
    given = {**plain, "padding": (0, 0), **changed}
    return {**given, "after": given.get("after", given["padding"])}


def count(length: int, size: int, step: int, apart: int, before: int, after: int) -> int:
    """Count the windows that fit, by trying each start."""
    covered = apart * (size - 1) + 1
    return sum(start + covered <= length + before + after for start in range(0, 100, step))


FRAMINGS: list[Framing] = [
    framing(),
    framing(stride=(2, 3)),
    framing(dilation=(2, 3)),
    framing(padding=(1, 2)),
    framing(padding=(2, 1), after=(0, 3)),
    framing(size=(2, 3), stride=(2, 1), dilation=(2, 1), padding=(1, 1)),
    framing(axes=(0, 3), size=(2, 2), padding=(1, 0)),
    framing(axes=(1, 3), size=(2, 3), stride=(4, 1), padding=(0, 2)),
    {name: each[1:] for name, each in framing(axes=(0, 2), size=(1, 2), stride=(1, 2)).items()},
]


def _calls() -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    found: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    for given in FRAMINGS:
        names = ("size", "stride", "dilation", "padding", "after")
        lengths = tuple(IMAGE.shape[axis] for axis in given["axes"])
        counts = tuple(map(count, lengths, *(given[name] for name in names)))
        for lowest in (False, True):
            attributes = {**given, "length": counts, "lowest": lowest}
            found.append(("windows", (IMAGE,), attributes))
        shape = list(IMAGE.shape)
        for axis, number in zip(given["axes"], counts, strict=True):
            shape[axis] = number
        last = given["axes"][-1] + 1
        shape[last:last] = given["size"]
        values = np.random.default_rng(5).normal(size=shape)
        found.append(("overlap_add", (values,), {**given, "length": lengths}))
    return found


WINDOWS = _calls()


def one_by_one(op: str, x: Any, **attributes: Any) -> tuple[Any, Any, Any]:
    """Compute windows over two axes entry by entry, from their definition."""
    axes, length = attributes["axes"], attributes["length"]
    last = axes[-1] + 1
    if op == "windows":
        padded = -np.inf if attributes["lowest"] else 0.0
        shape = [dict(zip(axes, length, strict=True)).get(a, n) for a, n in enumerate(x.shape)]
        shape[last:last] = attributes["size"]
        found = np.full(shape, padded)
    else:
        outer = [*x.shape[:last], *x.shape[last + len(axes) :]]
        shape = [dict(zip(axes, length, strict=True)).get(a, n) for a, n in enumerate(outer)]
        found = np.zeros(shape)
    framed, whole = (found, x) if op == "windows" else (x, found)
    for index in np.ndindex(framed.shape):
        place = [*index[:last], *index[last + len(axes) :]]
        for axis, j, step, apart, before in zip(
            axes,
            index[last:],
            *(attributes[name] for name in ("stride", "dilation", "padding")),
            strict=False,
        ):
            place[axis] = index[axis] * step + j * apart - before
        if all(0 <= n < whole.shape[axis] for axis, n in enumerate(place)):
            if op == "windows":
                found[index] = x[tuple(place)]
            else:
                found[tuple(place)] += x[index]
    return (x,), attributes, found
