"""Sizes that are asked for on several specs at once: each applies where a spec has it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from harness.errors import UsageError, did_you_mean
from harness.language.size_expressions import FREE_SIZES

T = TypeVar("T")
# How many specs are named in a message; of more it is only told how many there are.
NAMED = 12


def known_sizes(spec_sizes: Iterable[str], asked: Mapping[str, T]) -> dict[str, T]:
    """Those of the sizes asked for that a spec has, ``batch`` and ``time`` among them."""
    known = {*spec_sizes, *FREE_SIZES}
    return {name: size for name, size in asked.items() if name in known}


def check_asked(
    asked: Iterable[str],
    sizes: Mapping[str, Collection[str]],
    free: Sequence[str] = FREE_SIZES,
) -> list[str]:
    """In words, which specs each size applies to, where these are not all of them.

    ``sizes`` are the names of each spec's own; ``free`` are those that all of them have.

    Raises:
        UsageError: no spec has a size of that name.
    """
    told = []
    for name in asked:
        having = [spec for spec, own in sizes.items() if name in own]
        if name in free or len(having) == len(sizes):
            continue
        if not having:
            known = tuple(dict.fromkeys([n for own in sizes.values() for n in own] + [*free]))
            who = f"the {len(sizes)} specs have" if len(sizes) > 1 else f"{next(iter(sizes))} has"
            raise UsageError(
                f"{who} no size {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})"
            )
        listed = ", ".join(having) if len(having) <= NAMED else f"{len(having)} specs"
        others = len(sizes) - len(having)
        lacking = "1 other has none" if others == 1 else f"{others} others have none"
        told.append(f"--size {name} applies to {listed}; {lacking} of that name")
    return told
