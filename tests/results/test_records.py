"""Record files: nothing acknowledged is lost, and whatever is damaged is named."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.checking import record_forms, record_made
from harness.checking.record_file import RecordError, RecordWriter, read_records


def result(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(record_forms.RESULT_FIELDS)
    return {"kind": "result", **fields, "verdict": "agree", **changes}


def write(path: Path, *lines: dict[str, Any]) -> None:
    with RecordWriter(path) as writer:
        for line in lines:
            writer.append(line)


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    lines = [
        record_made.head(
            ["check", "--backend", "torch"], {"torch": {"torch": "2.0"}}, {"torch": {}}
        ),
        {"kind": "begin", "cell": "a"},
        result(spec="ä/ö", layers={"out": "native"}, error=1e-300),
        {"kind": "end", "cell": "a"},
    ]
    write(path, *lines)
    read = read_records(path)
    assert list(read.lines) == lines
    assert read.torn is None
    assert read.repaired == ()
    assert read.of_kind("result") == lines[2:3]
    assert path.read_bytes().isascii()


def test_head_describes_the_machine() -> None:
    head = record_made.head([], {}, {})
    assert head["kind"] == "head"
    assert head["schema"] == 1
    machine = head["machine"]
    assert set(machine) >= {"cpu", "cores", "memory", "kernel", "python"}
    assert 0 < machine["usable_cores"] <= machine["cores"]
    assert machine["memory"] > 1 << 28


def test_numbers_that_json_has_not_are_read_by_float(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    values = [math.nan, math.inf, -math.inf, np.float32(0.5), np.int64(3)]
    write(path, {"kind": "x", "values": values, "array": np.array([1.0, np.nan]), "path": path})
    [line] = read_records(path).lines
    assert line["values"] == ["NaN", "Infinity", "-Infinity", 0.5, 3]
    assert math.isnan(float(line["values"][0]))
    assert [float(value) for value in line["values"][1:3]] == [math.inf, -math.inf]
    assert line["array"] == [1.0, "NaN"]
    assert line["path"] == str(path)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_file_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, {"kind": "x", "value": {"deep": [math.nan]}})
    json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"cell": "a"}, "no kind"),
        ({"kind": "result", "verdict": "agree"}, "no spec, backend, "),
        (result(verdict="agreed"), "did you mean 'agree'"),
        ({"kind": "x", "value": object()}, "not JSON serializable"),
        ({"kind": "x", "value": {1: 2}}, "the key 1 is not a string"),
    ],
)
def test_wrong_record_is_refused_and_not_written(
    tmp_path: Path, line: dict[str, Any], words: str
) -> None:
    path = tmp_path / "run.jsonl"
    with RecordWriter(path) as writer, pytest.raises(RecordError, match=words):
        writer.append(line)
    assert path.read_bytes() == b""


def test_torn_last_line_is_accepted_reported_and_closed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, {"kind": "begin", "cell": "a"})
    with path.open("ab") as file:
        file.write(b'{"kind":"resu')
    read = read_records(path)
    assert [line["cell"] for line in read.lines] == ["a"]
    assert read.torn == '{"kind":"resu'

    write(path, {"kind": "begin", "cell": "b"}, {"kind": "end", "cell": "b"})
    read = read_records(path)
    assert [line["cell"] for line in read.lines] == ["a", "b", "b"]
    assert read.torn is None
    assert read.repaired == ('{"kind":"resu',)


def test_torn_line_longer_than_a_block_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    torn = '{"kind":"x","text":"' + "y" * 200_000
    path.write_text('{"kind":"begin"}\n' + torn)
    write(path, {"kind": "end"})
    read = read_records(path)
    assert [line["kind"] for line in read.lines] == ["begin", "end"]
    assert read.repaired == (torn,)


def test_line_that_misses_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind":"begin"}')
    assert len(read_records(path).lines) == 1
    write(path, {"kind": "end"})
    read = read_records(path)
    assert [line["kind"] for line in read.lines] == ["begin", "end"]
    assert read.repaired == ()


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (b'{"kind":"resu', r"run.jsonl:2: not JSON"),
        (b"[1, 2]", r"run.jsonl:2: no record"),
        (b"\xff\xfe", r"run.jsonl:2: not JSON"),
        (b'{"kind":"head","schema":99}', r"run.jsonl:2: schema 99 is unknown"),
    ],
)
def test_bad_line_in_the_middle_is_an_error_with_its_place(
    tmp_path: Path, middle: bytes, words: str
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"kind":"begin"}\n' + middle + b'\n{"kind":"end"}\n')
    with pytest.raises(RecordError, match=words):
        read_records(path)


def test_missing_folder_and_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nowhere.run.jsonl: No such file"):
        RecordWriter(tmp_path / "nowhere" / "run.jsonl")
    with pytest.raises(RecordError, match=r"run.jsonl: no such file"):
        read_records(tmp_path / "run.jsonl")


FILL = """
import resource, sys
from harness.checking.record_file import RecordError, RecordWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with RecordWriter(sys.argv[1]) as writer:
    for number in range(100):
        try:
            writer.append({"kind": "begin", "number": number, "text": "t" * 50})
        except RecordError as error:
            print(number, error)
"""


def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True
    )
    first, second, *_ = done.stdout.splitlines()
    written = int(first.split()[0])
    assert 5 < written < 20
    assert f"cannot write to {path}: only " in first
    assert f"cannot write to {path}: " in second
    read = read_records(path)
    assert [line["number"] for line in read.lines] == list(range(written))
    assert read.torn

    write(path, {"kind": "x", "number": -1})
    assert read_records(path).lines[-1]["number"] == -1


APPEND = """
import sys
from harness.checking.record_file import RecordWriter
with RecordWriter(sys.argv[1]) as writer:
    for number in range(int(sys.argv[3])):
        writer.append({"kind": "begin", "writer": sys.argv[2], "number": number, "text": "t" * 300})
        print(number, flush=True)
"""


def start_writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPEND, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    writers = [start_writer(path, name, 500) for name in "ab"]
    for writer in writers:
        writer.communicate()
    read = read_records(path)
    for name in "ab":
        numbers = [line["number"] for line in read.lines if line["writer"] == name]
        assert numbers == list(range(500))


def test_threads_share_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with RecordWriter(path) as writer:

        def append(name: int) -> None:
            for number in range(50):
                writer.append({"kind": "x", "name": name, "number": number})

        threads = [threading.Thread(target=append, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read_records(path).lines) == 200


KILLS = """
import os, random, signal, sys, time
from harness.checking.record_file import RecordWriter
random.seed(3)
acknowledged = 0
for attempt in range(200):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with RecordWriter(sys.argv[1]) as records:
            while True:
                records.append({"kind": "begin", "attempt": attempt, "text": "t" * 300})
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
        [sys.executable, "-c", KILLS, str(path)], capture_output=True, text=True, check=True
    )
    acknowledged = int(done.stdout)
    assert acknowledged >= 200
    # A line may have been written and its writer killed before it could say so.
    written = [line for line in read_records(path).lines if line["kind"] == "begin"]
    assert len(written) in range(acknowledged, acknowledged + 201)
