"""What a file is, and that nothing is written over a file of another kind."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bench_results import REQUEST, result
from unprivileged import unprivileged
from wording import Wording

from harness.convert import weights
from harness.convert.weights import Weights, WeightsError
from harness.files import kinds
from harness.files.kinds import FileKind, check_kind, check_place, describe
from harness.files.user_file import FileFault
from harness.results.cell import Cell
from harness.results.file import RecordError, RecordWriter
from harness.results.lines import Begin
from harness.timing.json_file import DocumentError, check_writable, document, write

SMALL = Weights("my/model", "f" * 64, {"hidden": 3}, {"m.W": np.ones((2, 3))}, {})
ALL = kinds.KINDS
RESULTS = document(REQUEST, [result()])
PROGRAM = {"cell": {}, "check": "", "phase": "", "noise": {}, "training": {}, "inference": {}}


def make(folder: Path) -> dict[FileKind, Path]:
    """A file of each kind, as the harness makes it."""
    made = {kind: folder / str(number) for number, kind in enumerate(ALL)}
    weights.save(made[kinds.WEIGHTS], SMALL)
    weights.save(made[kinds.CHECKPOINT], SMALL, kinds.CHECKPOINT)
    with RecordWriter(made[kinds.RECORDS]) as writer:
        writer.append(Begin.of(Cell("a", "b", "cpu", "float32", "native"), None))
    made[kinds.FUZZED].write_text('{"kind":"fuzz","seed":0}\n')
    write(made[kinds.RESULTS], RESULTS)
    np.savez(folder / "a.npz", a=np.ones(2))
    kinds.mark_export(folder / "a.npz")
    (folder / "a.npz").rename(made[kinds.EXPORT])
    np.savez(folder / "b.npz", **{"output.y": np.ones(2)})
    with zipfile.ZipFile(folder / "b.npz", "a") as archive:
        archive.comment = kinds.RAN
    (folder / "b.npz").rename(made[kinds.ARRAYS_OF_RUN])
    with made[kinds.ARRAYS].open("wb") as file:
        np.savez(file, **{"inputs/x": np.ones(2), "expected/output.y": np.ones(2)})
    made[kinds.PROGRAM].write_text(json.dumps(PROGRAM))
    made[kinds.PAGE].write_bytes(b"<!doctype html>\n<html>" + kinds.REPORTED)
    made[kinds.DRAWING].write_bytes(b"<!doctype html>\n<html>" + kinds.DRAWN)
    made[kinds.MARKDOWN].write_text("<!-- backend-comparison-harness report -->\n## a run\n")
    made[kinds.JUNIT].write_text(
        '<?xml version="1.0"?>\n<testsuites name="backend-comparison-harness" />'
    )
    made[kinds.ISSUE].write_bytes(kinds.ISSUED)
    return made


OTHERS = {
    "spec": (b"# of mine\n\nmodel: my/model\n", "a spec"),
    "differences": (b"differences:\n", "a spec"),
    "text": ("Die Würde\n".encode(), "a text"),
    "yaml_in_a_text": (b"a\nmodel: x\n", "a text"),
    "lines": (b"\n" * 300_000, "a text"),
    "comments": (b"#\n" * 300_000, "a text"),
    "blanks": (b" \t\n" * 300_000, "a text"),
    "utf8_that_is_cut": (("x" + "é" * 70_000).encode(), "a text"),
    "bytes": (b"\xff\xfe\x00" * 99, "a file of something else"),
    "nul": (b"\0", "a text"),
    "json": (b'{"a": 1}', "JSON of something else"),
    "benchmark": (json.dumps({"benchmarks": [], "machine_info": {}}).encode(), "JSON of"),
    "indented": (b'{\n "kind": 1\n}', "JSON of something else"),
    "list": (b"[1]", "JSON of something else"),
    "deep": (b"[" * 100_000, "JSON of something else"),
    "deep_object": (b'{"a":' * 100_000, "JSON of something else"),
    "pod": (b'{"kind":"Pod","spec":{}}', "JSON of something else"),
    "kind": (b'{"kind":7}\n', "JSON of something else"),
    "kind_of_no_text": (b'{"kind":[]}\n', "JSON of something else"),
    "safetensors": (b"\x40" + bytes(7) + b'{"a":{"dtype":"F32"}}', "a safetensors file of somet"),
    "weights_without_a_format": (bytes(8) + kinds.OPENING + b"0" * 64 + b'"}', "a safetensors"),
    "zip": (b"PK\x03\x04" + bytes(400), "an archive of something else"),
    "module": (b"print('mine')\n", "a text"),
    "onnx": (b"\x08\x08\x12\x07pytorch", "a text"),
}


@pytest.mark.parametrize("wanted", ALL, ids=lambda kind: kind.name)
def test_only_its_own_kind_is_replaced(wanted: FileKind, tmp_path: Path, wording: Wording) -> None:
    for kind, path in make(tmp_path).items():
        before = path.read_bytes()
        if kind is wanted:
            assert check_place(path, wanted)
            assert describe(path) == kind.name
            continue
        with pytest.raises(FileFault) as caught:
            check_place(path, wanted)
        message = str(caught.value)
        wording.line(message, f"{kind.name} ... {wanted.name}")
        assert str(path) in message
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", OTHERS)
def test_what_somebody_else_has_made_stays(name: str, tmp_path: Path) -> None:
    content, words = OTHERS[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    for kind in ALL:
        with pytest.raises(FileFault, match=f"this is {words}"):
            check_place(path, kind)


def test_a_foreign_archive_with_arrays_stays(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "arrays.npz"
    for arrays in ({"x": np.ones(2)}, {"expected/x": np.ones(2), "mine": np.ones(2)}):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with wording.raises(FileFault):
            check_place(path, kinds.ARRAYS)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_where_nothing_is_lost_a_file_may_be_written(kind: FileKind, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    for name in ("empty", "absent", "dangling", "é" * 127):
        assert not check_place(tmp_path / name, kind)
    assert {p.name for p in tmp_path.iterdir()} == {"empty", "dangling"}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_new_file_has_an_ending_of_its_kind_or_none(kind: FileKind, tmp_path: Path) -> None:
    for ending in kind.endings:
        assert not check_place(tmp_path / f"new{ending.upper()}", kind)
    (tmp_path / "empty.pdf").touch()
    for name in ("new.pdf", "empty.pdf") if kind.endings else ():
        with pytest.raises(FileFault) as caught:
            check_place(tmp_path / name, kind)
        allowed = " or ".join(kind.endings)
        assert f"{kind.name} must end in {allowed}" in str(caught.value)
    # An older file of the kind keeps its name.
    place = make(tmp_path)[kind]
    assert check_place(place.rename(tmp_path / "old.pdf"), kind)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_no_regular_file_stays(kind: FileKind, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "lost").symlink_to(tmp_path / "no" / "folder")
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "plug"))
        for name, words in (
            ("pipe", "a named pipe; name a file"),
            ("link", "a named pipe"),
            ("plug", "a socket"),
            ("folder", "this is a folder"),
            (".", "this is a folder"),
            ("/dev/null", "a device; to write no file, leave the option out"),
            ("/dev/full", "a device; name a file"),
            ("loop", "too many levels of symbolic links"),
            ("lost", "there is no folder .*no"),
            ("no/file", "there is no folder .*no"),
            ("file/below", "there is no folder .*file|not a directory"),
            ("é" * 128, "a name of 256 bytes is too long, at most 255"),
            ("a/" * 3000, "file name too long"),
            ("nul\0", "a NUL character"),
            ("/proc/file", "cannot write to the folder /proc"),
        ):
            with pytest.raises(FileFault, match=words):
                check_place(tmp_path / name, kind)


def test_a_file_that_is_protected_stays(tmp_path: Path) -> None:
    for kind, path in make(tmp_path).items():
        path.chmod(0o444)
        with pytest.raises(FileFault, match="write-protected"):
            check_place(path, kind)


def test_a_folder_that_is_protected_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    with (
        unprivileged(folder),
        pytest.raises(FileFault, match=r"cannot write to the folder .* denied"),
    ):
        check_place(folder / "file", kinds.WEIGHTS)


def test_links_to_one_of_its_kind_may_be_written_through(tmp_path: Path) -> None:
    for number, (kind, path) in enumerate(make(tmp_path).items()):
        soft, hard = tmp_path / f"soft{number}", tmp_path / f"hard{number}"
        soft.symlink_to(path)
        hard.hardlink_to(path)
        assert check_place(soft, kind)
        assert check_place(hard, kind)


def test_the_other_name_of_a_file_keeps_its_content(tmp_path: Path) -> None:
    weights.save(tmp_path / "w", SMALL)
    (tmp_path / "other").hardlink_to(tmp_path / "w")
    before = (tmp_path / "w").read_bytes()
    weights.save(tmp_path / "w", Weights("other", "", {}, {"m.W": np.zeros(2)}, {}))
    assert (tmp_path / "other").read_bytes() == before
    assert weights.load(tmp_path / "w").spec == "other"


class TestWriters:
    """Those that write look for themselves, too: a file may have come since the run began."""

    def test_weights(self, tmp_path: Path, wording: Wording) -> None:
        (tmp_path / "w").write_text("mine")
        for kind in (kinds.WEIGHTS, kinds.CHECKPOINT):
            with wording.raises(WeightsError):
                weights.save(tmp_path / "w", SMALL, kind)
        assert (tmp_path / "w").read_text() == "mine"

    def test_results(self, tmp_path: Path, wording: Wording) -> None:
        path = tmp_path / "spec.yaml"
        path.write_text("model: mine\n")
        for call in (lambda: check_writable(path), lambda: write(path, RESULTS)):
            with wording.raises(DocumentError, "spec.yaml"):
                call()
        assert path.read_text() == "model: mine\n"
        (tmp_path / "r").touch()
        for _ in range(2):  # in place of an empty one, and in place of results
            write(tmp_path / "r", RESULTS)

    def test_records(self, tmp_path: Path, wording: Wording) -> None:
        weights.save(tmp_path / "w", SMALL)
        os.mkfifo(tmp_path / "pipe")
        before = (tmp_path / "w").read_bytes()
        for name, words in (
            ("w", "this is weights, not a record file"),
            ("pipe", "a named pipe"),
            ("/dev/null", "leave the option out"),
            (".", "this is a folder"),
        ):
            with wording.raises(RecordError, f"{words}"):
                RecordWriter(tmp_path / name)
        assert (tmp_path / "w").read_bytes() == before

    @pytest.mark.parametrize("torn", ["{", '{"ki', '{"kind":"hea', '{"kind":"head","sch'])
    def test_records_whose_first_line_was_torn(self, torn: str, tmp_path: Path) -> None:
        path = tmp_path / "r"
        path.write_text(torn)
        for _ in range(2):
            with RecordWriter(path) as writer:
                writer.append(Begin.of(Cell("a", "b", "cpu", "float32", "native"), None))


def test_marks_leave_files_as_their_readers_want_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "a.other").write_text("x")
    for path in tmp_path.iterdir():
        kinds.mark_export(path)
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays.files == ["x"]
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
    names: dict[str, int] = {}
    exec((tmp_path / "a.py").read_text(), names)
    assert names["x"] == 1
    assert check_kind(tmp_path / "a.npz", kinds.EXPORT)
    assert check_kind(tmp_path / "a.py", kinds.EXPORT)
    with pytest.raises(FileFault, match="a text"):
        check_kind(tmp_path / "a.other", kinds.EXPORT)
