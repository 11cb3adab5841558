"""Names that become file names fit on every system, and other systems' files are read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import report_files
from hypothesis import example, given
from hypothesis import strategies as st
from places import SPECS

from harness.checking.history import new_file
from harness.checking.reproducer import choose_folder
from harness.files.atomic import write_whole
from harness.files.system import POSIX, RESERVED
from harness.language.library import Library
from harness.language.model import fingerprint, load_spec
from harness.language.names import is_model_name
from harness.porting.run import spec_name
from harness.results.cell import Cell
from harness.results.file import read_records

DEVICES = ("con", "AUX", "nul", "Prn", "com1", "LPT9")
ODD = ("\\", "C:", "/", ":", "..", "~", "\r\n", " ", ".", "-", "_", "gru", *DEVICES)
TEXTS = st.lists(st.sampled_from(ODD), min_size=1, max_size=6).map("".join)
NAMES = st.lists(st.sampled_from(("gru", "a-b", "_", *DEVICES)), min_size=1, max_size=4)
LIBRARY = Library()


def is_portable(part: str) -> bool:
    """Whether Windows can have a file of this name."""
    return (
        part.partition(".")[0].lower() not in RESERVED
        and not set(part) & set('<>:"/\\|?*')
        and part.isprintable()
        and not part.endswith((".", " "))
    )


def folder_of(model: str) -> Path:
    cell = Cell(model, "torch@2.6", "cuda:1", "float32", "native-compiled")
    return choose_folder(Path("failures"), cell)


@given(NAMES.map("/".join))
@example("aux")
@example("con/NUL")
def test_the_folder_of_a_reproducer_is_allowed_everywhere(model: str) -> None:
    folder = folder_of(model)
    assert is_model_name(model)
    assert all(map(is_portable, folder.parts))
    assert PureWindowsPath(folder).parts == PurePosixPath(folder).parts


@given(TEXTS)
@example("C:\\models\\gru")
@example("..")
@example("gru\r\n")
def test_a_name_that_would_leave_its_folder_is_no_model(text: str) -> None:
    if is_model_name(text):
        assert folder_of(text).parts[0] == "failures"
        assert all(map(is_portable, folder_of(text).parts))
    else:
        assert not text.replace("/", "").isalnum() or text.strip("/") != text or "//" in text


def test_models_keep_different_folders() -> None:
    models = ("con", "CON", "con_", "con-", "a/con", "a-con")
    assert len({str(folder_of(model)) for model in models}) == len(models)


@given(TEXTS)
@example("AUX")
@example("Con")
def test_a_ported_model_gets_a_name_that_is_a_file_name(text: str) -> None:
    name = spec_name(text, LIBRARY)
    assert is_model_name(name)
    assert is_portable(f"{name}.yaml")


def test_a_record_of_the_history_has_no_colon(tmp_path: Path) -> None:
    assert is_portable(new_file(tmp_path).name)


@given(
    TEXTS.filter(lambda text: "/" not in text and text.strip(".") and (POSIX or is_portable(text)))
)
def test_a_file_of_any_name_is_written_whole(tmp_path_factory, text: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    write_whole(folder / text, b"content")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(text, b"content")]


def test_a_spec_with_windows_line_ends_is_the_same_spec(tmp_path: Path) -> None:
    shipped = (SPECS / "models" / "lesson6" / "sequence_rnn.yaml").read_bytes()
    source = shipped.replace(b"model: lesson6/sequence_rnn", b"model: mine")
    assert source != shipped
    assert b"\r" not in source
    path, prints = tmp_path / "mine.yaml", []
    for ending in (b"\n", b"\r\n"):
        path.write_bytes(source.replace(b"\n", ending))
        prints.append(fingerprint(load_spec(str(path))))
    assert prints[0] == prints[1]


def test_records_with_windows_line_ends_are_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    report_files.records(path)
    before = repr(read_records(path))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert repr(read_records(path)) == before
