"""Changes from an older run of checks to a newer run: verdicts, accuracy, cells and checks. The two
runs may come from different versions and machines. ``docs/records.md`` explains the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Literal, get_args

from harness.checking.checks import FINDINGS, IN_ONE
from harness.checking.checks.values import PRIMITIVES
from harness.checking.history import CHECKSUMS, keep_common
from harness.checking.pairs import read_pairs
from harness.oracle.tolerance import accuracy_change
from harness.results.cell import Cell, CellResult
from harness.results.findings import AGREEING, PASSING, VERDICTS, Finding, Verdict, digits
from harness.results.lines import Head, Pair, RequestRecord
from harness.results.records import Records, newest_results
from harness.runs.changes import (
    ConditionChange,
    MovedDigits,
    RunChanges,
    describe_unreached,
    find_differences,
    merge_equal,
)

Kind = Literal[
    "new-difference",
    "verdict-changed",
    "accuracy-lost",
    "lost",
    "repaired",
    "accuracy-gained",
    "new-cell",
]
# The kinds of changes, from grave to harmless. The output lists changes in this order.
KINDS: tuple[Kind, ...] = get_args(Kind)
# Findings that exist only if something is wrong. A check with several findings (a group) has a
# finding with the check's own name only if the check failed before its first comparison.
GROUPS = frozenset(FINDINGS.values()) - frozenset(FINDINGS)
ONLY_WHERE_WRONG = frozenset({"oracle", "start", "open", "harness", PRIMITIVES, *GROUPS})
# A cell stops at one of these findings and has no later findings.
BEFORE = frozenset({"oracle", "start", "open"})
# Verdicts of checks that did not run. If such a check disappears, this is not a change.
NOT_MADE = frozenset({"not-applicable", "unsupported", "not-run"})
# Entries of a signature that describe a spec or a backend. All other entries describe the whole
# run.
OF_SPEC = frozenset({"spec", "sizes"})
OF_BACKEND = frozenset({"backend", "interpreter"})
OF_MACHINE = ("host", "cpu", "usable_cores", "architecture")
# Messages show this many characters of a checksum.
SHORT = 12


@dataclass(frozen=True)
class CheckChange:
    """The old and the new result (finding) of one check of one cell, in two runs. A finding is None
    if its run has no result of this check."""

    check: str
    old: Finding | None
    new: Finding | None

    def __str__(self) -> str:
        if self.old is None or self.new is None:
            finding = self.new or self.old
            assert finding is not None
            return f"{self.check}: {_format_finding(finding)}" if self.new else self.check
        if self.old.verdict != self.new.verdict:
            return f"{self.check}: {self.old.verdict} became {_format_finding(self.new)}"
        before, after = (f.worst for f in (self.old, self.new))
        if before is None or after is None:
            return self.check
        return (
            f"{self.check}: {before.name} was off by {before.error:.1e} ({before.ratio:.2g} times "
            f"the yardstick), now {after.name} by {after.error:.1e} ({after.ratio:.2g} times)"
        )

    def record(self) -> dict[str, object]:
        """Return the change as a dictionary that can be written as JSON."""
        return {"check": self.check, "old": _record(self.old), "new": _record(self.new)}


@dataclass(frozen=True)
class CellChange:
    """A change of a cell between two runs. ``kind`` names the change, e.g. ``"repaired"``, and
    ``worse`` is true for a change for the worse.

    ``checks`` has the checks that changed; it is empty if the whole cell is missing or new. ``old``
    and ``new`` are the cell's results in the two runs; None if the run has no such cell.
    """

    kind: Kind
    cell: Cell
    worse: bool
    checks: tuple[CheckChange, ...] = ()
    old: CellResult | None = None
    new: CellResult | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        """The change as text, without the name of the cell."""
        if not self.checks:
            return self.reason
        if self.kind in ("lost", "new-cell"):
            return f"{self.reason}: {', '.join(c.check for c in self.checks)}"
        first, *others = self.checks
        further = f"; also: {', '.join(c.check for c in others)}" if others else ""
        return f"{first}{further}"

    def record(self) -> dict[str, object]:
        """Return the change as a dictionary that can be written as JSON."""
        return {
            "kind": self.kind,
            "worse": self.worse,
            **self.cell.record(),
            "checks": [check.record() for check in self.checks],
            "text": self.words,
        }

    def __str__(self) -> str:
        return f"{self.cell}: {self.words}"


Cells = Mapping[Cell, CellResult]


def compare(old: Records, new: Records) -> RunChanges:
    """Compare two record files. Return the changes of cells, the most serious change first, and the
    changes of versions and machines. If a file has several results of a cell, the last result is
    compared. If a run was interrupted, the cells that it did not begin are ignored."""
    before, after = newest_results(old, new)
    conditions = compare_conditions(old.head, before, new.head, after)
    moved = moved_digits(before, after, (read_pairs(old), read_pairs(new)))
    begun = new.begun.keys()
    if new.stopped:
        before = {cell: result for cell, result in before.items() if cell in begun}
    if old.stopped:
        after = {cell: result for cell, result in after.items() if cell in old.begun}
    changes = describe_unfinished(find_changes(before, after), begun)
    limits = [
        describe_unreached(f"the {which} run", end)
        for which, end in (("older", old.stopped), ("newer", new.stopped))
        if end
    ]
    return RunChanges(
        conditions,
        changes,
        limits=limits + _describe_equal_models(conditions, old, new),
        moved=moved,
    )


def _describe_equal_models(
    conditions: Iterable[ConditionChange], old: Records, new: Records
) -> list[str]:
    """Return a line for each spec whose file changed although the equations and sizes are the same
    in both runs."""
    texts = []
    models = [
        {name: model for head in records.of_kind(Head) for name, model in head.models.items()}
        for records in (old, new)
    ]
    for spec in dict.fromkeys(
        spec for each in conditions if each.what == "spec" for spec in each.of
    ):
        old_model, new_model = (by_name.get(spec) for by_name in models)
        if old_model and old_model == new_model:
            texts.append(
                f"both runs checked {spec} with the same equations and sizes "
                f"({_format_value(old_model.sizes)}), so they cannot show a change of the "
                "spec's own sizes"
            )
    return texts


def describe_unfinished(changes: Iterable[CellChange], begun: Set[Cell]) -> list[CellChange]:
    """Return the changes. A missing cell that the newer run began (it is in ``begun``) gets the
    reason "begun but not finished"."""
    return [
        replace(c, reason="begun but not finished") if c.new is None and c.cell in begun else c
        for c in changes
    ]


def moved_digits(
    old: Cells, new: Cells, pairs: tuple[Iterable[Pair], Iterable[Pair]] = ((), ())
) -> list[MovedDigits]:
    """Return the cells, and the pairs of backends, whose printed number of agreeing digits changed;
    the largest loss of digits comes first. ``pairs`` has two items: the pairs of backends in the
    old run, and those in the new run."""
    before, after = (
        {
            **{str(cell): digits(result.findings) for cell, result in cells.items()},
            **{str(pair): pair.digits for pair in pairs_of_run},
        }
        for cells, pairs_of_run in zip((old, new), pairs, strict=True)
    )
    moved = [
        MovedDigits(name, earlier, later)
        for name, later in after.items()
        if (earlier := before.get(name)) is not None
        and later is not None
        and f"{earlier:.1f}" != f"{later:.1f}"
    ]
    return sorted(moved, key=lambda each: each.new - each.old)


def find_changes(old: Cells, new: Cells) -> list[CellChange]:
    """Return all changes between the cells of two runs, most serious change first."""
    changes: list[CellChange] = []
    # In a run with several dtypes, some checks run in only one dtype. A check is not lost if it ran
    # in another dtype of the new run.
    checks_by_cell: dict[Cell, set[str]] = {}
    for cell, result in new.items():
        single_checks = {f.check for f in result.findings if FINDINGS.get(f.check) in IN_ONE}
        checks_by_cell.setdefault(replace(cell, dtype=""), set()).update(single_checks)
    for cell in dict.fromkeys([*old, *new]):
        before, after = old.get(cell), new.get(cell)
        if after is None:
            reason = "missing in the newer run"
            changes.append(CellChange("lost", cell, True, old=before, reason=reason))
        elif before is None and after.verdict in PASSING:
            reason = f"new cell: {after.verdict}"
            changes.append(CellChange("new-cell", cell, False, new=after, reason=reason))
        else:
            changes += _compare_cell(before, after, checks_by_cell[replace(cell, dtype="")])
    return sorted(changes, key=lambda c: (not c.worse, KINDS.index(c.kind)))


def _compare_cell(
    old: CellResult | None, after: CellResult, checks_elsewhere: Set[str]
) -> list[CellChange]:
    """Return the changes of a cell from ``old`` to ``after``.

    ``checks_elsewhere`` are checks that the new run has made in another dtype. If such a check is
    missing in this cell, it does not count as missing.
    """
    before = old or CellResult(after.cell)
    olds = {f.check: f for f in before.findings}
    news = {f.check: f for f in after.findings}
    # A cell that could not start has no checks. Report one change for the cell, not one for each
    # check.
    was_stopped, is_stopped = (
        any(f.check in BEFORE and f.verdict != "unsupported" for f in result.findings)
        for result in (before, after)
    )
    is_stopped = is_stopped or bool(BEFORE & news.keys())
    grouped: dict[tuple[Kind, bool], list[CheckChange]] = {}
    for check in dict.fromkeys([*olds, *news]):
        change = CheckChange(check, olds.get(check), news.get(check))
        group = FINDINGS.get(check, check)
        none_new = was_stopped or old is None or (group in GROUPS and group in olds)
        none_lost = is_stopped or check in checks_elsewhere or (group in GROUPS and group in news)
        kind_and_worse = _classify(change, none_new, none_lost)
        if kind_and_worse is not None:
            grouped.setdefault(kind_and_worse, []).append(change)
    reasons = {"lost": "no longer checked", "new-cell": "now checked too"}
    return [
        CellChange(
            kind,
            after.cell,
            worse,
            _sort_gravest_first(cell_changes),
            old,
            after,
            reasons.get(kind, ""),
        )
        for (kind, worse), cell_changes in grouped.items()
    ]


def _classify(change: CheckChange, none_new: bool, none_lost: bool) -> tuple[Kind, bool] | None:
    """Return the kind of a check's change, e.g. ``"repaired"``, and True if the change is for the
    worse. Return None if nothing changed.

    With ``none_new``, a check that only the new run made does not count as a change. With
    ``none_lost``, a check that only the old run made does not count as a change.
    """
    old, new = change.old, change.new
    if new is None:
        assert old is not None
        if change.check in ONLY_WHERE_WRONG:
            return None if old.verdict in PASSING else ("repaired", False)
        return None if none_lost or old.verdict in NOT_MADE else ("lost", True)
    if old is None:
        if new.verdict in PASSING and change.check not in ONLY_WHERE_WRONG:
            return None if none_new else ("new-cell", False)
        return _classify_verdicts("agree", new.verdict)
    if old.verdict != new.verdict:
        return _classify_verdicts(old.verdict, new.verdict)
    if old.worst is None or new.worst is None:
        return None
    match accuracy_change(old.worst.ratio, new.worst.ratio):
        case "lost":
            return "accuracy-lost", True
        case "gained":
            return "accuracy-gained", False
    return None


def _classify_verdicts(old: Verdict, new: Verdict) -> tuple[Kind, bool]:
    if new == "differ" and old in PASSING:
        return "new-difference", True
    if old not in PASSING and new in AGREEING:
        return "repaired", False
    if new in PASSING:
        # Known differences are accepted, because their entries give reasons. If a check no longer
        # runs, the change is for the worse.
        return "verdict-changed", old not in NOT_MADE and new in NOT_MADE
    return "verdict-changed", VERDICTS.index(new) > VERDICTS.index(old)


def _sort_gravest_first(changes: list[CheckChange]) -> tuple[CheckChange, ...]:
    return tuple(sorted(changes, key=lambda c: -VERDICTS.index(c.new.verdict) if c.new else 0))


def _record(finding: Finding | None) -> dict[str, object] | None:
    if finding is None:
        return None
    worst = finding.worst
    return {
        "verdict": finding.verdict,
        "error": worst.error if worst else None,
        "ratio": worst.ratio if worst else None,
        "tolerance": worst.tolerance if worst else None,
        "worst": worst.name if worst else None,
        "detail": finding.detail,
    }


def _format_finding(finding: Finding) -> str:
    detail = "" if finding.verdict == "agree" else finding.detail
    return f"{finding.verdict} ({detail})" if detail else finding.verdict


def compare_conditions(
    before: Head | None, old: Cells, after: Head | None, new: Cells
) -> list[ConditionChange]:
    """Return the conditions in which two runs differ: versions, machines and options. The
    conditions come from the cells, and from the first lines (heads) of the record files: ``before``
    is the head of the old run, and ``after`` of the new run."""
    old_entries, new_entries = (_flatten(head) if head else {} for head in (before, after))
    differences = find_differences(old_entries, new_entries)
    names = {each.what for each in differences}
    differences += (
        each
        for cell in old
        if cell in new
        for each in _compare_cell_conditions(old[cell], new[cell])
        if each.what not in names
    )
    return merge_equal(differences)


def _compare_cell_conditions(old: CellResult, new: CellResult) -> Iterator[ConditionChange]:
    cell, names = old.cell, set()
    if old.signature is not None and new.signature is not None:
        for difference in find_differences(
            *keep_common(old.signature, new.signature), words=CHECKSUMS
        ):
            names.add(difference.what)
            yield _add_owner(difference, cell)
    if old.greeting is not None and new.greeting is not None:
        for difference in find_differences(old.greeting, new.greeting, (cell.backend,), CHECKSUMS):
            # The entry ``harness`` is in the head and in the cells. In a cell, it can be the code
            # that a different interpreter loads.
            if difference.what not in names:
                yield difference


def _add_owner(each: ConditionChange, cell: Cell) -> ConditionChange:
    owners: tuple[str, ...] = ()
    if each.what in OF_SPEC:
        owners = (cell.spec,)
    elif each.what in OF_BACKEND or each.what.startswith("--env "):
        owners = (cell.backend,)
    return ConditionChange(each.what, each.old, each.new, owners, each.words)


def _flatten(head: Head) -> dict[str, object]:
    settings = _list_settings(head.request) if head.request else {}
    return {
        "harness": head.harness,
        **{name: getattr(head.machine, name) for name in OF_MACHINE},
        **{f"requested {what}": text for what, text in settings.items()},
    }


def _list_settings(request: RequestRecord) -> dict[str, str | None]:
    """Return the settings of a request as a dictionary from name to text, e.g. ``{"seed": "0"}``.
    The checksum of a user's model file is left out, because the signatures of cells contain it."""
    settings: dict[str, str | None] = {
        name: _format_value(getattr(request, name))
        for name in ("sizes", "checks", "seed", "thorough", "repeat", "deterministic")
    }
    if model := request.against:
        settings["model"] = model.model
        rules = {"--map": model.map, "--takes": model.takes, "--returns": model.returns}
        settings |= {option: _format_value(values) for option, values in rules.items()}
    if arrays := request.given:
        settings |= {f"checksum of {group}": text[:SHORT] for group, text in arrays.sha256.items()}
        values = {"batch": arrays.batch, "time": arrays.time, "sizes": arrays.sizes}
        settings |= {
            f"{what} of given arrays": _format_value(value) for what, value in values.items()
        }
    return settings


def _format_value(value: object) -> str | None:
    if isinstance(value, Mapping):
        value = [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or None
    if value is False:
        return None
    return "yes" if value is True else str(value)
