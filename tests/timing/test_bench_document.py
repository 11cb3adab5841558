"""The file of a run is pytest-benchmark's own; tables, slopes and tunings say what is in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from bench_results import REQUEST, refused, result
from wording import Wording

from harness.command.declared import make_options
from harness.results.speeds import SpeedFile
from harness.timing import console, sweep, table
from harness.timing.console import results_exit_code
from harness.timing.contestant import Status, TimedResult
from harness.timing.json_file import (
    DocumentError,
    check_writable,
    document,
    environment,
    read,
    write,
)
from harness.timing.noise import Load, find_doubts, warn_if_busy
from harness.timing.options import BenchOptions
from harness.timing.request import TUNINGS, BenchPlan

NAME = "lesson6/sequence_rnn[numpy-train-b64-t8]"


def test_benchmark_entry() -> None:
    content = document(REQUEST, [result(), refused()]).plain()
    (entry,) = content["benchmarks"]
    assert entry["name"] == entry["fullname"] == NAME
    assert entry["group"] == "lesson6/sequence_rnn[train-b64-t8]"
    assert entry["param"] == "numpy-train-b64-t8"
    assert entry["params"]["backend"] == "numpy"
    assert entry["stats"]["rounds"] == 5
    assert entry["stats"]["iterations"] == 100
    assert entry["stats"]["median"] == pytest.approx(0.001)
    assert entry["stats"]["data"] == pytest.approx([0.00098, 0.00101, 0.001, 0.00099, 0.00102])
    assert entry["extra_info"]["rate"]["unit"] == "characters"
    (without,) = content["harness"]["without_speed"]
    assert without["reason"] == "differs: step 1: loss"
    assert "stats" not in without


def test_pytest_benchmark_reads_it(tmp_path: Path) -> None:
    for name, step in (("old", 0.001), ("new", 0.002)):
        write(tmp_path / f"{name}.json", document(REQUEST, [result(step=step), result("torch")]))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "old.json", "new.json"]
    done = subprocess.run(
        [*command, "--group-by", "name", "--columns", "median"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{NAME} (old)" in done.stdout
    assert f"{NAME} (new)" in done.stdout
    assert "2,000.0000 (2.00)" in done.stdout
    assert done.stderr == ""


def test_environment_tells_what_decides_speed() -> None:
    found = environment(REQUEST, [result()])
    assert found["threads"] == 2
    assert found["machine"]["cpu"]
    worker = found["workers"]["numpy"]
    assert worker["environment"] == {"OMP_NUM_THREADS": "2"}
    assert worker["versions"] == {"numpy": "1.0"}
    assert worker["settings"] == {"tf32": "False"}


def test_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    path = tmp_path / "a.json"
    write(path, document(REQUEST, [result()]))
    before = path.read_text()
    assert read(path).harness.without_speed == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with wording.raises(DocumentError):
        write(path, document(REQUEST, [result("torch")]))
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_infinity_is_no_json_number(tmp_path: Path) -> None:
    cell = result(ratio=float("inf"))
    write(tmp_path / "a.json", document(REQUEST, [cell]))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert content["benchmarks"][0]["extra_info"]["values"]["ratio"] == "Infinity"


def test_file_that_cannot_be_written(tmp_path: Path, wording: Wording) -> None:
    with wording.raises(DocumentError):
        check_writable(tmp_path / "no" / "a.json")
    with pytest.raises(DocumentError, match="is a folder"):
        check_writable(tmp_path)


class Done:
    """A run that has been made already."""

    plan = BenchPlan(REQUEST, (), (), ())

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def document(self, planned: int | None) -> SpeedFile:
        return document(REQUEST, self.run())

    def run(self) -> list[TimedResult]:
        return [result()]


def test_what_cannot_be_kept_is_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wording: Wording,
) -> None:
    """The place was fine before the run, and somebody else's file is there after it."""
    path = tmp_path / "a.json"

    class Crossed(Done):
        def run(self) -> list[TimedResult]:
            path.write_text("mine")
            return [result()]

    monkeypatch.setattr(console, "Bench", Crossed)
    options = make_options(BenchOptions, {"print_markdown": True, "records": path})
    with wording.raises(DocumentError, "'harness bench'"):
        console.run_bench(REQUEST, ("bench",), options)
    assert "| sequence\\_rnn | 512" in capsys.readouterr().out
    assert path.read_text() == "mine"


def test_json_has_the_command_and_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    write(path, document(REQUEST, [result(step=0.0001)]))
    monkeypatch.setattr(console, "Bench", Done)
    options = make_options(BenchOptions, {"baseline": path, "as_json": True})
    assert console.run_bench(REQUEST, ("bench", "--json"), options) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["harness"]["commands"] == [["bench", "--json"]]
    assert [change["kind"] for change in found["since"]["changes"]] == ["slower"]


def test_slopes(wording: Wording) -> None:
    # Time that grows as the square root of the batch, and not at all with the length.
    cells = [
        result(batch=batch, time=time, step=1e-4 * batch**0.5)
        for batch in (16, 64, 256)
        for time in (8, 16)
    ]
    fits = sweep.fit_slopes([*cells, refused()])
    over_batch = [f for f in fits if f["over"] == "batch"]
    over_time = [f for f in fits if f["over"] == "time"]
    assert len(over_batch) == 2
    assert len(over_time) == 3
    assert [f["slope"] for f in over_batch] == pytest.approx([0.5, 0.5])
    assert [f["r_squared"] for f in over_batch] == pytest.approx([1, 1])
    assert [f["slope"] for f in over_time] == pytest.approx([0, 0, 0], abs=1e-9)
    wording.line(
        sweep.slope_lines(over_batch)[0], "lesson6/sequence_rnn numpy ... 8 ... batch^0.50"
    )


def test_one_size_has_no_slope() -> None:
    assert sweep.fit_slopes([result(), result("torch")]) == []


def test_tunings_say_what_paid(wording: Wording) -> None:
    cells = [
        result(step=0.0015),
        result(step=0.0010, tuning="malloc"),
        result(step=0.0020, tuning="hugepages"),
        result(step=0.0015, mode="forward"),
        result(step=0.00151, mode="forward", tuning="malloc"),
    ]
    found = sweep.compare_tunings(cells)
    assert [g["verdict"] for g in found] == ["pays", "harms", "same"]
    assert found[0]["speed_ratio"] == pytest.approx(1.5)
    assert found[0]["environment"] == TUNINGS["malloc"]
    lines = sweep.describe_tunings(found)
    wording.line(lines[0], "[numpy-train-b64-t8] ... 1.50")
    wording.line(lines[1], "0.75")
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in lines[-1]


def test_a_table_says_where_no_digits_are_told() -> None:
    cell = result()
    cell.record.values = {**cell.record.values, "digits": None}
    (grid,), _ = table.make_tables([cell])
    assert grid.rows[0][1].endswith("\ndigits unknown")


def test_one_round_has_no_spread() -> None:
    (grid,), _ = table.make_tables([result(noise=(1.0,)), result("torch", step=0.002)])
    assert grid.rows[0][1].splitlines()[0].removeprefix("*") == "512 one round"


def test_table(wording: Wording) -> None:
    cells = [
        result(step=0.001),
        result("torch", step=0.002),
        refused("jax", "answers from a cache: ..."),
        result("torch", step=0.0005, tuning="malloc"),
        refused("torch", "timeout: ...", tuning="hugepages"),
    ]
    (grid,), notes = table.make_tables(cells)
    assert grid.title == "train, batch 64"
    assert grid.columns == ["system", "numpy", "torch", "jax"]
    below = "derived\n5.2 digits"
    assert grid.rows == [["sequence_rnn", f"*512 ±1%\n{below}", f"256 ±1%\n{below}", "refused [1]"]]
    wording(notes, "jax ... torch+hugepages")
    below = below.replace("\n", "<br>")
    row = f"| sequence\\_rnn | \\*512 ±1%<br>{below} | 256 ±1%<br>{below} | refused \\[1\\] |"
    assert row in grid.markdown().splitlines()


def test_a_worthless_figure_is_said_to_be_one_in_the_table_and_the_file(wording: Wording) -> None:
    wide = result(noise=(0.8, 0.9, 1.0, 1.3, 1.4))
    quiet = Load(start=0.2, own_at_start=0, end=2.1, own=2)
    wide.record.doubts = find_doubts(wide.record.rate, quiet, cores=2)
    (grid,), notes = table.make_tables([wide, result("torch")])
    assert "% [1]\n" in grid.rows[0][1]
    assert "[" not in grid.rows[0][2]
    (note,) = notes
    wording.line(note, "numpy ... ±17%")
    entries = document(REQUEST, [wide, result("torch")]).benchmarks
    assert [entry.extra_info.doubts for entry in entries] == [wide.record.doubts, []]


@pytest.mark.parametrize(("load", "warned"), [(0.9, False), (1.1, True)])
def test_other_work_is_told_before_anything_is_timed(load: float, warned: bool) -> None:
    assert ("load 1.1 on 2 cores" in warn_if_busy(load, cores=2)) == warned
    assert bool(warn_if_busy(load, cores=2)) == warned


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(start=0.9, own_at_start=0, end=2.9, own=2), []),
        (Load(start=1.1, own_at_start=0, end=2, own=2), ["load 1.1 on 2 cores before"]),
        (Load(start=2.2, own_at_start=2, end=2.2, own=2), []),
        (Load(start=2.2, own_at_start=2, end=3.4, own=2), ["load 3.4 on 2 cores after"]),
    ],
)
def test_other_work_of_the_machine_makes_a_figure_worthless(load: Load, words: list[str]) -> None:
    found = find_doubts(result().record.rate, load, cores=2)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_a_run_that_makes_no_load_is_not_spoken_of(wording: Wording) -> None:
    (told,) = find_doubts(
        result().record.rate, Load(start=3, own_at_start=0.2, end=3, own=1), cores=2
    )
    wording.line(told, "3.0 ... 2")
    (told,) = find_doubts(
        result().record.rate, Load(start=0, own_at_start=0, end=4, own=1), cores=2
    )
    wording.line(told, "1")


def test_fastest_is_marked_only_as_far_as_noise_allows() -> None:
    other = (1.02, 1.0, 0.98, 1.01, 0.99)
    (grid,), _ = table.make_tables([result(step=0.001), result("torch", step=0.00101, noise=other)])
    assert [text.startswith("*") for text in grid.rows[0][1:]] == [True, True]


@pytest.mark.parametrize(("steps", "marked"), [((1, 1), [1, 0]), ((2, 1), [0, 0])])
def test_a_worthless_figure_is_not_the_fastest(steps: tuple[int, int], marked: list[int]) -> None:
    cells = [result(b, step=s / 1e3) for b, s in zip(("numpy", "torch"), steps, strict=True)]
    cells[1].record.doubts = find_doubts(cells[1].record.rate, Load(3, 0.2, 3, 1), cores=2)
    assert [text.startswith("*") for text in table.make_tables(cells)[0][0].rows[0][1:]] == marked


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("measured", "measured"), 0),
        (("measured", "unsupported"), 0),
        (("measured", "refused"), 1),
        (("refused",), 1),
        (("unsupported",), 3),
        (("measured", "refused", "broken"), 3),
    ],
)
def test_exit_code(statuses: tuple[Status, ...], code: int) -> None:
    cells = [result() for _ in statuses]
    for cell, status in zip(cells, statuses, strict=True):
        cell.status = status
    assert results_exit_code(cells) == code
