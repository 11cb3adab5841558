"""Two files of results: what changed beyond threshold and noise, and what is not the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from bench_results import REQUEST, refused, result, speed_file
from click.testing import CliRunner
from wording import Wording

from harness.cli import cli
from harness.command.options import share
from harness.errors import UsageError
from harness.results.speeds import SpeedFile
from harness.timing.compare import changes, compare, environment_changes, relative_speeds
from harness.timing.console import check_reference, relative_lines
from harness.timing.contestant import TimedResult
from harness.timing.json_file import DocumentError, document, read, write

WIDE = (0.5, 0.8, 1.0, 1.3, 1.6)


def made(*results: TimedResult) -> SpeedFile:
    return document(REQUEST, results)


BASE = made(result())


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        (result(step=0.001), []),
        (result(step=0.00105), []),
        (result(step=0.0012), ["slower"]),
        (result(step=0.0008), ["faster"]),
        # A median that is 20 % larger, in rounds that scatter by 50 %.
        (result(step=0.0012, noise=WIDE), []),
        # Of one round nothing is known.
        (result(step=0.01, noise=(1.0,)), []),
        (refused("numpy"), ["lost"]),
        (result(batch=128), ["lost", "new-cell"]),
        (result(ratio=1e6), ["accuracy-lost"]),
        (result(ratio=9.0, step=0.0012), ["slower", "accuracy-lost"]),
        (result(ratio=7.0), []),
    ],
)
def test_kinds_of_changes(after: TimedResult, kinds: list[str]) -> None:
    found = compare(BASE, made(after))
    assert [c.kind for c in found.changes] == kinds
    worse = {"slower", "lost", "accuracy-lost"}
    assert [c.worse for c in found.changes] == [kind in worse for kind in kinds]
    assert found.exit_code == bool(worse & set(kinds))


def test_what_one_round_cannot_tell_is_said(wording: Wording) -> None:
    once = made(result(step=0.01, noise=(1.0,)), result("torch", 0.002))
    found = compare(once, made(result(), result("torch", 0.002)))
    assert found.changes == []
    wording.line(found.lines()[0], "1")
    assert compare(BASE, BASE).limits == []


def test_only_what_changed_is_told(wording: Wording) -> None:
    both = made(result(), result("torch", 0.002))
    found = compare(both, made(result(), result("torch", 0.003)))
    assert [c.name for c in found.changes] == ["lesson6/sequence_rnn[torch-train-b64-t8]"]
    wording(
        found.changes[0],
        "lesson6/sequence_rnn[torch-train-b64-t8]: 0.67 ... 0.65 ... 0.68 ... 2 ... 3",
    )
    wording(found.sentence, "10% ... 1")
    same = compare(both, both)
    assert same.changes == []
    wording(same.sentence, "10%")


def test_cells_that_an_interrupted_run_has_not_come_to_are_not_lost(wording: Wording) -> None:
    """Planted: a run of two cells of which one was done. What was done still counts."""
    whole = made(result(), result("torch", 0.002))
    cut = document(REQUEST, [result(step=0.002)], planned=2)
    found = compare(whole, cut)
    assert [(c.kind, c.name) for c in found.changes] == [
        ("slower", "lesson6/sequence_rnn[numpy-train-b64-t8]")
    ]
    wording(found.lines()[0], "1 ... 2")
    wording.line(found.markdown(), "1 ... 2")
    wording(found.record()["limits"], "1 ... 2")
    back = compare(cut, whole)
    assert [c.kind for c in back.changes] == ["faster"]
    wording.line(back.lines()[0], "1 ... 2")
    # A cell that was done and has no speed is lost all the same.
    failed = document(REQUEST, [refused("torch")], planned=2)
    assert [c.kind for c in compare(whole, failed).changes] == ["lost"]


def test_cells_that_vanish_count_and_new_ones_do_not(wording: Wording) -> None:
    four = [result(), result("torch"), result(batch=1), result("torch", batch=1)]
    assert compare(made(*four), made(*four[:2])).sentence.endswith(": 2 lost")
    assert compare(made(*four), made(*four[:2])).exit_code == 1
    found = compare(made(*four[:2]), made(*four))
    assert found.exit_code == 0
    wording(found.sentence, "10% ... 2")


def test_a_new_cell_without_a_speed_counts_unless_it_is_not_offered() -> None:
    (change,) = compare(BASE, made(result(), refused("torch"))).changes
    assert (change.kind, change.worse) == ("new-cell", True)
    unsupported = refused("torch", "not offered")
    unsupported.status = "unsupported"
    (change,) = compare(BASE, made(result(), unsupported)).changes
    assert (change.kind, change.worse) == ("new-cell", False)


def test_a_speed_that_is_had_again_is_repaired(wording: Wording) -> None:
    found = compare(made(refused("numpy")), BASE).changes
    assert [(c.kind, c.worse) for c in found] == [("repaired", False)]
    wording.line(found[0].words, "differs ... 1: loss ... 1")
    of_columns = changes(made(refused("numpy")), BASE, baseline="torch@1")
    assert [change.baseline for change in of_columns] == ["torch@1"]
    assert compare(made(refused("numpy")), made(refused("numpy"))).changes == []


def test_threshold_counts() -> None:
    slower = made(result(step=0.0012))
    assert [c.kind for c in compare(BASE, slower, 0.1).changes] == ["slower"]
    assert compare(BASE, slower, 0.25).changes == []


def test_accuracy_is_told_in_yardsticks(wording: Wording) -> None:
    (worse,) = compare(BASE, made(result(ratio=12.0))).changes
    wording(worse.words, "2 ... 12")
    (better,) = compare(made(result(ratio=12.0)), BASE).changes
    assert (better.kind, better.worse) == ("accuracy-gained", False)


def test_relative_to_a_backend() -> None:
    content = made(result(), result("torch", 0.0004), result("jax", 0.002), refused("keras"))
    told = [str(each) for each in relative_speeds(content, "numpy")]
    assert told[0].startswith("lesson6/sequence_rnn[train-b64-t8]: torch is 2.5")
    assert told[1].startswith("lesson6/sequence_rnn[train-b64-t8]: jax is 0.5")
    assert all(text.endswith(" as fast as numpy") for text in told)
    assert len(told) == 2
    assert relative_speeds(content, "keras") == []


def test_relative_speeds_are_told_cell_by_cell_and_altogether(wording: Wording) -> None:
    cells = [result(), result("torch", 0.0005), result(batch=1), result("torch", 0.002, batch=1)]
    heading, *told = relative_lines(made(*cells), "numpy")
    wording(heading, "numpy ... 95%")
    assert len(told) == 3
    wording(told[-1], "torch: 1 ... numpy ... 2 ... 0.5 ... 2")
    wording(relative_lines(made(result()), "numpy"), "numpy")


def test_a_reference_that_is_not_timed_is_refused(wording: Wording) -> None:
    check_reference("torch", ["numpy", "torch"])
    with wording.raises(UsageError, "'torhc' ... 'torch'"):
        check_reference("torhc", ["numpy", "torch"])


def with_processor(name: str) -> SpeedFile:
    """Return ``BASE`` as if it were measured on a processor of this name."""
    plain = BASE.plain()
    plain["machine_info"]["harness"]["machine"]["cpu"] = name
    return speed_file(plain)


def changed(path: str, value: Any) -> SpeedFile:
    other = with_processor("a processor").plain()
    *folders, last = path.split("/")
    place = other["machine_info"]["harness"]
    for folder in folders:
        place = place[folder]
    place[last] = value
    return speed_file(other)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("machine/cpu", "another", ""),
        ("device", "cuda", "cpu ... cuda"),
        ("threads", 1, "2 ... 1"),
        ("dtype", "tf32", "float32 ... tf32"),
        ("workers/numpy/versions/numpy", "2.0", "numpy ... numpy: 1.0 ... 2.0"),
        (
            "workers/numpy/environment/MALLOC_TOP_PAD_",
            "1",
            "MALLOC_TOP_PAD_ ... numpy: now 1",
        ),
    ],
)
def test_what_is_not_the_same_is_told(path: str, value: Any, words: str, wording: Wording) -> None:
    (found,) = environment_changes(with_processor("a processor"), changed(path, value))
    wording.line(found, words)


def test_a_version_of_several_backends_is_told_once(wording: Wording) -> None:
    files = []
    for version in ("1.0", "2.0"):
        content = made(result(), result("torch")).plain()
        for worker in content["machine_info"]["harness"]["workers"].values():
            worker["versions"] = {"numpy": version}
        files.append(speed_file(content))
    (found,) = environment_changes(*files)
    wording(found, "numpy ... numpy, torch: 1.0 ... 2.0")


def test_another_card_is_told_where_cards_are_used() -> None:
    files = []
    for name in ("A100", "H100"):
        content = changed("device", "cuda").plain()
        content["machine_info"]["harness"]["gpus"] = [{"name": name, "driver_version": "1"}]
        files.append(speed_file(content))
    (found,) = environment_changes(*files)
    assert str(found) == "GPU and driver: A100 1 became H100 1"


def test_same_files_have_no_differences() -> None:
    assert environment_changes(BASE, copy.deepcopy(BASE)) == []


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["compare", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_command(tmp_path: Path) -> None:
    old, slow, moved = (tmp_path / f"{n}.json" for n in ("old", "slow", "moved"))
    write(old, BASE)
    write(slow, made(result(step=0.0012)))
    write(moved, changed("machine/cpu", "another"))
    code, out, _ = run(str(old), str(old))
    assert (code, out) == (0, "beyond 10% and the noise: nothing changed\n")
    code, out, _ = run(str(old), str(slow))
    assert code == 1
    assert "slower:\n  lesson6/sequence_rnn[numpy-train-b64-t8]: 0.83 times (0.81 to 0.85)" in out
    assert run(str(old), str(slow), "--threshold", "30%")[0] == 0
    # Another machine is what files are compared for.
    code, out, _ = run(str(old), str(moved))
    assert code == 0
    assert "different: processor: " in out
    code, out, _ = run(str(old), str(slow), "--json")
    content = json.loads(out)
    (change,) = content["changes"]
    assert (code, content["exit_code"], change["kind"]) == (1, 1, "slower")
    assert change["speed"]["low"] < change["speed"]["value"] < change["speed"]["high"] < 1
    code, out, _ = run(str(old), str(slow), "--print-markdown")
    assert code == 1
    assert "- lesson6/sequence\\_rnn\\[numpy-train-b64-t8\\]: 0.83 times" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"x": ', "JSON"),
        ("{}", "harness ... --records"),
        ("some text", "harness ... check --records"),
        (None, ""),
    ],
)
def test_file_that_is_none(
    tmp_path: Path, content: str | None, words: str, wording: Wording
) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    code, _, errors = run(str(path), str(path))
    assert code == 2
    wording.line(errors, words)


def test_records_of_a_check_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"kind":"head","schema":1}\n{"kind":"end"}\n')
    with pytest.raises(DocumentError) as caught:
        read(path)
    told = "this is a record file of 'harness check', not results of 'harness bench'"
    assert str(caught.value) == f"{path}: {told}"


@pytest.mark.parametrize(
    ("text", "share_", "words"),
    [
        ("10%", 0.1, ""),
        ("0.1", 0.1, ""),
        ("150%", 1.5, ""),
        ("0", 0.0, ""),
        ("10", None, "'10' ... 10% ... 10"),
        ("1", None, "'1' ... 1% ... 1"),
        ("much", None, "--threshold ... 10% ... 0.1 ... 'much'"),
    ],
)
def test_threshold(text: str, share_: float | None, words: str, wording: Wording) -> None:
    if share_ is not None:
        assert share(text) == share_
        return
    with pytest.raises(UsageError) as caught:
        share(text)
    wording.line(caught.value, words)
