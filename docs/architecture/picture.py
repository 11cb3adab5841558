"""Draw ``packages.svg``: the packages of ``harness/`` in levels, with an arrow for each import.

    python docs/architecture/picture.py

The module :mod:`levels` reads the imports and defines the levels. This file defines only the
horizontal position and the text of each box. The same source gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import levels

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_name("packages.svg")
COMMAND = "python docs/architecture/picture.py"

# The horizontal centre of each package's box, and the text in the box.
BOXES: Mapping[str, tuple[int, str]] = {
    "harness": (150, "load, check, bench, ..."),
    "cli": (480, "how a command starts and ends"),
    "backends": (820, "numpy, torch, jax, keras, onnx"),
    "suite": (112, "the checks as a pytest suite"),
    "commands": (364, "the group of commands"),
    "api": (480, "the functions of import harness"),
    "extend": (868, "all that a backend imports"),
    "fuzz": (868, "random models that find faults"),
    "completion_values": (364, "values that shells suggest"),
    "report": (364, "a page of what was found"),
    "demo": (616, "a first look"),
    "scaffold": (868, "a new backend's package"),
    "porting": (112, "a user's model as a spec"),
    "upstream": (868, "what a bug report needs"),
    "comparison": (112, "what changed"),
    "training": (364, "train, checkpoint, write on"),
    "given": (616, "numbers of a user's own"),
    "checking": (112, "who agrees"),
    "timing": (364, "how fast, with proofs"),
    "convert": (616, "weights and models, in and out"),
    "defaults": (868, "where defaults differ"),
    "results": (300, "what came of a run"),
    "oracle": (150, "the float64 reference"),
    "worker": (490, "a process for each backend"),
    "caching": (112, "code and noise, kept"),
    "text": (340, "texts as indices"),
    "environments": (590, "other versions, made once"),
    "cluster": (830, "processes on many machines"),
    "language": (270, "YAML to program"),
    "runtime": (660, "program and one framework"),
    "program": (470, "equations, and their rewriting"),
}
# Every package may import the packages below this one, so their boxes have no arrows.
LOWEST = "program"
# Boxes above all levels: the file ``harness/__init__.py``, and the folder of backends.
GUESTS = ("harness", "backends")
# The colours of arrows to these packages; all other arrows are grey.
COLOURS: Mapping[str, str] = {
    "oracle": "#cf4f5f",
    "worker": "#8d6cc4",
    "text": "#a8842c",
    "language": "#2f9a5d",
    "runtime": "#d67f2a",
    "program": "#3f80d6",
}
WIDTH, HEIGHT, STEP, TOP = 204, 44, 94, 16
CANVAS, ARROW, MARGIN, LANE = 980, 7, 8, 5
# The width of an arrow: (least number of imports, width).
THICK = ((1, 1.0), (5, 2.0), (15, 3.5), (30, 5.5))
STYLE = """
  svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #8c959f; --box: #eef4fb;
        --edge: #54799f; --base: #f3f4f6; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --soft: #9ba4ae; --line: #7d8590; --box: #17263a;
          --edge: #6d9bd1; --base: #1c2128; }
  }
  .paper { fill: var(--paper); }
  text { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif; text-anchor: middle;
         fill: var(--soft); }
  .name { font: 600 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
          fill: var(--ink); }
  .package { fill: var(--box); stroke: var(--edge); stroke-width: 1.2; }
  .guest { fill: var(--paper); stroke: var(--edge); stroke-width: 1.2; stroke-dasharray: 4 3; }
  .base { fill: var(--base); stroke: none; }
  .arrow { fill: none; stroke: var(--line); }
  .tip { fill: var(--line); }
""" + "".join(
    f"  .arrow.{name}, .package.{name} {{ stroke: {colour}; }} .tip.{name} {{ fill: {colour}; }}\n"
    for name, colour in COLOURS.items()
)
Point = tuple[float, float]


@dataclass(frozen=True)
class Arrow:
    """An arrow from a package to a package that it imports, with the number of imports."""

    source: str
    target: str
    imports: int

    @property
    def width(self) -> float:
        """The width of the arrow's line."""
        return max(width for least, width in THICK if self.imports >= least)


def drawn_levels() -> list[tuple[str, ...]]:
    """Return the packages that have arrows, by level from the top."""
    last = next(n for n, level in enumerate(levels.LEVELS) if LOWEST in level)
    return [GUESTS + levels.LEVELS[0], *levels.LEVELS[1 : last + 1]]


def base() -> list[str]:
    """Return the packages that have no arrows."""
    shown = {name for level in drawn_levels() for name in level}
    return [name for level in levels.LEVELS for name in level if name not in shown]


def arrows(found: Sequence[levels.Import]) -> list[Arrow]:
    """Return the arrows between packages. Each pair of modules is counted as one import."""
    pairs = {(one.source, one.target) for one in found}
    counts: dict[tuple[str, str], int] = {}
    for source, target in pairs:
        own, other = _box(source), _box(target)
        if own != other and own in BOXES and other in BOXES and other != "harness":
            counts[own, other] = counts.get((own, other), 0) + 1
    return [Arrow(*names, count) for names, count in sorted(counts.items())]


def _box(module: str) -> str:
    if module.startswith("harness.backends"):
        return "backends"
    return levels.package(module) if module.partition(".")[0] == "harness" else ""


def picture(found: Sequence[levels.Import]) -> str:
    """Return the picture as SVG text."""
    drawn = drawn_levels()
    missing = {name for level in drawn for name in level} - BOXES.keys()
    assert not missing, f"give {', '.join(sorted(missing))} a place in BOXES of {COMMAND}"
    bottom = TOP + STEP * len(drawn) - 24
    height = bottom + 62
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {CANVAS} {height}" '
        f'width="{CANVAS}" height="{height}" role="img">',
        "<title>The packages of harness/ and their imports</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{CANVAS}" height="{height}"/>',
        *_arrows(drawn, arrows(found)),
    ]
    for number, level in enumerate(drawn):
        for name in level:
            lines += _package(name, TOP + STEP * number)
    lines += _base(bottom)
    return "\n".join([*lines, "</svg>", ""])


def _package(name: str, top: int) -> Iterator[str]:
    middle, text = BOXES[name]
    kind = "guest" if name in GUESTS else "package"
    yield (
        f'<rect class="{kind} {name}" x="{middle - WIDTH // 2}" y="{top}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="7"/>'
    )
    yield f'<text class="name" x="{middle}" y="{top + 19}">{escape(name)}</text>'
    yield f'<text x="{middle}" y="{top + 35}">{escape(text)}</text>'


def _base(top: int) -> Iterator[str]:
    yield f'<rect class="base" x="16" y="{top}" width="{CANVAS - 32}" height="{HEIGHT}" rx="7"/>'
    names = " · ".join(sorted(base()))
    yield f'<text class="name" x="{CANVAS // 2}" y="{top + 19}">{escape(names)}</text>'
    yield f'<text x="{CANVAS // 2}" y="{top + 35}">every package may import these: no arrows</text>'


def _arrows(drawn: Sequence[Sequence[str]], found: Sequence[Arrow]) -> Iterator[str]:
    level_of = {name: n for n, level in enumerate(drawn) for name in level}
    ways = {arrow: _way(arrow, drawn, level_of) for arrow in found}
    starts = _ports(found, ways, "source")
    ends = _ports(found, ways, "target")
    # Draw thick arrows last, so that they lie above thin arrows.
    for arrow in sorted(found, key=lambda a: (a.width, a.source, a.target)):
        top = TOP + STEP * level_of[arrow.source] + HEIGHT
        bottom = TOP + STEP * level_of[arrow.target]
        points = [(starts[arrow], top), *ways[arrow], (ends[arrow], bottom - ARROW)]
        yield (
            f'<path class="arrow {arrow.target}" stroke-width="{arrow.width}" d="{_curve(points)}">'
            f"<title>{arrow.source} imports {arrow.target}</title></path>"
        )
        x, half, edge = ends[arrow], 3 + arrow.width / 2, bottom - ARROW - 1
        outline = f"M{x - half:.1f} {edge}H{x + half:.1f}L{x:.1f} {bottom - 0.5}Z"
        yield f'<path class="tip {arrow.target}" d="{outline}"/>'


def _way(arrow: Arrow, drawn: Sequence[Sequence[str]], level_of: Mapping[str, int]) -> list[Point]:
    """Return the points of an arrow at the levels between its ends. It passes vertically between
    the boxes there."""
    first, last = level_of[arrow.source], level_of[arrow.target]
    begin, end = BOXES[arrow.source][0], BOXES[arrow.target][0]
    points: list[Point] = []
    for number in range(first + 1, last):
        straight = begin + (end - begin) * (number - first) / (last - first)
        x = _outside_boxes(straight, drawn[number], arrow.target)
        top = TOP + STEP * number
        points += [(x, top - MARGIN), (x, top + HEIGHT + MARGIN)]
    return points


def _outside_boxes(straight: float, level: Sequence[str], target: str) -> float:
    """Return the horizontal position outside all boxes of a level that is nearest to ``straight``.
    Arrows to the same package have the same distance from the box."""
    lane = list(COLOURS).index(target) if target in COLOURS else -1
    distance = WIDTH / 2 + MARGIN + LANE * (1 + lane)
    for middle in sorted((BOXES[box][0] for box in level), key=lambda x: abs(x - straight)):
        if abs(straight - middle) < distance:
            return middle + (distance if straight >= middle else -distance)
    return straight


def _ports(
    found: Sequence[Arrow], ways: Mapping[Arrow, Sequence[Point]], end: str
) -> dict[Arrow, float]:
    """Return the horizontal position at which each arrow touches its box (``end`` is "source" or
    "target"). Arrows are sorted by the position of their other end."""
    places: dict[Arrow, float] = {}
    for name, (middle, _) in BOXES.items():
        here = [arrow for arrow in found if getattr(arrow, end) == name]

        def far(arrow: Arrow) -> float:
            way = ways[arrow]
            if way:
                return way[0][0] if end == "source" else way[-1][0]
            return BOXES[arrow.target if end == "source" else arrow.source][0]

        here.sort(key=lambda arrow: (far(arrow), arrow.source, arrow.target))
        gap = min(26.0, (WIDTH - 24) / max(len(here), 1))
        for number, arrow in enumerate(here):
            places[arrow] = middle + gap * (number - (len(here) - 1) / 2)
    return places


def _curve(points: Sequence[Point]) -> str:
    """Return the SVG path of a curve through points, which is vertical at every point."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        half = (to_y - y) / 2
        text += f"C{x:.1f} {y + half:.1f} {to_x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y:.1f}"
    return text


if __name__ == "__main__":
    PICTURE.write_text(picture(levels.imports(ROOT)), encoding="utf-8")
