"""Symbolic dimensions: linear expressions over size names, such as ``hidden + vocab``.

A program is written for any batch and any time length, so its shapes hold names; numbers enter
only when arrays do. Linear is enough: concatenation adds, slicing subtracts, and nothing in the
language multiplies two dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Dim:
    """``constant + sum(coefficient * name)``; terms are sorted and never zero."""

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
        terms = dict(self.terms)
        for name, coefficient in other.terms:
            terms[name] = terms.get(name, 0) + coefficient
        kept = tuple(sorted((name, c) for name, c in terms.items() if c))
        return Dim(self.constant + other.constant, kept)

    def __mul__(self, factor: int) -> Dim:
        if not factor:
            return Dim()
        return Dim(self.constant * factor, tuple((n, c * factor) for n, c in self.terms))

    def __sub__(self, other: Dim | int) -> Dim:
        return self + Dim.of(other) * -1

    def __str__(self) -> str:
        parts = [name if c == 1 else f"{c}*{name}" for name, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("-1*", "-").replace("+ -", "- ")

    @property
    def names(self) -> tuple[str, ...]:
        """The size names that it depends on."""
        return tuple(name for name, _ in self.terms)

    def resolve(self, sizes: Mapping[str, int]) -> int:
        """The number that it stands for; :class:`UsageError` for a size not in ``sizes``."""
        for name, _ in self.terms:
            if name not in sizes:
                raise UsageError(
                    f"size {name!r} of {self} has no number{did_you_mean(name, sizes)} "
                    f"(known: {', '.join(sorted(sizes)) or 'none'})"
                )
        return self.constant + sum(c * sizes[name] for name, c in self.terms)

    def substitute(self, dims: Mapping[str, Dim]) -> Dim:
        """Replace size names by dimensions; names not in ``dims`` stay."""
        result = Dim(self.constant)
        for name, coefficient in self.terms:
            result = result + dims.get(name, Dim.of(name)) * coefficient
        return result


Shape = tuple[Dim, ...]
ONE = Dim(1)


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
    for axis, (dim, length) in enumerate(zip(shape, found, strict=True)):
        whole = f"(expected shape {shape_text(shape)}, found {list(found)})"
        known = {**sizes, **bound}
        unknown = [term for term in dim.terms if term[0] not in known]
        if len(unknown) > 1:
            names = " and ".join(size for size, _ in unknown)
            raise UsageError(f"{name}: axis {axis} is {dim}, which does not fix {names} {whole}")
        if unknown:
            bound[unknown[0][0]] = _solved(f"{name}: axis {axis}", dim, unknown[0], length, known)
        elif dim.resolve(known) != length:
            raise UsageError(
                f"{name}: axis {axis} is {dim} = {dim.resolve(known)}, found {length} {whole}"
            )


def _solved(
    label: str, dim: Dim, term: tuple[str, int], length: int, known: Mapping[str, int]
) -> int:
    """The size that makes ``dim`` as long as the array's axis."""
    size, coefficient = term
    rest = dim - Dim(0, (term,))
    value, remainder = divmod(int(length) - rest.resolve(known), coefficient)
    if remainder or value < 1:
        raise UsageError(f"{label} is {dim}: no {size} of 1 or more makes that {length}")
    return value
