"""What changed from one run of checks to another: a real run's records, and what may become of
them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wording import Wording

from harness.checking.changes import CellChange, compare
from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.results.file import encode_line, parse_line, read_records
from harness.results.records import Records

Lines = list[dict[str, Any]]
SPEC = "lesson6/simple_rnn"
OUTPUTS = f"{SPEC} on numpy, float32, native"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Records:
    path: Path = tmp_path_factory.mktemp("records") / "run.jsonl"
    request = Request(
        specs=(SPEC,),
        backends=("numpy",),
        checks=("values", "inference"),
        sizes={"hidden": 8},
        records=path,
    )
    with Engine(request) as engine:
        assert engine.run().exit_code == 0
    return read_records(path)


def changes(old: Records, new: Records) -> list[CellChange]:
    return list(compare(old, new).changes)


def edited(base: Records, edit: Callable[[Lines], None]) -> Records:
    lines = [line.plain() for line in base.lines]
    edit(lines)
    return Records(tuple(line for line in map(parse_line, map(encode_line, lines)) if line))


def result(lines: Lines, check: str = "outputs", dtype: str = "float32") -> dict[str, Any]:
    (found,) = (
        line
        for line in lines
        if line["kind"] == "result" and line["check"] == check and line["dtype"] == dtype
    )
    return found


def set_(check: str = "outputs", **fields: Any) -> Callable[[Lines], None]:
    return lambda lines: result(lines, check).update(fields)


def ratio(value: float, check: str = "outputs") -> Callable[[Lines], None]:
    def edit(lines: Lines) -> None:
        line = result(lines, check)
        line.update(ratio=value, error=value * line["yardstick"])

    return edit


def without(*checks: str, dtype: str = "float32") -> Callable[[Lines], None]:
    def edit(lines: Lines) -> None:
        for check in checks:
            lines.remove(result(lines, check, dtype))

    return edit


def without_cell(lines: Lines) -> None:
    not_begun(lines)
    lines[0]["planned"] = 1


def not_begun(lines: Lines) -> None:
    """The run was interrupted before the cell."""
    lines[:] = [line for line in lines if line.get("dtype") != "float32"]


def cut_off(lines: Lines) -> None:
    lines[:] = [line for line in lines if line["kind"] != "end" or line["dtype"] != "float32"]


def stopped(lines: Lines) -> None:
    """The cell cannot be opened, so that none of its checks is made."""
    kept = result(lines)
    lines[:] = [
        line
        for line in lines
        if line["kind"] != "result" or line["dtype"] != "float32" or line is kept
    ]
    kept.update(check="open", verdict="crashed", detail="SIGSEGV")
    kept.update(dict.fromkeys(("error", "yardstick", "ratio", "tolerance", "worst")))


DIFFER = {"verdict": "differ", "detail": "output.logits is off by 1"}
CASES: dict[str, tuple[Callable[[Lines], None], list[str], list[str]]] = {
    "nothing": (lambda lines: None, [], []),
    "a difference": (set_(**DIFFER), ["new-difference"], ["repaired"]),
    "a known one": (set_(verdict="known-difference"), ["verdict-changed-"], ["verdict-changed-"]),
    "a crash": (set_(verdict="crashed"), ["verdict-changed"], ["repaired"]),
    "not offered": (set_(verdict="unsupported"), ["verdict-changed"], ["verdict-changed-"]),
    "far less accurate": (ratio(15.9), ["accuracy-lost"], ["accuracy-gained"]),
    "as rounding may be": (ratio(7.0), [], []),
    "a check less": (without("loss"), ["lost"], ["new-cell"]),
    "a cell less": (without_cell, ["lost"], ["new-cell"]),
    "a cell that was not begun": (not_begun, [], []),
    "a cell cut off": (cut_off, ["lost"], ["new-cell"]),
    "a cell that cannot be opened": (stopped, ["verdict-changed"], ["repaired"]),
}


@pytest.mark.parametrize("case", CASES)
def test_kinds_there_and_back(case: str, base: Records) -> None:
    edit, there, back = CASES[case]
    other = edited(base, edit)
    counts = {"new-difference", "verdict-changed", "accuracy-lost", "lost"}
    for old, new, kinds in ((base, other, there), (other, base, back)):
        found = changes(old, new)
        assert [c.kind for c in found] == [kind.rstrip("-") for kind in kinds]
        # A dash: the same kind, but not for the worse.
        assert [c.worse for c in found] == [kind in counts for kind in kinds]


def test_words_name_the_cell_the_check_and_what_it_saw(base: Records, wording: Wording) -> None:
    (change,) = changes(base, edited(base, set_(**DIFFER)))
    wording(change, f"{OUTPUTS}: outputs: agree ... differ (output.logits ... 1")
    (change,) = changes(base, edited(base, ratio(12)))
    assert "yardstick), now output." in str(change)
    assert str(change).endswith("(12 times)")
    (change,) = changes(base, edited(base, without("loss", "gradients")))
    wording(change, f"{OUTPUTS} ... loss, gradients")
    (change,) = changes(base, edited(base, cut_off))
    wording(change, f"{OUTPUTS}")
    (change,) = changes(base, edited(base, stopped))
    assert str(change) == f"{OUTPUTS}: open: crashed (SIGSEGV)"


def test_several_checks_of_a_cell_are_one_change_and_the_gravest_is_first(
    base: Records, wording: Wording
) -> None:
    def edit(lines: Lines) -> None:
        result(lines, "loss").update(verdict="not-run")
        result(lines, "inference").update(verdict="crashed", detail="SIGSEGV")

    (change,) = changes(base, edited(base, edit))
    assert [c.check for c in change.checks] == ["inference", "loss"]
    wording(change.words, "agree ... SIGSEGV ... loss")


def test_the_gravest_change_is_first(base: Records) -> None:
    def edit(lines: Lines) -> None:
        lines.remove(result(lines, "loss"))
        ratio(1e-3, "inference")(lines)
        result(lines, "outputs").update(DIFFER)
        result(lines, "gradients")["check"] = "others"

    kinds = [c.kind for c in changes(base, edited(base, edit))]
    assert kinds == ["new-difference", "lost", "new-cell"]


def test_a_new_cell_that_differs_is_a_new_difference(base: Records) -> None:
    (change,) = changes(edited(base, without_cell), edited(base, set_(**DIFFER)))
    assert (change.kind, change.worse, change.old) == ("new-difference", True, None)


def test_what_differed_before_is_no_change(base: Records) -> None:
    other = edited(base, set_(**DIFFER))
    assert changes(other, other) == []


def test_a_check_that_is_enough_in_one_dtype_may_move_to_another(base: Records) -> None:
    def made_in(lines: Lines, dtype: str) -> None:
        for other in ("float64", "float32"):
            line = result(lines, "loss", other)
            line["check"] = "nan"
            if other != dtype:
                lines.remove(line)

    old = edited(base, lambda lines: made_in(lines, "float32"))
    new = edited(base, lambda lines: made_in(lines, "float64"))
    assert [c.kind for c in changes(old, new)] == ["new-cell"]
    # But not away.
    gone = edited(base, without("loss", dtype="float64"))
    assert "lost" in [c.kind for c in changes(old, edited(gone, without("loss")))]


def test_a_larger_yardstick_explains_a_larger_error(base: Records) -> None:
    def edit(lines: Lines) -> None:
        line = result(lines)
        for name in ("error", "yardstick", "tolerance"):
            line[name] *= 1e6

    assert changes(base, edited(base, edit)) == []


def test_the_last_run_of_a_cell_counts(base: Records) -> None:
    again = Records((*edited(base, set_(**DIFFER)).lines, *base.lines))
    assert changes(base, again) == []


def test_what_is_not_the_same_around_two_runs(base: Records, wording: Wording) -> None:
    def edit(lines: Lines) -> None:
        for line in lines:
            if line["kind"] == "head":
                line["machine"]["cpu"] = "another"
                line["request"]["seed"] = 1
            if "signature" in line:
                line["signature"].update({"spec": "0", "--env OMP_NUM_THREADS": "1"})
            if "greeting" in line:
                line["greeting"]["numpy"] = "9.0"

    found = [str(each) for each in compare(base, edited(base, edit)).environment]
    assert found[0].startswith("cpu: ")
    assert found[0].endswith(" became another")
    wording(found[1], "0 ... 1")
    assert set(found[2:4]) == {
        f"the spec has changed: {SPEC}",
        "--env OMP_NUM_THREADS of numpy: now 1 (before: none)",
    }
    assert found[4].startswith("numpy of numpy: ")

    def resize(lines: Lines) -> None:
        for line in lines:
            if "signature" in line:
                line["signature"]["spec"] = "0"

    resized = edited(base, resize)
    (told,) = compare(base, resized).limits
    wording.line(told, f"{SPEC}")

    def other_sizes(lines: Lines) -> None:
        for line in lines:
            if line["kind"] == "head":
                line["models"][SPEC]["sizes"]["hidden"] += 1

    assert compare(base, edited(resized, other_sizes)).limits == []
    assert len(found) == 5
    assert compare(base, base).environment == []


OWN = {
    "model": "net.py:Net",
    "sha256": "1",
    "map": ["out=fc", "rnn=gru"],
    "takes": [],
    "returns": [],
}
GIVEN = {"sha256": {"inputs": 20 * "ab"}, "batch": 2, "time": 3, "sizes": {"hidden": 8}}
ASKED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "sizes": (
        {"sizes": {"hidden": 9, "vocab": 5}},
        ["requested sizes: hidden=8 became hidden=9, vocab=5"],
    ),
    "no sizes": ({"sizes": {}}, ["requested sizes: now none (before: hidden=8)"]),
    "a switch": ({"thorough": True}, ["requested thorough: now yes (before: none)"]),
    "a model": (
        {"against": OWN},
        [
            "requested model: now net.py:Net (before: none)",
            "requested --map: now out=fc, rnn=gru (before: none)",
        ],
    ),
    "given numbers": (
        {"given": GIVEN},
        [
            "requested checksum of inputs: now abababababab (before: none)",
            "requested batch of given arrays: now 2 (before: none)",
            "requested time of given arrays: now 3 (before: none)",
            "requested sizes of given arrays: now hidden=8 (before: none)",
        ],
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_was_asked_for_is_told_in_words(base: Records, name: str) -> None:
    asked, words = ASKED[name]

    def edit(lines: Lines) -> None:
        (head,) = (line for line in lines if line["kind"] == "head")
        head["request"].update(asked)

    assert [str(each) for each in compare(base, edited(base, edit)).environment] == words
