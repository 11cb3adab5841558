"""Symbolic dimensions: sums of products of size names, such as ``heads * head + vocab``.

A program is written for any batch and any time length, so its shapes hold names; arrays bring the
numbers. Concatenation adds, slicing subtracts, joining axes multiplies; nothing in the language
divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

from harness.errors import SpecError, UsageError, did_you_mean

# Limits, because a few short equations could make sizes grow without end. Limits of a dimension:
# the products that it adds up, the sizes in each product, and any number. Limits of a shape: its
# axes (as many as numpy 1 has), and the sizes that it names, so that people can read it.
MOST_TERMS, MOST_FACTORS, LARGEST = 32, 8, 2**63 - 1
MOST_AXES, MOST_NAMED = 32, 100


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension ``constant + sum(coefficient * product)``; terms are sorted and never zero.

    A product is written as its names in order with ``*`` between them: ``head*heads``.

    Raises:
        SpecError: a dimension would be larger than the limits; the error has no place.
    """

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.terms) > MOST_TERMS:
            raise SpecError(
                f"a size is a sum of at most {MOST_TERMS} products of sizes, "
                f"found {len(self.terms)}: declare a size of its own for a part of the sum"
            )
        most = max((name.count("*") + 1 for name, _ in self.terms), default=0)
        if most > MOST_FACTORS:
            raise SpecError(
                f"a size is a product of at most {MOST_FACTORS} sizes, found {most}: declare a "
                "size of its own for a part of the product"
            )
        if max(abs(self.constant), *(abs(c) for _, c in self.terms), 0) > LARGEST:
            raise SpecError(f"a size is a number of at most {LARGEST:,}")

    @staticmethod
    def of(value: Dim | int | str) -> Dim:
        """Return the dimension of a number or a size name."""
        if isinstance(value, Dim):
            return value
        if isinstance(value, str):
            return Dim(0, ((value, 1),))
        return Dim(value)

    def __add__(self, other: Dim | int) -> Dim:
        other = Dim.of(other)
        if not other.terms:
            return Dim(self.constant + other.constant, self.terms)
        terms = dict(self.terms)
        for name, coefficient in other.terms:
            terms[name] = terms.get(name, 0) + coefficient
        kept = tuple(sorted((name, c) for name, c in terms.items() if c))
        return Dim(self.constant + other.constant, kept)

    def __mul__(self, factor: Dim | int) -> Dim:
        terms: dict[str, int] = {}
        for left, a in (("", self.constant), *self.terms):
            for right, b in (("", Dim.of(factor).constant), *Dim.of(factor).terms):
                name = "*".join(sorted(filter(None, (*left.split("*"), *right.split("*")))))
                terms[name] = terms.get(name, 0) + a * b
        constant = terms.pop("", 0)
        return Dim(constant, tuple(sorted((name, c) for name, c in terms.items() if c)))

    def __sub__(self, other: Dim | int) -> Dim:
        other = Dim.of(other)
        return self + Dim(-other.constant, tuple((name, -c) for name, c in other.terms))

    def divided(self, by: Dim) -> Dim | None:
        """Return the quotient by ``by``, a single product of sizes; None if there is none."""
        if by.constant or len(by.terms) != 1 or self.constant:
            return None
        ((product_, coefficient),) = by.terms
        found = Dim()
        for term, c in self.terms:
            names = term.split("*")
            for name in product_.split("*"):
                if name not in names:
                    return None
                names.remove(name)
            if c % coefficient:
                return None
            rest = Dim.of("*".join(names)) if names else ONE
            found = found + rest * (c // coefficient)
        return found

    def __str__(self) -> str:
        parts = [name if c == 1 else f"{c}*{name}" for name, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("-1*", "-").replace("+ -", "- ")

    @property
    def names(self) -> tuple[str, ...]:
        """The size names in the dimension."""
        return tuple(dict.fromkeys(name for term, _ in self.terms for name in term.split("*")))

    def resolve(self, sizes: Mapping[str, int]) -> int:
        """Return the dimension's number; :class:`UsageError` for a size not in ``sizes``."""
        if not self.terms:
            return self.constant
        try:
            return self.constant + sum(
                c * prod([sizes[name] for name in term.split("*")]) for term, c in self.terms
            )
        except KeyError as error:
            (name,) = error.args
            raise UsageError(
                f"size {name!r} of {self} has no number{did_you_mean(name, sizes)} "
                f"(known: {', '.join(sorted(sizes)) or 'none'})"
            ) from None

    def substitute(self, dims: Mapping[str, Dim]) -> Dim:
        """Replace size names by dimensions; names not in ``dims`` stay."""
        result = Dim(self.constant)
        for term, coefficient in self.terms:
            factors = (dims.get(name, Dim.of(name)) for name in term.split("*"))
            result = result + product(factors) * coefficient
        return result


Shape = tuple[Dim, ...]
# Attributes of an operation by name: dimensions, numbers, texts, and tuples.
Attributes = Mapping[str, Any]
ONE = Dim(1)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of dimensions: the length of the axis that they make together."""
    result = ONE
    for dim in dims:
        result = result * dim
    return result


def check_shape(shape: Shape) -> None:
    """Check that frameworks can hold a value of this shape and people can read it.

    Raises:
        SpecError: there are too many axes, or too long sums of sizes; the error has no place.
    """
    if len(shape) > MOST_AXES:
        raise SpecError(f"a value has at most {MOST_AXES} axes, found {len(shape)}")
    named = sum(name.count("*") + 1 for dim in shape for name, _ in dim.terms)
    if named > MOST_NAMED:
        raise SpecError(
            f"the shape of a value names sizes at most {MOST_NAMED} times, found {named}: declare "
            "sizes of their own for its sums and products"
        )


def entries(shape: Iterable[Dim]) -> int:
    """Return a number that is equal for shapes with equally many entries at all sizes.

    It is the number of entries if each size is a large number that only its name decides. So no
    product of sums has to be written out. Different shapes get the same number by chance once in
    2**50 or less.
    """
    return prod(dim.resolve(_LARGE) for dim in shape)


class _LargeSizes(dict[str, int]):
    """A large number for each size name, seeded by the name."""

    def __missing__(self, name: str) -> int:
        self[name] = Random(name).randrange(2**60, 2**61)
        return self[name]


_LARGE = _LargeSizes()


def shape_text(shape: Iterable[Dim]) -> str:
    """Return the text of a shape: ``[batch, time, units]``."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def resolve_shape(shape: Iterable[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape in numbers."""
    return tuple(dim.resolve(sizes) for dim in shape)


def bind(
    name: str, shape: Shape, found: Sequence[int], sizes: Mapping[str, int], bound: dict[str, int]
) -> None:
    """Match an array's shape against a declared one, and add the sizes that it fixes to ``bound``.

    ``sizes`` are fixed already (hidden units, classes). ``bound`` collects those that arrays decide
    (batch, time). Raises :class:`UsageError` if they contradict each other.
    """
    if len(shape) != len(found):
        raise UsageError(
            f"{name}: expected shape {shape_text(shape)}, found {list(found)}: "
            f"{len(found)} axes instead of {len(shape)}"
        )

    def whole() -> str:
        return f"(expected shape {shape_text(shape)}, found {list(found)})"

    for axis, (dim, length) in enumerate(zip(shape, found, strict=True)):
        known = {**sizes, **bound}
        unknown = [size for size in dim.names if size not in known]
        if len(unknown) > 1:
            names = " and ".join(unknown)
            raise UsageError(f"{name}: axis {axis} is {dim}, which does not fix {names} {whole()}")
        if unknown:
            bound[unknown[0]] = _solved(f"{name}: axis {axis}", dim, unknown[0], length, known)
        elif dim.resolve(known) != length:
            wanted = f"{dim} = {dim.resolve(known)}" if dim.names else str(dim)
            raise UsageError(f"{name}: axis {axis} is {wanted}, found {length} {whole()}")


def _solved(label: str, dim: Dim, size: str, length: int, known: Mapping[str, int]) -> int:
    """Return the size that makes ``dim``, linear in it, as long as the array's axis."""
    rest, one, two = (dim.resolve({**known, size: number}) for number in (0, 1, 2))
    value, remainder = divmod(int(length) - rest, one - rest) if one != rest else (0, 0)
    if remainder or value < 1 or two - one != one - rest:
        raise UsageError(f"{label} is {dim}: no {size} of 1 or more makes that {length}")
    return value
