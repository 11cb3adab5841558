"""Two files of results: verdicts beyond threshold and noise, and what cannot be compared."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bench_results import REQUEST, refused, result
from click.testing import CliRunner

from harness.bench.compare import compare, differences, exit_code
from harness.bench.contestant import TimedResult
from harness.bench.json_file import document, write
from harness.bench.noise import beyond_noise
from harness.cli import cli

WIDE = (0.5, 0.8, 1.0, 1.3, 1.6)


def made(*results: TimedResult) -> dict[str, Any]:
    return document(REQUEST, results)


BASE = made(result())


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (result(step=0.001), "same"),
        (result(step=0.00105), "same"),
        (result(step=0.0012), "slower"),
        (result(step=0.0008), "faster"),
        # A median that is 20 % larger, in rounds that scatter by 50 %.
        (result(step=0.0012, noise=WIDE), "same"),
        (refused("numpy"), "lost"),
        (result(batch=128), "missing"),
    ],
)
def test_verdict(after: TimedResult, verdict: str) -> None:
    (change, *_) = compare(BASE, made(after), 0.1)
    assert change.verdict == verdict
    assert exit_code([change]) == (verdict in ("slower", "lost"))


def test_new_and_gained_cells_are_no_regression() -> None:
    found = compare(made(refused()), made(result("torch"), result("numpy")), 0.1)
    assert [c.verdict for c in found] == ["gained", "new"] or [c.verdict for c in found] == [
        "new",
        "gained",
    ]
    assert exit_code(found) == 0


def test_threshold_counts() -> None:
    slower = made(result(step=0.0012))
    assert [c.verdict for c in compare(BASE, slower, 0.1)] == ["slower"]
    assert [c.verdict for c in compare(BASE, slower, 0.25)] == ["same"]


def test_accuracy_is_told_beside_the_speed() -> None:
    (worse,) = compare(BASE, made(result(ratio=7.0)), 0.1)
    (better,) = compare(BASE, made(result(ratio=0.5)), 0.1)
    (alike,) = compare(BASE, made(result(ratio=3.0)), 0.1)
    assert worse.accuracy == "less accurate: 2 to 7 times the yardstick"
    assert better.accuracy == "more accurate: 2 to 0.5 times the yardstick"
    assert alike.accuracy == ""


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], True),
        ([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], True),
        ([1.0, 2.0, 5.0], [4.0, 5.0, 6.0], False),
        ([1.0, 1.0], [1.0, 1.0], False),
    ],
)
def test_noise(first: Sequence[float], second: Sequence[float], known: bool) -> None:
    assert beyond_noise(first, second) is known


def changed(path: str, value: Any) -> dict[str, Any]:
    other = copy.deepcopy(BASE)
    *folders, last = path.split("/")
    place = other["machine_info"]["harness"]
    for folder in folders:
        place = place[folder]
    place[last] = value
    return other


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("machine/cpu", "another", "processor: "),
        ("device", "cuda", "device: cpu and cuda"),
        ("threads", 1, "threads: 2 and 1"),
        ("dtype", "tf32", "dtype: float32 and tf32"),
        ("workers/numpy/versions/numpy", "2.0", "numpy of numpy: 1.0 and 2.0"),
        ("workers/numpy/environment/MALLOC_TOP_PAD_", "1", "MALLOC_TOP_PAD_ of numpy: none and 1"),
    ],
)
def test_what_makes_files_incomparable(path: str, value: Any, words: str) -> None:
    (found,) = differences(BASE, changed(path, value))
    assert found.startswith(words)


def test_another_card_is_a_difference_where_cards_are_used() -> None:
    first, second = changed("device", "cuda"), changed("device", "cuda")
    second["machine_info"]["harness"]["gpus"] = [{"name": "H100", "driver_version": "1"}]
    first["machine_info"]["harness"]["gpus"] = [{"name": "A100", "driver_version": "1"}]
    assert differences(first, second) == ["GPU and driver: A100 1 and H100 1"]


def test_same_files_have_no_differences() -> None:
    assert differences(BASE, copy.deepcopy(BASE)) == []


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["compare", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_command(tmp_path: Path) -> None:
    old, slow, moved = (tmp_path / f"{n}.json" for n in ("old", "slow", "moved"))
    write(old, BASE)
    write(slow, made(result(step=0.0012)))
    write(moved, changed("machine/cpu", "another"))
    code, out, _ = run(str(old), str(old))
    assert code == 0
    assert "same" in out
    code, out, _ = run(str(old), str(slow))
    assert code == 1
    assert "0.83x" in out
    assert "slower" in out
    assert run(str(old), str(slow), "--threshold", "30%")[0] == 0
    code, _, errors = run(str(old), str(moved))
    assert code == 2
    assert "processor: " in errors
    code, out, _ = run(str(old), str(moved), "--force")
    assert code == 0
    assert "not the same: processor" in out
    code, out, _ = run(str(old), str(slow), "--json")
    (cell,) = json.loads(out)["cells"]
    assert (code, cell["verdict"]) == (1, "slower")
    code, out, _ = run(str(old), str(slow), "--print-markdown")
    assert "| --- | ---: |" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("{}", "was not written by 'harness bench --records'"),
        (None, "cannot read"),
    ],
)
def test_file_that_is_none(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    code, _, errors = run(str(path), str(path))
    assert code == 2
    assert words in errors


def test_wrong_threshold(tmp_path: Path) -> None:
    write(tmp_path / "a.json", BASE)
    code, _, errors = run(str(tmp_path / "a.json"), str(tmp_path / "a.json"), "--threshold", "much")
    assert code == 2
    assert "--threshold takes a share such as 10% or 0.1, found 'much'" in errors
