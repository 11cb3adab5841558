"""Long listings made short: layers of a chain that are alike stand there once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

# So many links of a chain that are alike are all shown.
MOST_ALIKE = 4
# Beyond these a listing and a line are cut: the longest model that ships has 1,200 lines.
MOST_LINES, LONGEST = 5000, 500
# The name of a chain, and the number of its link.
_LINK = re.compile(r"([A-Za-z_]\w*)\.(\d+)(?![\w])")


def shortened(parts: Iterable[tuple[str, list[str]]], margin: str = "  ") -> list[str]:
    """Return the lines of some parts of a listing, each with the name that it belongs to.

    Links of a chain (``blocks.3``) that only differ in their number stand there once.
    """
    links = ((_link(name), lines) for name, lines in parts)
    joined = [
        (link, [line for _, lines in group for line in lines])
        for link, group in groupby(links, key=lambda part: part[0])
    ]
    found: list[str] = []
    for _, group in groupby(joined, key=lambda part: _form(*part)):
        alike = [*group]
        shown = alike if len(alike) <= MOST_ALIKE else alike[:1]
        found += [line for _, lines in shown for line in lines]
        if shown is not alike:
            (chain, first), (_, second), (_, last) = (alike[n][0] for n in (0, 1, -1))
            found.append(f"{margin}{chain}.{second} to {chain}.{last}: as {chain}.{first}")
    return cut(found)


def cut(lines: list[str]) -> list[str]:
    """Return so many lines, and of each so much, as a person may want to read."""
    left = len(lines) - MOST_LINES
    shown = [f"{line[:LONGEST]}..." if line[LONGEST:] else line for line in lines[:MOST_LINES]]
    return [*shown, *([f"and {left:,} more lines (--json has all)"] if left > 0 else [])]


def _link(name: str) -> tuple[str, str]:
    """The outermost chain that a name is in, and its link; the name itself if it is in none."""
    found = _LINK.match(name)
    return (found[1], found[2]) if found else (name, "")


def _form(link: tuple[str, str], lines: list[str]) -> tuple[str, str]:
    """Return the key that alike links share; a part outside of a chain has its own."""
    chain, number = link
    if not number:
        return chain, ""
    values: dict[str, str] = {}
    text = re.sub(
        rf"\b{re.escape(chain)}\.(\d+)\b",
        lambda found: f"{chain}.[{int(found[1]) - int(number)}]",
        "\n".join(re.sub(" +", " ", line) for line in lines),
    )
    # Values without a name go by the order in which they are met.
    return chain, re.sub(r"%\d+", lambda v: values.setdefault(v[0], f"%[{len(values)}]"), text)
