"""Record files: nothing acknowledged is lost, and whatever is damaged is named."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from pydantic import ValidationError
from wording import Wording

from harness.checking.request import Request
from harness.checking.runner import CellRunner
from harness.results.cell import Cell
from harness.results.file import RecordError, RecordWriter, encode_line, parse_line, read_records
from harness.results.lines import Begin, RecordLine, Result

CELL = Cell("ä/ö", "numpy", "cpu", "float64", "native")


# A short line, told from others by further fields; programs of tests begin with it.
MARK = """
from harness.results.lines import Begin

def mark(**more):
    return Begin(spec="s", backend="numpy", device="cpu", dtype="float64", path="native", **more)
"""


def mark(**more: Any) -> Begin:
    return Begin(spec="s", backend="numpy", device="cpu", dtype="float64", path="native", **more)


def result(**changes: Any) -> Result:
    fields: dict[str, Any] = dict.fromkeys(("error", "yardstick", "ratio", "tolerance", "worst"))
    fields |= {"backend_version": "", "check": "loss", "verdict": "agree", "seconds": 0.5}
    fields |= {"detail": "", "held": 0, "layers": {"out": "native"}}
    return Result(**vars(CELL), **{**fields, **changes})


def write(path: Path, *lines: RecordLine) -> None:
    with RecordWriter(path) as writer:
        for line in lines:
            writer.append(line)


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    lines = [Begin.of(CELL, {"harness": "0.1.0"}), result(), mark(seconds=1e-300)]
    write(path, *lines)
    read = read_records(path)
    assert list(read.lines) == lines
    assert read.torn is None
    assert read.repaired == ()
    assert read.of_kind(Result) == lines[1:2]
    assert path.read_bytes().isascii()


def test_head_describes_the_machine() -> None:
    with CellRunner(Request(("lesson6/simple_rnn",), ("numpy",))) as runner:
        head = runner.new_head()
    assert head.plain()["kind"] == "head"
    assert head.plain()["schema"] == 1
    machine = head.machine
    assert machine.model_fields_set >= {"cpu", "cores", "memory", "kernel", "python"}
    assert 0 < machine.usable_cores <= machine.cores
    assert machine.memory > 1 << 28


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_numbers_that_json_has_not_are_read_by_float(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    values = (math.inf, 1e-7, math.inf, 2.5, "logits")
    names = ("error", "yardstick", "ratio", "tolerance", "worst")
    line = result(**dict(zip(names, values, strict=True)), growth=((3, math.nan, 0.5),))
    write(path, line)
    (read,) = read_records(path).of_kind(Result)
    assert (read.error, read.yardstick) == (math.inf, 1e-7)
    assert math.isnan(read.growth[0][1])
    told = json.loads(path.read_text(), parse_constant=refuse)
    assert told["error"] == "Infinity"
    assert told["growth"] == [[3, "NaN", 0.5]]


def test_a_name_that_is_not_utf_8_is_read_again() -> None:
    line = mark(since="caf\udce9")
    assert parse_line(encode_line(line.plain())) == line


def test_a_line_of_a_later_version_keeps_its_fields() -> None:
    line = parse_line(b'{"kind":"done","seconds":1.5,"new":{"deep":[1,"Infinity"]}}')
    assert line is not None
    assert line.plain() == {"kind": "done", "seconds": 1.5, "new": {"deep": [1, "Infinity"]}}


@pytest.mark.parametrize(
    "wrong", [{"verdict": "agreed"}, {"layers": {1: "x"}}, {"held": -1}, {"error": 1.0}]
)
def test_a_wrong_line_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        result(**wrong)


def test_torn_last_line_is_accepted_reported_and_closed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, mark(seconds=1.0))
    with path.open("ab") as file:
        file.write(b'{"kind":"resu')
    read = read_records(path)
    assert read.lines == (mark(seconds=1.0),)
    assert read.torn == '{"kind":"resu'

    write(path, mark(seconds=2.0), mark(seconds=2.0))
    read = read_records(path)
    assert [line.seconds for line in read.of_kind(Begin)] == [1.0, 2.0, 2.0]
    assert read.torn is None
    assert read.repaired == ('{"kind":"resu',)


def test_torn_line_longer_than_a_block_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    torn = '{"kind":"x","text":"' + "y" * 200_000
    path.write_bytes(encode_line(mark(seconds=1).plain()) + torn.encode())
    write(path, mark(seconds=2.0))
    read = read_records(path)
    assert [line.seconds for line in read.of_kind(Begin)] == [1, 2]
    assert read.repaired == (torn,)


def test_line_that_misses_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(encode_line(mark(seconds=1).plain())[:-1])
    assert len(read_records(path).lines) == 1
    write(path, mark(seconds=2.0))
    read = read_records(path)
    assert [line.seconds for line in read.of_kind(Begin)] == [1, 2]
    assert read.repaired == ()


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (b'{"kind":"resu', r"run.jsonl:2: not JSON"),
        (b"[1, 2]", r"run.jsonl:2: not a record"),
        (b"\xff\xfe", r"run.jsonl:2: not JSON"),
        (b'{"kind":"head","schema":99}', r"run.jsonl:2: schema 99 is unknown"),
    ],
)
def test_bad_line_in_the_middle_is_an_error_with_its_place(
    tmp_path: Path, middle: bytes, words: str
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"kind":"done","seconds":1}\n' + middle + b'\n{"kind":"done","seconds":2}\n')
    with pytest.raises(RecordError, match=words):
        read_records(path)


def test_missing_folder_and_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nowhere.run.jsonl: No such file"):
        RecordWriter(tmp_path / "nowhere" / "run.jsonl")
    with pytest.raises(RecordError, match=r"run.jsonl: no such file"):
        read_records(tmp_path / "run.jsonl")


FILL = """
import resource, sys
from harness.results.file import RecordError, RecordWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with RecordWriter(sys.argv[1]) as writer:
    for number in range(100):
        try:
            writer.append(mark(seconds=number, text="t"))
        except RecordError as error:
            print(number, error)
"""


def test_a_new_file_to_which_nothing_is_written_is_removed(tmp_path: Path) -> None:
    for old in (False, True):
        path = tmp_path / "r.jsonl"
        if old:
            path.touch()
        RecordWriter(path).close()
        assert path.exists() == old


def test_names_of_fields_are_told_on_one_line_and_shortened(tmp_path: Path) -> None:
    text = (ROOT / "tests/golden/results/agree.jsonl").read_text(encoding="utf-8")
    head = json.loads(text.splitlines()[0])
    head["environment"] = {"A\n::error::" + "p" * 300: {"x": 1}}
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(head) + "\n")
    with pytest.raises(RecordError) as found:
        read_records(path)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "run.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", MARK + FILL, str(path)], capture_output=True, text=True, check=True
    )
    first, second, *_ = done.stdout.splitlines()
    written = int(first.split()[0])
    assert 5 < written < 20
    wording.line(first, f"{path}")
    assert f"cannot write to {path}: " in second
    read = read_records(path)
    assert [line.seconds for line in read.of_kind(Begin)] == list(range(written))
    assert read.torn

    write(path, mark(seconds=-1.0))
    assert read_records(path).lines[-1] == mark(seconds=-1.0)


APPEND = """
import sys
from harness.results.file import RecordWriter
with RecordWriter(sys.argv[1]) as writer:
    for number in range(int(sys.argv[3])):
        writer.append(mark(seconds=number, writer=sys.argv[2], text="t" * 300))
        print(number, flush=True)
"""


def start_writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MARK + APPEND, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    writers = [start_writer(path, name, 500) for name in "ab"]
    for writer in writers:
        writer.communicate()
    read = read_records(path)
    for name in "ab":
        numbers = [line.seconds for line in read.of_kind(Begin) if line.writer == name]
        assert numbers == list(range(500))


def test_threads_share_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with RecordWriter(path) as writer:

        def append(name: int) -> None:
            for number in range(50):
                writer.append(mark(seconds=name, number=number))

        threads = [threading.Thread(target=append, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read_records(path).lines) == 200


KILLS = """
import os, random, signal, sys, time
from harness.results.file import RecordWriter
random.seed(3)
acknowledged = 0
for attempt in range(200):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with RecordWriter(sys.argv[1]) as records:
            while True:
                records.append(mark(seconds=attempt, text="t" * 300))
                os.write(writer, b".")
    os.close(writer)
    os.read(reader, 1)
    time.sleep(random.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    acknowledged += 1
    while found := os.read(reader, 65536):
        acknowledged += len(found)
    os.close(reader)
print(acknowledged)
"""


def test_two_hundred_kills_lose_no_acknowledged_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", MARK + KILLS, str(path)], capture_output=True, text=True, check=True
    )
    acknowledged = int(done.stdout)
    assert acknowledged >= 200
    # A line may have been written and its writer killed before it could say so.
    written = read_records(path).of_kind(Begin)
    assert len(written) in range(acknowledged, acknowledged + 201)
