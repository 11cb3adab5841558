"""What the ratios of a record must be, and where they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# What a ratio must be, and from where on it is a failure and not only a miss.
LEAST, FAILURE = 0.97, 0.9
LEAST_NUMPY = 0.95
LEAST_DERIVED = {"torch": 1.5, "jax": 1.2}
LEAST_LOOP = {64: 30.0, 1024: 45.0}
LEAST_PEAK = 0.85
MOST_OVERHEAD = 0.01
MOST_SECONDS = {"--help": 0.5, "list": 1.0}
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
    def measured(self) -> bool:
        """Whether both sides have a speed."""
        return all(self.pair[side]["status"] == "measured" for side in ("ours", "native"))

    @property
    def ratio(self) -> float:
        """How many times as fast as the hand-written code: of medians; 0 without a speed."""
        if not self.measured:
            return 0.0
        return median(self.pair["native"]["seconds"]) / median(self.pair["ours"]["seconds"])

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
        path = f" {self.path}" if self.path else ""
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


def outcome(pair: Pair) -> str:
    """One line on a pair."""
    cell = Cell("", "", "", 0, "", pair)
    if not cell.measured:
        sides = (f"{name}: {pair[name]['status']}: {pair[name]['reason']}" for name in pair)
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
    for backend in sorted({c.backend for c in usual}):
        own = [c for c in usual if c.backend == backend]
        least = LEAST_NUMPY if backend == "numpy" else LEAST
        yield _ratio_target(f"{backend}: at least {least} of hand-written code", own, least)
    for backend, least in LEAST_DERIVED.items():
        own = [c for c in everything if c.path == "derived" and c.backend == backend]
        if own:
            text = f"{backend}: the derived gradient at least {least} times layers and autograd"
            yield _ratio_target(text, own, least)
    for batch, least in LEAST_LOOP.items():
        own = [c for c in everything if c.backend == "python" and c.batch == batch]
        if own:
            text = f"numpy: at least {least:g} times the notebook's loop at batch {batch}"
            yield _ratio_target(text, own, least)
    yield from _peak_target(usual)
    yield _overhead_target(usual)
    for argument, seconds in record["commands"].items():
        most = MOST_SECONDS[argument]
        over = [f"{seconds:.2f} s"] if seconds > most else []
        yield Target(f"`harness {argument}` under {most} s", f"{seconds:.2f} s", over)


def _ratio_target(text: str, own: Sequence[Cell], least: float) -> Target:
    low = [c for c in own if round(c.ratio, 2) < least]
    ratios = [c.ratio for c in own]
    found = f"{min(ratios):.2f} to {max(ratios):.2f}, median {median(ratios):.2f}"
    return Target(text, found, [f"{c}: {c.ratio:.2f}" for c in low])


def _peak_target(usual: Sequence[Cell]) -> Iterator[Target]:
    for cell in usual:
        where = (cell.backend, cell.system, cell.batch, cell.mode)
        if where == ("numpy", "sequence_rnn", 1024, "train") and cell.measured:
            ours = cell.pair["ours"]
            share, large = ours["share_of_own_peak"], ours["share_of_peak"]
            text = (
                f"numpy: at least {LEAST_PEAK:.0%} of the sgemm peak at the model's own sizes, "
                "sequence_rnn at batch 1024"
            )
            found = f"{share:.0%} of the best of any backend ({large:.0%} of that of large squares)"
            yield Target(text, found, [found] if share < LEAST_PEAK else [])


def _overhead_target(usual: Sequence[Cell]) -> Target:
    own = [c for c in usual if c.batch == 64 and c.measured]
    shares = {c: c.pair["ours"]["overhead"]["share"] for c in own}
    over = [f"{c}: {share:.2%}" for c, share in shares.items() if share > MOST_OVERHEAD]
    found = f"{median(shares.values()):.2%}, at most {max(shares.values()):.2%}" if shares else "-"
    return Target(
        f"the harness's own cost under {MOST_OVERHEAD:.0%} of a step at batch 64", found, over
    )
