"""What the ratios of a record must be, and where they are not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ratio_systems import MODELS, REAL

# The lowest ratio that is allowed.
LEAST = 0.97
LEAST_NUMPY = 0.95
LEAST_DERIVED = {"torch": 1.5, "jax": 1.2}
LEAST_LOOP = {64: 30.0, 1024: 45.0}
LEAST_PEAK = 0.85
MOST_OVERHEAD = 0.01
MOST_SECONDS = {"--help": 0.5, "list": 1.0}
# What else a framework offers for the same code, by backend and mode.
OTHERS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("torch", "train"): ("torch-compile",),
    ("torch", "forward"): ("torch-compile", "onnxruntime"),
}
# By hand there are no models in it: their layers are not one operator each.
LESSON6_ONLY = frozenset({"onnxruntime"})
# Pairs have the names of REAL, groups those of their specs.
REAL_SPECS = frozenset({*REAL, *(real.spec for real in REAL.values())})
KEY = re.compile(
    r"(?P<spec>.+)\[(?P<backend>.+)-(?P<mode>train|forward)-b(?P<batch>\d+)-t\d+\](?P<path>.*)"
)
Record = Mapping[str, Any]
Pair = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """A pair of the record under its parts."""

    spec: str
    backend: str
    mode: str
    batch: int
    path: str
    pair: Pair

    @property
    def system(self) -> str:
        """The name of the spec without its folder."""
        return self.spec.rpartition("/")[2]

    @property
    def of_models(self) -> bool:
        """Whether it is of one of the models, and not of Lesson 6."""
        return self.spec in MODELS

    @property
    def group(self) -> str:
        """The models that it belongs to, as targets name them; empty for Lesson 6."""
        return "real sizes" if self.spec in REAL else "models" if self.of_models else ""

    @property
    def memory_ratio(self) -> float:
        """The peak memory of the spec, divided by that of the best code by hand."""
        return float(self.pair["ours"]["memory"] / self.by_hand[self.best]["memory"])

    @property
    def measured(self) -> bool:
        """Whether the spec and the hand-written layers have a speed."""
        return all(self.pair[side]["status"] == "measured" for side in ("ours", "native"))

    @property
    def by_hand(self) -> dict[str, Pair]:
        """What was timed beside the spec and has a speed: ``layers``, and a framework's other ways.

        A record from before there were others has none.
        """
        every = {"layers": self.pair["native"], **self.pair.get("others", {})}
        return {name: side for name, side in every.items() if side["status"] == "measured"}

    @property
    def best(self) -> str:
        """The fastest of :attr:`by_hand`."""
        return min(self.by_hand, key=lambda name: median(self.by_hand[name]["seconds"]))

    @property
    def ratio(self) -> float:
        """How many times as fast as the best code by hand: of medians; 0 without a speed."""
        return self.ratio_to(self.best) if self.measured else 0.0

    @property
    def layers_ratio(self) -> float:
        """How many times as fast as layers and the framework's own gradient; 0 without a speed."""
        return self.ratio_to("layers") if self.measured else 0.0

    def ratio_to(self, name: str) -> float:
        """How many times as fast as one of :attr:`by_hand`."""
        return median(self.by_hand[name]["seconds"]) / median(self.pair["ours"]["seconds"])

    @property
    def ran(self) -> str:
        """The path that ran: native only where something of the framework's own was in it."""
        ours = self.pair["ours"]
        labels = {label for name, label in ours.get("paths", {}).items() if name != "optimizer"}
        if ours["path"] != "native" or labels != {"equations"}:
            return str(ours["path"])
        # A forward pass is then the plan; and numpy has no gradient of its own.
        derived = self.mode == "forward" or self.backend == "numpy"
        return "derived" if derived else "equations"

    def __str__(self) -> str:
        path = f", path {self.path}" if self.path else ""
        return f"{self.system} on {self.backend}, {self.mode} at batch {self.batch}{path}"


def cells(record: Record) -> list[Cell]:
    """All pairs of a record."""
    found = []
    for name, pair in record["pairs"].items():
        match = KEY.fullmatch(name)
        assert match, name
        parts = match.groupdict()
        batch, path = int(parts.pop("batch")), parts.pop("path").strip()
        found.append(Cell(**parts, batch=batch, path=path, pair=pair))
    return found


def other_ways(backend: str, mode: str, spec: str) -> tuple[str, ...]:
    """What is timed beside the layers of a backend's framework."""
    ways = OTHERS.get((backend, mode), ())
    of_lesson6 = spec not in MODELS and spec not in REAL_SPECS
    return tuple(way for way in ways if of_lesson6 or way not in LESSON6_ONLY)


def untimed(pair: Pair, backend: str, mode: str, spec: str) -> set[str]:
    """The other ways of a framework that a pair is without."""
    return set(other_ways(backend, mode, spec)) - pair.get("others", {}).keys()


def outcome(pair: Pair) -> str:
    """One line on a pair."""
    cell = Cell("", "", "", 0, "", pair)
    if not cell.measured:
        both = {name: pair[name] for name in ("ours", "native")}
        sides = (f"{name}: {side['status']}: {side['reason']}" for name, side in both.items())
        return "; ".join(text for text in sides if ": measured" not in text)
    ours = pair["ours"]
    return (
        f"{cell.ratio:.2f} times as fast as by hand, {thousands(ours)} thousand/s ({ours['path']})"
    )


def thousands(side: Mapping[str, Any]) -> str:
    """Thousand characters a second."""
    return f"{side['rate']['median'] / 1000:,.1f}"


@dataclass(frozen=True)
class Target:
    """Something that must hold, and whether it does. ``misses`` says where it does not."""

    text: str
    found: str
    misses: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """For the table."""
        return f"missed in {len(self.misses)}" if self.misses else "holds"


def missed(record: Record) -> list[str]:
    """A line for each miss."""
    return [f"{t.text}: {miss}" for t in targets(record) for miss in t.misses]


def targets(record: Record) -> Iterator[Target]:
    """All that is asked for, in the order of the page."""
    everything = cells(record)
    usual = [c for c in everything if not c.path and c.backend != "python"]
    for group in ("", "models", "real sizes"):
        for backend in sorted({c.backend for c in usual if c.group == group}):
            own = [c for c in usual if c.backend == backend and c.group == group]
            least = LEAST_NUMPY if backend == "numpy" else LEAST
            text = f"{backend}{group and ', '}{group}: at least {least}"
            yield _ratio_target(text, own, least)
    for backend, least in LEAST_DERIVED.items():
        own = [c for c in everything if c.path == "derived" and c.backend == backend]
        if own:
            text = (
                f"{backend}: derived gradient at least {least} times as fast as hand-written layers"
            )
            yield _ratio_target(text, own, least, lambda c: c.layers_ratio)
    for batch, least in LEAST_LOOP.items():
        own = [c for c in everything if c.backend == "python" and c.batch == batch]
        if own:
            text = (
                f"numpy: at least {least:g} times as fast as the notebook's loop at batch {batch}"
            )
            yield _ratio_target(text, own, least)
    yield from _peak_target(usual)
    yield _overhead_target(usual)
    for argument, seconds in record["commands"].items():
        most = MOST_SECONDS[argument]
        over = [f"{seconds:.2f} s"] if seconds > most else []
        yield Target(f"`harness {argument}` under {most} s", f"{seconds:.2f} s", over)


def _ratio_target(
    text: str,
    own: Sequence[Cell],
    least: float,
    ratio: Callable[[Cell], float] = lambda cell: cell.ratio,
) -> Target:
    ratios = {cell: ratio(cell) for cell in own}
    low = [
        f"{cell}, ratio {found:.2f}" for cell, found in ratios.items() if round(found, 2) < least
    ]
    every = ratios.values()
    found = f"{min(every):.2f}"
    if len(every) > 1:
        found += f" to {max(every):.2f}, median {median(every):.2f}"
    return Target(text, found, low)


def _peak_target(usual: Sequence[Cell]) -> Iterator[Target]:
    for cell in usual:
        where = (cell.backend, cell.system, cell.batch, cell.mode)
        if where == ("numpy", "sequence_rnn", 1024, "train") and cell.measured:
            ours = cell.pair["ours"]
            share, large = ours["share_of_own_peak"], ours["share_of_peak"]
            text = (
                f"numpy: matrix products reach {LEAST_PEAK:.0%} of the fastest backend's speed "
                "(sequence_rnn, batch 1024)"
            )
            found = f"{share:.0%} of this speed ({large:.0%} of the speed of large products)"
            yield Target(text, found, [found] if share < LEAST_PEAK else [])


def _overhead_target(usual: Sequence[Cell]) -> Target:
    own = [c for c in usual if c.batch == 64 and c.measured]
    shares = {c: c.pair["ours"]["overhead"]["share"] for c in own}
    over = [f"{c}, {share:.2%}" for c, share in shares.items() if share > MOST_OVERHEAD]
    found = (
        f"median {median(shares.values()):.2%}, at most {max(shares.values()):.2%}"
        if shares
        else "-"
    )
    return Target(
        f"harness: under {MOST_OVERHEAD:.0%} of the time of a step at batch 64", found, over
    )
