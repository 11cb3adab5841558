"""How a pass parts from the oracle, value by value: what a picture of it needs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, Strict

from harness.files.forms import Form, Number, Several

# A step, or a time step, its error and what is allowed.
Grown = Annotated[tuple[NonNegativeInt, Number, Number], Strict(False)]


class Link(Form):
    """A named value at the worst of its time steps, relative to its size."""

    value: str
    error: Number
    allowed: Annotated[Number, Field(gt=0)]

    @property
    def agrees(self) -> bool:
        """Whether the error is allowed."""
        return self.error <= self.allowed


class Divergence(Form):
    """The values of a pass in the order in which they are made.

    ``first`` is the first that is wrong; ``steps`` are its time steps, each with error and what is
    allowed. ``lines`` are those of ``file`` around ``line``, where its equation stands, from
    ``start`` on.
    """

    first: str
    links: Several[Link]
    steps: Several[Grown] = ()
    file: str = ""
    line: int = 0
    start: int = 0
    lines: Several[str] = ()
