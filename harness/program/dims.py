"""Symbolic dimensions: sums of products of size names, e.g. ``heads * head + vocab``.

A program works for any batch size and number of steps. Its shapes therefore contain names, which
are replaced by numbers when the arrays are known. Concatenating adds dimensions, slicing subtracts
them, and merging axes multiplies them. A quotient of dimensions is possible only if it is a
dimension again, see :meth:`Dim.divided`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

from harness.errors import SpecError, UsageError, did_you_mean

# Limits, because a few short equations could produce huge symbolic sizes. A dimension has at most
# MOST_TERMS products of at most MOST_FACTORS sizes each, and no number above LARGEST. A shape has
# at most MOST_AXES axes (the limit of numpy 1) and MOST_NAMED size names, so that people can read
# it.
MOST_TERMS, MOST_FACTORS, LARGEST = 32, 8, 2**63 - 1
MOST_AXES, MOST_NAMED = 32, 100


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension ``constant + sum(coefficient * product)``, e.g. ``4 + 2 * heads * head``.

    ``terms`` are pairs (product, coefficient), sorted, with coefficients that are not 0. A product
    is the text of its size names in alphabetical order, e.g. ``head*heads``.

    Raises:
        SpecError: the dimension exceeds a limit of this module; the error has no position.
    """

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.terms) > MOST_TERMS:
            raise SpecError(
                f"a size can be a sum of at most {MOST_TERMS} products of sizes, "
                f"found {len(self.terms)}: declare a new size for a part of the sum"
            )
        factors = max((name.count("*") + 1 for name, _ in self.terms), default=0)
        if factors > MOST_FACTORS:
            raise SpecError(
                f"a size can be a product of at most {MOST_FACTORS} sizes, found {factors}: "
                "declare a new size for a part of the product"
            )
        if max(abs(self.constant), *(abs(c) for _, c in self.terms), 0) > LARGEST:
            raise SpecError(f"a size can be at most {LARGEST:,}")

    @staticmethod
    def of(value: Dim | int | str) -> Dim:
        """Convert a number or a size name to a dimension."""
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
        nonzero = tuple(sorted((name, c) for name, c in terms.items() if c))
        return Dim(self.constant + other.constant, nonzero)

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
        """Return the quotient by ``by``, which must be a number or a single product of sizes; None
        if it does not divide this dimension."""
        if by.constant and not by.terms:
            numbers = (self.constant, *(c for _, c in self.terms))
            if any(number % by.constant for number in numbers):
                return None
            terms = tuple((name, c // by.constant) for name, c in self.terms)
            return Dim(self.constant // by.constant, terms)
        if by.constant or len(by.terms) != 1 or self.constant:
            return None
        ((product_, coefficient),) = by.terms
        quotient = Dim()
        for term, c in self.terms:
            names = term.split("*")
            for name in product_.split("*"):
                if name not in names:
                    return None
                names.remove(name)
            if c % coefficient:
                return None
            factor = Dim.of("*".join(names)) if names else ONE
            quotient = quotient + factor * (c // coefficient)
        return quotient

    def __str__(self) -> str:
        parts = [name if c == 1 else f"{c}*{name}" for name, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("-1*", "-").replace("+ -", "- ")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sizes that occur in the dimension."""
        return tuple(dict.fromkeys(name for term, _ in self.terms for name in term.split("*")))

    def resolve(self, sizes: Mapping[str, int]) -> int:
        """Return the dimension as a number. Raises :class:`UsageError` if ``sizes`` lacks a size of
        the dimension."""
        if not self.terms:
            return self.constant
        try:
            return self.constant + sum(
                c * prod([sizes[name] for name in term.split("*")]) for term, c in self.terms
            )
        except KeyError as error:
            (name,) = error.args
            raise UsageError(
                f"the size {name!r} in {self} has no value{did_you_mean(name, sizes)} "
                f"(known: {', '.join(sorted(sizes)) or 'none'})"
            ) from None

    def substitute(self, dims: Mapping[str, Dim]) -> Dim:
        """Return this dimension after each size name in ``dims`` is replaced by its dimension in
        ``dims``."""
        result = Dim(self.constant)
        for term, coefficient in self.terms:
            factors = (dims.get(name, Dim.of(name)) for name in term.split("*"))
            result = result + product(factors) * coefficient
        return result


Shape = tuple[Dim, ...]
# Attributes of an operation by name; the values are dimensions, numbers, strings or tuples.
Attributes = Mapping[str, Any]
ONE = Dim(1)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of dimensions. If the axes with these dimensions are merged into one axis,
    the product is its length."""
    result = ONE
    for dim in dims:
        result = result * dim
    return result


def check_shape(shape: Shape) -> None:
    """Check that a shape does not have too many axes for frameworks, or too many different size
    names.

    Raises:
        SpecError: there are too many axes or size names; the error has no position in a file.
    """
    if len(shape) > MOST_AXES:
        raise SpecError(f"a value can have at most {MOST_AXES} axes, found {len(shape)}")
    name_count = sum(name.count("*") + 1 for dim in shape for name, _ in dim.terms)
    if name_count > MOST_NAMED:
        raise SpecError(
            f"the shape of a value can name sizes at most {MOST_NAMED} times, found {name_count}: "
            "declare new sizes for the sums and products in the shape"
        )


def entries(shape: Iterable[Dim]) -> int:
    """Return a number by which the entry counts of two shapes with symbolic sizes can be compared.

    If two shapes have equally many entries at all sizes, they get the same number: the product of
    their dimensions, with a large random number in place of each size name. Other shapes get the
    same number with a probability of at most 2**-50.
    """
    return prod(dim.resolve(_LARGE) for dim in shape)


class _LargeSizes(dict[str, int]):
    """A mapping from each size name to a large random number; the name is the seed, so that the
    number is the same in every process."""

    def __missing__(self, name: str) -> int:
        self[name] = Random(name).randrange(2**60, 2**61)
        return self[name]


_LARGE = _LargeSizes()


def shape_text(shape: Iterable[Dim]) -> str:
    """Return a shape as text, e.g. ``[batch, time, units]``."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def resolve_shape(shape: Iterable[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a symbolic shape as numbers; ``sizes`` maps the names of sizes to numbers."""
    return tuple(dim.resolve(sizes) for dim in shape)


def bind(
    name: str,
    shape: Shape,
    actual_shape: Sequence[int],
    sizes: Mapping[str, int],
    bound: dict[str, int],
) -> None:
    """Check the shape of the array ``name`` (``actual_shape``) against its declared symbolic
    ``shape``.

    ``sizes`` has the sizes of the spec, e.g. hidden units. The arrays decide the other sizes
    (batch, time). The first array with such a size adds it to the dictionary ``bound``. Raises
    :class:`UsageError` if the array has a different shape, or if two arrays disagree on a size.
    """
    if len(shape) != len(actual_shape):
        raise UsageError(
            f"{name}: expected shape {shape_text(shape)}, found {list(actual_shape)}: "
            f"{len(actual_shape)} {'axis' if len(actual_shape) == 1 else 'axes'} instead of "
            f"{len(shape)}"
        )

    def shapes_text() -> str:
        return f"(expected shape {shape_text(shape)}, found {list(actual_shape)})"

    for axis, (dim, length) in enumerate(zip(shape, actual_shape, strict=True)):
        all_sizes = {**sizes, **bound}
        unknown = [size for size in dim.names if size not in all_sizes]
        if len(unknown) > 1:
            names = " and ".join(unknown)
            raise UsageError(
                f"{name}: axis {axis} is {dim}, which does not determine {names} {shapes_text()}"
            )
        if unknown:
            bound[unknown[0]] = _solve_size(
                f"{name}: axis {axis}", dim, unknown[0], length, all_sizes
            )
        elif dim.resolve(all_sizes) != length:
            expected = f"{dim} = {dim.resolve(all_sizes)}" if dim.names else str(dim)
            raise UsageError(f"{name}: axis {axis} is {expected}, found {length} {shapes_text()}")


def _solve_size(
    label: str, dim: Dim, size: str, length: int, known_sizes: Mapping[str, int]
) -> int:
    """Solve ``dim == length`` for the size name ``size``, and return its number. ``dim`` must be
    linear in this size. ``label`` names the array in error messages."""
    at_zero, at_one, at_two = (dim.resolve({**known_sizes, size: number}) for number in (0, 1, 2))
    value, remainder = (
        divmod(int(length) - at_zero, at_one - at_zero) if at_one != at_zero else (0, 0)
    )
    if remainder or value < 1 or at_two - at_one != at_one - at_zero:
        raise UsageError(f"{label} is {dim}: no {size} of 1 or more gives the length {length}")
    return value
