"""Reading files: what cannot be a spec is refused, and nothing ever waits."""

import os
from pathlib import Path

import pytest
from time_limits import computed_within

from harness.errors import SpecError
from harness.files.user_file import displayed
from harness.language.document import load


def refusal(path):
    with computed_within(2.0), pytest.raises(SpecError) as caught:
        load(path)
    place = caught.value.place
    assert place.file == displayed(path)
    at = f"{place.line}:{place.column}: " if place.line else ""
    return f"{at}{caught.value.message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: \xc3\xa9\xff", "2:5: this is not UTF-8: found 0xff at byte 10"),
        (b"\xff\xfea\x00", "1:1: this is not UTF-8: found 0xff at byte 0"),
        (b"", "1:1: the file is empty"),
        (b"\xef\xbb\xbfa: yes", "1:4: this is ambiguous"),
    ],
)
def test_the_bytes_of_a_file(tmp_path, content, message):
    path = tmp_path / "m.yaml"
    path.write_bytes(content)
    assert refusal(path).startswith(message)


def test_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert load(path).data == {"a": 1}


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "model.yaml").touch()
    assert refusal(tmp_path / "modle.yaml") == "no such file; did you mean 'model.yaml'?"
    assert refusal(tmp_path / "zebra.yaml") == "no such file"
    assert "; there is no folder " in refusal(tmp_path / "absent" / "model.yaml")


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert refusal(tmp_path) == "this is a folder; name a .yaml file in it"
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), Path("/dev/null")):
        assert refusal(path).startswith("this is not a regular file")


def test_names_that_no_file_can_have(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refusal(Path("a\0b")) == "this is not a file name: it contains a NUL character"
    assert refusal(tmp_path / ("x" * 300)) == "cannot be read: file name too long"
    assert refusal(tmp_path / "loop") == "cannot be read: too many levels of symbolic links"


def test_a_name_that_is_not_utf_8_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.yaml")
    refusal(path)
    assert displayed(path).encode() == os.fsencode(tmp_path) + b"/\\xff.yaml"


def test_a_file_without_permission(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m.yaml").touch()
    monkeypatch.setattr(os, "open", refuse)  # File modes do not bind a superuser.
    assert refusal(tmp_path / "m.yaml") == "cannot be read: permission denied"


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "m.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    assert refusal(path).startswith("50,000,000 bytes are too many for a spec")
