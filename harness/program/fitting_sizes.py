"""Batches and lengths that a model can have, where slices and windows ask for some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.errors import UsageError
from harness.program.dims import Dim
from harness.program.ir import Program

# How far from what is wanted a batch or a length is looked for.
REACH = 1024


def lacking(program: Program, sizes: Mapping[str, int]) -> Dim | None:
    """What would be below 0 at these sizes, of what slices and windows leave of their axes."""
    known = {**program.sizes, **sizes}
    for dim in program.room:
        if set(dim.names) <= known.keys() and dim.resolve(known) < 0:
            return dim
    return None


def fits(program: Program, batch: int, time: int) -> bool:
    """Whether the model can have such a batch and such a length."""
    return lacking(program, {"batch": batch, "time": time}) is None


def nearest_sizes(program: Program, batch: int, time: int) -> tuple[int, int]:
    """The batch and the length that the model can have, the nearest to those that are wanted;
    of two the smaller one.

    Raises:
        UsageError: it can have none within :data:`REACH` of them.
    """
    short = None
    for length in _around(time):
        short = lacking(program, {"time": length})
        if short is not None:
            continue
        for rows in _around(batch):
            short = lacking(program, {"batch": rows, "time": length})
            if short is None:
                return rows, length
        if short is not None and "time" not in short.names:
            break
    raise UsageError(
        f"{program.name}: a slice or a window needs {short} to be 0 or more, and no batch and time "
        f"within {REACH} of {batch} and {time} make it so: give the spec other sizes"
    )


def _around(wanted: int) -> Iterable[int]:
    """Numbers from 1 on, the nearest to one first."""
    yield wanted
    for off in range(1, REACH):
        if wanted - off >= 1:
            yield wanted - off
        yield wanted + off
