"""What is shown while a command works: time left, plain lines in pipes and on dumb terminals."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from terminals import plain, shown

from harness.checking.console import CheckProgress
from harness.output.progress import Progress, clock_time
from harness.results.cell import Cell, CellResult

NUMPY = ("lesson6/simple_rnn", "--backend", "numpy")
SMALL = ("--size", "hidden=8")
CHECK = ("check", *NUMPY, *SMALL, "--check", "outputs")
TRAIN = ("train", *NUMPY, *SMALL, "--text", "text", "--epochs", "2", "--no-proof")
BENCH = ("bench", *NUMPY, *SMALL, "--rounds", "1", "--batch", "2", "--mode", "forward")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(width: int = 80, **more: Any) -> Console:
    return Console(file=Terminal(), width=width, force_terminal=True, _environ={}, **more)


def test_the_time_left_is_what_the_rest_takes_at_the_pace_so_far() -> None:
    seconds = [100.0]
    bar = Progress(console(), "working", lambda: seconds[0])
    bar.plan(10)
    assert bar.count() == ""
    bar.at(0, "0/10")
    seconds[0] += 5
    assert bar.count() == "0/10", "nothing done tells nothing"
    bar.at(2, "2/10")
    assert bar.count() == "2/10, about 0:20 left"
    bar.plan(10, done=2)
    seconds[0] += 30
    bar.at(3, "3/10")
    assert bar.left() == "about 3:30 left", "what was there before is not this run's pace"
    bar.at(10, "10/10")
    assert bar.left() == ""


def test_the_time_left_never_grows_while_nothing_is_done() -> None:
    seconds = [0.0]
    bar = Progress(console(), "working", lambda: seconds[0])
    bar.plan(4)
    seconds[0] = 10
    bar.at(1, "1/4")
    told = []
    for seconds[0] in (10, 15, 20, 60, 600):
        bar.at(1, "1/4")
        told.append(bar.left())
    # A part takes ten seconds: while one is made it gets less, and two come after it.
    assert told == [f"about 0:{left} left" for left in (30, 25, 20, 20, 20)]
    bar.at(2, "2/4")
    assert bar.left() == "about 10:00 left"
    bar.at(3, "3/4")
    seconds[0] += 10_000
    assert bar.left() == "", "of the last part, which takes longer than all others, nobody knows"


@pytest.mark.parametrize(("cells", "told"), [(9, "2/9"), (10, "2/10, about 0:20 left")])
def test_a_check_of_few_cells_tells_no_time_left(
    cells: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    progress = CheckProgress(console())
    monkeypatch.setattr(progress.bar, "_clock", lambda: seconds[0])
    plan = [Cell("spec", f"backend{n}", "cpu", "float32", "native") for n in range(cells)]
    progress.planned(plan)
    seconds[0] = 5.0
    for cell in plan[:2]:
        progress.ended(CellResult(cell, []))
    assert progress.bar.count() == told


def test_a_pipe_has_a_line_of_what_is_done_after_a_while() -> None:
    seconds, pipe = [0.0], io.StringIO()
    bar = Progress(Console(file=pipe, width=80, _environ={}), "timing", lambda: seconds[0])
    for seconds[0], text in ((1.0, "one"), (11.0, "two"), (12.0, "three"), (21.0, "four")):
        bar.now(text)
    assert pipe.getvalue().splitlines() == ["two", "four"]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7384, "2:03:04")]
)
def test_clock_times(seconds: float, told: str) -> None:
    assert clock_time(seconds) == told


@pytest.mark.parametrize("width", [80, 40])
def test_a_bar_keeps_count_and_time_at_any_width(width: int) -> None:
    seconds = [0.0]
    target = console(width)
    with Progress(target, "checking", lambda: seconds[0]) as bar:
        bar.plan(144)
        seconds[0] = 60.0
        bar.at(12, "12/144")
        bar.doing("lesson6/theano_gru_combined keras-torch cpu float64 equations")
    drawn = plain(target.file.getvalue())  # type: ignore[attr-defined]
    for told in ("checking", "12/144", "1:00", "about 11:00 left", "equations"):
        assert told in drawn, drawn
    assert "…" not in drawn
    assert max(map(cell_len, re.split(r"[\r\n]", drawn))) <= width


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    return tmp_path


@pytest.mark.parametrize("how", ["pipe", "dumb"])
@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("command", [CHECK, TRAIN], ids=lambda c: c[0])
def test_pipes_and_dumb_terminals_have_plain_lines(
    command: tuple[str, ...], more: tuple[str, ...], how: str, folder: Path
) -> None:
    columns, env = (None, {}) if how == "pipe" else (80, {"TERM": "dumb"})
    code, text = shown((*command, *more), folder, columns=columns, errors=True, env=env)
    assert code == 0, text
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert "starting numpy" in lines[0] or "starting numpy" in lines[1]
    if command is CHECK:
        assert any(re.match(r"2/2: lesson6/simple_rnn", line) for line in lines), text
    else:
        assert "epoch 2/2: loss" in text
        assert "nan" not in text


def test_there_is_no_loss_before_the_first_one(folder: Path) -> None:
    code, text = shown(TRAIN, folder, columns=80, errors=True)
    assert code == 0, text
    assert "\x1b[" in text, "a live terminal has a bar"
    assert "nan" not in text
    assert "starting numpy" in text


@pytest.mark.slow
def test_bench_tells_of_each_cell_and_of_the_load(folder: Path) -> None:
    code, text = shown(BENCH, folder, columns=None, errors=True)
    assert code in (0, 1), text
    assert "numpy" in text
    assert re.search(r"^1/1: ", text, re.MULTILINE), text
