"""Two files of results: what got faster, slower, more or less accurate, beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.bench.noise import beyond_noise
from harness.errors import UsageError

Verdict = Literal["faster", "slower", "same", "lost", "gained", "missing", "new", "without"]
REGRESSIONS = frozenset({"slower", "lost"})
# The error of the results must change by this factor to be spoken of.
ACCURACY = 2.0


@dataclass(frozen=True)
class Change:
    """One cell in both files. Seconds are medians of a step, None where there is no speed."""

    name: str
    verdict: Verdict
    old: float | None = None
    new: float | None = None
    accuracy: str = ""
    reason: str = ""

    @property
    def speed(self) -> float | None:
        """The new speed over the old one."""
        return None if not self.old or not self.new else self.old / self.new


def compare(old: Mapping[str, Any], new: Mapping[str, Any], threshold: float) -> list[Change]:
    """One change for every cell of either file; ``threshold`` is a share of the old time."""
    before, after = _timed(old), _timed(new)
    lacking = {item["name"]: item["reason"] for item in new["harness"]["without_speed"]}
    lacked = {item["name"]: item["reason"] for item in old["harness"]["without_speed"]}
    names = dict.fromkeys([*before, *after, *lacked, *lacking])
    return [_change(n, before, after, lacked, lacking, threshold) for n in names]


def _change(
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    lacked: Mapping[str, str],
    lacking: Mapping[str, str],
    threshold: float,
) -> Change:
    old, new = _median(before.get(name)), _median(after.get(name))
    reason = lacking.get(name, "") or lacked.get(name, "")
    if old is not None and new is not None:
        verdict = _verdict(before[name], after[name], threshold)
        return Change(name, verdict, old, new, _accuracy(before[name], after[name]))
    if old is not None:
        return Change(name, "lost" if name in lacking else "missing", old, None, "", reason)
    if new is not None:
        return Change(name, "gained" if name in lacked else "new", None, new)
    return Change(name, "without", reason=reason)


def _verdict(old: Mapping[str, Any], new: Mapping[str, Any], threshold: float) -> Verdict:
    ratio = new["stats"]["median"] / old["stats"]["median"]
    # As a share of the smaller, so that a change and its undoing are judged alike.
    beyond = max(ratio, 1 / ratio) - 1 > threshold
    if not beyond or not beyond_noise(old["stats"]["data"], new["stats"]["data"]):
        return "same"
    return "slower" if ratio > 1 else "faster"


def _accuracy(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """``more accurate`` or ``less accurate``, if the error over its yardstick says so."""
    before, after = (_ratio(entry) for entry in (old, new))
    if before is None or after is None or max(before, after) < 1:
        return ""
    if after > ACCURACY * before:
        return f"less accurate: {before:.2g} to {after:.2g} times the yardstick"
    if before > ACCURACY * after:
        return f"more accurate: {before:.2g} to {after:.2g} times the yardstick"
    return ""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The reasons why the speeds of two files cannot be compared, in words."""
    first, second = (d["machine_info"]["harness"] for d in (old, new))
    found = []
    for what, a, b in (
        ("processor", first["machine"]["cpu"], second["machine"]["cpu"]),
        ("usable cores", first["machine"]["usable_cores"], second["machine"]["usable_cores"]),
        ("device", first["device"], second["device"]),
        ("dtype", first["dtype"], second["dtype"]),
        ("path", first["path"], second["path"]),
        ("threads", first["threads"], second["threads"]),
    ):
        if a != b:
            found.append(f"{what}: {a} and {b}")
    if first["device"] == second["device"] != "cpu" and _cards(first) != _cards(second):
        found.append(f"GPU and driver: {_cards(first)} and {_cards(second)}")
    for name, worker in first["workers"].items():
        other = second["workers"].get(name)
        for kind in ("versions", "environment") if other else ():
            for part in sorted({*worker[kind], *other[kind]}):
                a, b = worker[kind].get(part, "none"), other[kind].get(part, "none")
                if a != b:
                    found.append(f"{part} of {name}: {a} and {b}")
    return found


def check_comparable(old: Mapping[str, Any], new: Mapping[str, Any], force: bool) -> list[str]:
    """The differences, where ``force`` lets them be; else :class:`UsageError` names them."""
    found = differences(old, new)
    if found and not force:
        raise UsageError(
            "the files are not of the same device and versions (--force compares them):\n  "
            + "\n  ".join(found)
        )
    return found


def exit_code(changes: Sequence[Change]) -> int:
    """1 if a cell is slower beyond the threshold, or has lost its speed."""
    return int(any(change.verdict in REGRESSIONS for change in changes))


def records(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes as plain data."""
    return [{**asdict(change), "speed": change.speed} for change in changes]


def _timed(document: Mapping[str, Any]) -> dict[str, Any]:
    return {entry["fullname"]: entry for entry in document["benchmarks"]}


def _median(entry: Mapping[str, Any] | None) -> float | None:
    return None if entry is None else float(entry["stats"]["median"])


def _ratio(entry: Mapping[str, Any]) -> float | None:
    ratio = entry["extra_info"].get("values", {}).get("ratio")
    return None if ratio is None else float(ratio)


def _cards(environment: Mapping[str, Any]) -> str:
    names = ("name", "driver_version", "power.limit", "mig.mode.current")
    cards = [" ".join(str(gpu[n]) for n in names if n in gpu) for gpu in environment["gpus"]]
    return ", ".join(cards) or "none"
