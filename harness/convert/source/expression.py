"""Expressions of Python source, made of text and of values whose names come later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# How tightly an expression binds.
COMPARISON, SUM, PRODUCT, UNARY, ATOM = range(1, 6)
_PLACE = re.compile(r"([%^]\d+)")


@dataclass(frozen=True)
class Code:
    """Pieces of text, and numbers of values; ``plain`` is a number of Python, not a tensor."""

    parts: tuple[str | int, ...]
    level: int = ATOM
    plain: bool = False

    def within(self, level: int) -> tuple[str | int, ...]:
        """The pieces as an operand of something that binds as tightly as ``level``."""
        return self.parts if self.level >= level else ("(", *self.parts, ")")


def value(number: int) -> Code:
    """A value that has a name."""
    return Code((number,))


def number(figure: float) -> Code:
    """A literal."""
    return Code((repr(float(figure)),), ATOM if figure >= 0 else UNARY, plain=True)


def fill(template: str, *operands: Code, plain: bool = False) -> Code:
    """A call: ``%0`` stands for the first operand, ``^0`` for the same in front of a dot or ``[``.

    Every operand stands in a template once: the emitter counts what is still to be read.
    """
    parts: list[str | int] = []
    for piece in _PLACE.split(template):
        if _PLACE.fullmatch(piece):
            parts += operands[int(piece[1:])].within(ATOM if piece[0] == "^" else 0)
        elif piece:
            parts.append(piece)
    return Code(tuple(parts), ATOM, plain)


def infix(sign: str, level: int, left: Code, right: Code) -> Code:
    """``left sign right``; what is on the right of its own kind is put in brackets."""
    # A chain of comparisons means something else in Python.
    first = left.within(level + 1 if level == COMPARISON else level)
    parts = (*first, f" {sign} ", *right.within(level + 1))
    return Code(parts, level, left.plain and right.plain)


def listed(codes: Sequence[Code]) -> Code:
    """``a, b, c``."""
    parts: list[str | int] = []
    for code in codes:
        parts += [", ", *code.parts] if parts else code.parts
    return Code(tuple(parts), 0)
