"""Comparison of two files of speeds: find the cells (a model on a backend) whose speed or accuracy
changed by more than the noise.

The files may come from different versions and machines. Nothing here prints. ``docs/benchmarks.md``
explains the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from harness.errors import UsageError, several, shorten
from harness.oracle.tolerance import accuracy_change
from harness.results.environment import Environment
from harness.results.speeds import NoSpeed, SpeedEntry, SpeedFile, Timed
from harness.runs.changes import (
    ConditionChange,
    RunChanges,
    describe_unreached,
    find_differences,
    merge_equal,
)
from harness.timing.noise import UNRELIABLE, SpeedRatio, compare_rounds, is_unreliable

Kind = Literal[
    "slower", "accuracy-lost", "lost", "faster", "accuracy-gained", "repaired", "new-cell"
]
# The kinds of change in the order of the output: the gravest first.
KINDS: tuple[Kind, ...] = get_args(Kind)
# The number of unreliable cells that the output names, each with its reason.
MOST_DOUBTED = 3
# The most characters of a reason.
MOST_REASON = 200
THRESHOLD = 0.1
"""The default share by which a speed must change to be reported."""
FAILED = frozenset({"refused", "broken"})


@dataclass(frozen=True)
class SpeedChange:
    """A change of one cell (a model on a backend) between an old and a new file of speeds.

    ``old`` and ``new`` are the median seconds per step in the two files, or None if the cell has no
    speed there. ``speed`` is the new speed divided by the old speed. If ``baseline`` names a
    backend, the old speed is the speed of that backend. ``doubt`` says why one of the two speeds is
    unreliable; it is empty if both are reliable.
    """

    kind: Kind
    name: str
    worse: bool
    old: float | None = None
    new: float | None = None
    speed: SpeedRatio | None = None
    reason: str = ""
    baseline: str = ""
    doubt: str = ""

    @property
    def words(self) -> str:
        """The change as text, e.g. the old and the new time per step, without the name of the
        cell."""
        return f"{self._plain} ({self.doubt})" if self.doubt else self._plain

    @property
    def _plain(self) -> str:
        if self.kind not in ("slower", "faster"):
            return self.reason
        assert self.old is not None
        assert self.new is not None
        old, new = (f"{seconds * 1e3:.4g} ms" for seconds in (self.old, self.new))
        if not self.baseline:
            return f"{self.speed} as fast as before: {old} per step became {new}"
        return f"{self.speed} as fast as {self.baseline}: {new} per step instead of {old}"

    def record(self) -> dict[str, object]:
        """Return a dictionary from field name to value, for JSON output. The key ``text`` has the
        change as text."""
        return {**asdict(self), "text": self.words}

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


@dataclass(frozen=True)
class Relative:
    """The speed of ``backend`` divided by the speed of ``baseline``. Both speeds are from the same
    run, and of the same model and sizes (``group``)."""

    group: str
    backend: str
    baseline: str
    speed: SpeedRatio
    doubt: str = ""

    def __str__(self) -> str:
        doubt = f" ({self.doubt})" if self.doubt else ""
        return f"{self.group}: {self.backend} is {self.speed} as fast as {self.baseline}{doubt}"


def changes(
    old: SpeedFile, new: SpeedFile, threshold: float = THRESHOLD, baseline: str = ""
) -> list[SpeedChange]:
    """Return all changes of cells from an old file to a new file, gravest first.

    A change of speed is reported if it exceeds the noise and ``threshold``, a share of the smaller
    of the two speeds (e.g. 0.1). If a run was interrupted, the cells that it did not reach are
    ignored.
    """
    before, after = ({**each.lacking, **each.timed} for each in (old, new))
    cut = [content.harness.incomplete is not None for content in (old, new)]
    reported: list[SpeedChange] = []
    for name in dict.fromkeys([*old.timed, *new.timed, *old.lacking, *new.lacking]):
        pair = one, other = before.get(name), after.get(name)
        if any(short and entry is None for short, entry in zip(cut, pair, strict=True)):
            continue
        if isinstance(one, Timed) and isinstance(other, Timed):
            reported += _compare_cell(name, one, other, threshold)
        elif isinstance(one, Timed):
            reason = (
                f"it no longer has a speed: {other.outcome}" if other else "the cell is missing now"
            )
            reported.append(SpeedChange("lost", name, True, old=one.stats.median, reason=reason))
        elif isinstance(other, Timed):
            speed_text = f"{other.stats.median * 1e3:.4g} ms per step"
            kind: Kind = "repaired" if one else "new-cell"
            reason = (
                f"it had no speed ({one.outcome}), now {speed_text}"
                if one
                else f"new cell: {speed_text}"
            )
            reported.append(SpeedChange(kind, name, False, new=other.stats.median, reason=reason))
        elif isinstance(other, NoSpeed) and one is None:
            reason = f"new cell without a speed: {other.reason}"
            reported.append(SpeedChange("new-cell", name, other.status in FAILED, reason=reason))
    reported = [replace(change, baseline=baseline) for change in reported]
    return sorted(reported, key=lambda c: (not c.worse, KINDS.index(c.kind)))


def compare(
    old: SpeedFile, new: SpeedFile, threshold: float = THRESHOLD, baseline: str = ""
) -> RunChanges:
    """Compare two files: return the changes of cells, of versions and of machines. ``threshold`` is
    as in :func:`changes`.

    With ``baseline``, the two files come from the same run and contain one backend each;
    ``baseline`` is the backend in the ``old`` file.
    """
    cell_changes = changes(old, new, threshold, baseline)
    what = f"beyond {threshold * 100:g}% and the noise"
    around, unknown = environment_changes(old, new), find_unsure(old, new, cell_changes)
    runs = (("the run", new),) if baseline else (("the older run", old), ("the newer run", new))
    cut = [(which, content.harness.incomplete) for which, content in runs]
    limits = [describe_unreached(which, str(how)) for which, how in cut if how is not None]
    return RunChanges(around, cell_changes, what, limits + unknown.limits, unsure=str(unknown))


def check_cells(content: SpeedFile, name: str) -> None:
    """Raise :class:`UsageError` if a file of speeds contains no cell. ``name`` is the file's name,
    for the error message."""
    if not content.entries:
        raise UsageError(f"{name} contains no timed cell")


@dataclass(frozen=True)
class Unsure:
    """The cells whose speed may have changed although no change is reported. There are two kinds:
    cells with a single timed round, whose noise is unknown, and cells with an unreliable speed.

    ``of`` is the number of cells that are in both files, and ``once`` the number of cells with a
    single timed round. ``unreliable`` maps the name of a cell to the reason why its speed is
    unreliable.
    """

    of: int
    once: int
    unreliable: Mapping[str, str]

    def __str__(self) -> str:
        cells = self.once + len(self.unreliable)
        told = f"changes of speed are unknown for {cells} of {several(self.of, 'cell')}"
        return told if cells else ""

    @property
    def limits(self) -> list[str]:
        """Sentences for the output, which say why a change of speed may have been missed."""
        texts = []
        if once := self.once:
            texts.append(
                f"{several(once, 'cell')} {'was' if once == 1 else 'were'} timed in only one "
                "round, so the noise is unknown and no change of speed is reported (use --rounds 2 "
                "or more)"
            )
        if self.unreliable:
            named = [f"{name} ({why})" for name, why in self.unreliable.items()]
            more = len(named) - MOST_DOUBTED
            named[MOST_DOUBTED:] = [f"and {more} more"] if more > 0 else []
            texts.append(
                f"unreliable speeds in {len(self.unreliable)} of {several(self.of, 'cell')}: "
                f"{', '.join(named)}"
            )
        return texts


def find_unsure(old: SpeedFile, new: SpeedFile, reported: Sequence[SpeedChange]) -> Unsure:
    """Return the cells in both files whose speed may have changed although no change is reported
    (see :class:`Unsure`).

    ``reported`` has all reported changes. A cell with a reported change of speed is not listed as
    unreliable.
    """
    after = new.timed
    both = {name: (entry, after[name]) for name, entry in old.timed.items() if name in after}
    changed = {change.name for change in reported if change.kind in ("slower", "faster")}
    once, doubted = 0, {}
    for name, pair in both.items():
        if min(len(each.stats.data) for each in pair) < 2:
            once += 1
        elif name not in changed and (why := _reason_for_doubt(pair)):
            doubted[name] = why
    return Unsure(len(both), once, doubted)


def _reason_for_doubt(pair: tuple[Timed, Timed]) -> str:
    """Return why the speed of a cell in the older or the newer file (``pair``) is unreliable;
    return an empty text if both speeds are reliable."""
    for which, entry in zip(("older", "newer"), pair, strict=True):
        for doubt in entry.extra_info.doubts:
            if is_unreliable([doubt]):
                reason = doubt.removeprefix(UNRELIABLE).lstrip(": ").partition(";")[0]
                return f"the {which} speed: {shorten(reason, MOST_REASON)}"
    return ""


def select_requested(old: SpeedFile, new: SpeedFile, backends: Collection[str]) -> SpeedFile:
    """Return a copy of the older file that has only the cells to compare with the newer run.
    ``backends`` has the backends that the user named for the newer run.

    Cells of the newer file are always compared. If ``backends`` is empty, the newer run timed all
    installed backends. A backend that is only in the older file may have been uninstalled since
    then, so its cells are kept, and the comparison reports them as lost.
    """
    names = {entry.cell for entry in new.entries}
    present = {entry.params.backend for entry in new.entries}

    def wanted(entry: SpeedEntry) -> bool:
        return entry.cell in names or (not backends and entry.params.backend not in present)

    return old.select(wanted)


def relative_speeds(content: SpeedFile, baseline: str) -> list[Relative]:
    """Return the speed of every cell divided by the speed of the backend ``baseline`` on the same
    model and sizes. Cells without such a baseline speed are left out."""
    entries = list(content.timed.values())
    bases = {e.group: e for e in entries if e.params.backend == baseline}
    return [
        Relative(
            entry.group,
            entry.params.backend,
            baseline,
            compare_rounds(entry.stats.data, base.stats.data, paired=True),
            _describe_doubts({f"{each.params.backend}'s": each for each in (entry, base)}),
        )
        for entry in entries
        if (base := bases.get(entry.group)) and entry.params.backend != baseline
    ]


def _compare_cell(
    name: str, before: Timed, after: Timed, threshold: float
) -> Iterator[SpeedChange]:
    old, new = before.stats.median, after.stats.median
    ratio = compare_rounds(after.stats.data, before.stats.data)
    # Divide by the smaller speed, so that a change and its reversal are judged alike.
    if ratio.known and max(ratio.value, 1 / ratio.value) - 1 > threshold:
        slower = ratio.value < 1
        kind: Kind = "slower" if slower else "faster"
        doubt = _describe_doubts({"the older": before, "the newer": after})
        yield SpeedChange(kind, name, slower, old, new, ratio, doubt=doubt)
    ratios = before.ratio, after.ratio
    if ratios[0] is None or ratios[1] is None:
        return
    accuracy = f"off by {ratios[0]:.2g} times the yardstick, now {ratios[1]:.2g} times"
    match accuracy_change(ratios[0], ratios[1]):
        case "lost":
            yield SpeedChange("accuracy-lost", name, True, old, new, ratio, accuracy)
        case "gained":
            yield SpeedChange("accuracy-gained", name, False, old, new, ratio, accuracy)


def _describe_doubts(entries: Mapping[str, Timed]) -> str:
    """Return a text that says which speeds are unreliable; return an empty text if all are
    reliable.

    ``entries`` maps a name for the text, e.g. "the older", to a measured cell.
    """
    doubtful = [n for n, e in entries.items() if is_unreliable(e.extra_info.doubts)]
    if not doubtful:
        return ""
    return f"{' and '.join(doubtful)} {'speeds are' if doubtful[1:] else 'speed is'} {UNRELIABLE}"


def environment_changes(old: SpeedFile, new: SpeedFile) -> list[ConditionChange]:
    """Return the differences between two files of speeds in versions, machine, number of threads,
    environment variables and models."""
    first, second = old.environment, new.environment
    differences = find_differences(_environment_fields(first), _environment_fields(second))
    if "cpu" not in (first.device, second.device):
        differences += find_differences(
            {"GPU and driver": _describe_gpus(first)}, {"GPU and driver": _describe_gpus(second)}
        )
    of_workers: list[ConditionChange] = []
    for name, one in first.workers.items():
        if other := second.workers.get(name):
            of_workers += find_differences(one.versions, other.versions, (name,))
            of_workers += find_differences(one.environment, other.environment, (name,))
    return differences + merge_equal(of_workers) + _model_differences(old, new)


def _model_differences(old: SpeedFile, new: SpeedFile) -> list[ConditionChange]:
    before, after = (
        {entry.params.spec: entry.extra_info.model for entry in content.benchmarks}
        for content in (old, new)
    )
    differences: list[ConditionChange] = []
    for spec in before.keys() & after.keys():
        if before[spec] and after[spec]:  # missing in older files
            words = {"model": "the spec or its sizes have changed"}
            differences += find_differences(
                {"model": before[spec]}, {"model": after[spec]}, (spec,), words
            )
    return merge_equal(sorted(differences, key=lambda each: each.of))


def _environment_fields(environment: Environment) -> dict[str, object]:
    machine = environment.machine
    return {
        "harness": environment.harness,
        "processor": machine.cpu,
        "usable cores": machine.usable_cores,
        "Python of the harness": machine.python,
        "machines": ", ".join(sorted(each.host for each in environment.machines)) or "one",
        **{name: getattr(environment, name) for name in ("device", "dtype", "path", "threads")},
    }


def _describe_gpus(environment: Environment) -> str:
    names = ("name", "driver_version", "power.limit", "mig.mode.current")
    cards = [" ".join(str(gpu[n]) for n in names if n in gpu) for gpu in environment.gpus]
    return ", ".join(cards) or "none"
