"""Symbolic dimensions: sums of products of size names, such as ``heads * head + vocab``.

A program is written for any batch and any time length, so its shapes hold names; numbers enter
only when arrays do. Concatenation adds, slicing subtracts, joining axes multiplies; nothing in
the language divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from harness.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Dim:
    """``constant + sum(coefficient * product)``; terms are sorted and never zero.

    A product is written as its names in order with ``*`` between them: ``head*heads``.
    """

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(value: Dim | int | str) -> Dim:
        """The dimension that a number or a size name stands for."""
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
        """The dimension that ``by``, a single product of sizes, goes into as often; None where
        that is none."""
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
        """The size names that it depends on."""
        return tuple(dict.fromkeys(name for term, _ in self.terms for name in term.split("*")))

    def resolve(self, sizes: Mapping[str, int]) -> int:
        """The number that it stands for; :class:`UsageError` for a size not in ``sizes``."""
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
ONE = Dim(1)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dimensions: the length of the axis that they make together."""
    result = ONE
    for dim in dims:
        result = result * dim
    return result


def shape_text(shape: Iterable[Dim]) -> str:
    """``[batch, time, units]``."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def resolve_shape(shape: Iterable[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape in numbers."""
    return tuple(dim.resolve(sizes) for dim in shape)


def bind(
    name: str, shape: Shape, found: Sequence[int], sizes: Mapping[str, int], bound: dict[str, int]
) -> None:
    """Match an array's shape against a declared one, adding the sizes that it fixes to ``bound``.

    ``sizes`` are fixed already (hidden units, classes); ``bound`` collects those that arrays may
    choose (batch, time). Raises :class:`UsageError` where they contradict each other.
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
    """The size that makes ``dim``, in which it is no square, as long as the array's axis."""
    rest, one, two = (dim.resolve({**known, size: number}) for number in (0, 1, 2))
    value, remainder = divmod(int(length) - rest, one - rest) if one != rest else (0, 0)
    if remainder or value < 1 or two - one != one - rest:
        raise UsageError(f"{label} is {dim}: no {size} of 1 or more makes that {length}")
    return value
