"""Archives of strangers: whatever is damaged in one is told in few words."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from harness.convert.archive import Archive, Damaged, archive


@pytest.mark.parametrize("read", [Archive.part, Archive.start, Archive.stream])
def test_a_part_with_another_name_at_its_place_is_damaged(read: object, tmp_path: Path) -> None:
    name = "weights" * 500
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(name, "content")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[30:37] = b"another"  # the name before the content; the list keeps the first one
    (tmp_path / "a.zip").write_bytes(data)
    told = pytest.raises(Damaged, match=r"^weights.* is damaged: File name in ")
    with told as caught, archive(tmp_path / "a.zip", "an archive") as parts:
        read(parts, name, 100)  # type: ignore[operator]
    assert len(str(caught.value)) < 300
