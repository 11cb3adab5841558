"""Reading files: what cannot be a spec is refused, and nothing ever waits."""

import os
from pathlib import Path

import pytest
from time_limits import computed_within
from wording import Wording

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
        (b"a: 1\nb: \xc3\xa9\xff", "2:5 ... UTF-8 ... 0xff ... 10"),
        (b"\xff\xfea\x00", "1:1 ... UTF-8 ... 0xff ... 0"),
        (b"", "1:1"),
        (b"\xef\xbb\xbfa: yes", "1:4"),
    ],
)
def test_the_bytes_of_a_file(tmp_path, content, message, wording: Wording):
    path = tmp_path / "m.yaml"
    path.write_bytes(content)
    wording.line(refusal(path), message)


def test_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert load(path).data == {"a": 1}


def test_a_missing_file_names_its_neighbour(tmp_path, wording: Wording):
    (tmp_path / "model.yaml").touch()
    wording(refusal(tmp_path / "modle.yaml"), "'model.yaml'")
    assert refusal(tmp_path / "zebra.yaml") == "no such file"
    wording(refusal(tmp_path / "absent" / "model.yaml"))


def test_what_is_not_a_regular_file_is_refused(tmp_path, wording: Wording):
    os.mkfifo(tmp_path / "pipe.yaml")
    wording(refusal(tmp_path), ".yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), Path("/dev/null")):
        wording(refusal(path))


def test_names_that_no_file_can_have(tmp_path, wording: Wording):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    wording(refusal(Path("a\0b")), "NUL")
    wording(refusal(tmp_path / ("x" * 300)))
    wording(refusal(tmp_path / "loop"))


def test_a_name_that_is_not_utf_8_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.yaml")
    refusal(path)
    assert displayed(path).encode() == os.fsencode(tmp_path) + b"/\\xff.yaml"


def test_a_file_without_permission(tmp_path, monkeypatch, wording: Wording):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m.yaml").touch()
    monkeypatch.setattr(os, "open", refuse)  # File modes do not bind a superuser.
    wording(refusal(tmp_path / "m.yaml"))


def test_a_huge_file_is_refused(tmp_path, wording: Wording):
    path = tmp_path / "m.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    wording.line(refusal(path), "50,000,000")
