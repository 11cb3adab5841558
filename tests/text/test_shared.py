"""A vector that several processes read: the same numbers, and nothing left of it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from both_systems import linux_only
from wording import Wording

from harness.errors import UsageError
from harness.files.system import PORTABLE, VARIABLE
from harness.text.shared import Shared, map_vector

PIECES = [np.arange(3, dtype=np.uint16), np.empty(0, np.uint16), np.array([65535, 7], np.uint16)]
OTHER = """
import sys
from harness.text.shared import map_vector
array = map_vector({{"place": {place!r}, "dtype": {dtype!r}}})
print("mapped", flush=True)
sys.stdin.readline()
print(array.tolist(), array.flags.writeable)
"""
HOLDER = """
import sys
import numpy as np
from harness.text.shared import Shared
shared = Shared([np.arange(100_000, dtype=np.uint8)])
print(shared.describe_location()["place"], flush=True)
sys.stdin.readline()
"""


def process(program: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **({"env": more} if more else {}),
    )


def test_the_pieces_are_one_vector_that_nobody_can_change() -> None:
    shared = Shared(iter(PIECES))
    np.testing.assert_array_equal(shared.array, np.concatenate(PIECES), strict=True)
    assert len(shared) == 5
    with pytest.raises(ValueError, match="read-only"):
        shared.array[0] = 1


def test_another_process_reads_it_even_when_this_one_has_let_go() -> None:
    shared = Shared(PIECES)
    with process(OTHER.format(**shared.describe_location())) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mapped\n"
        del shared
        assert other.communicate("\n", timeout=60)[0] == "[0, 1, 2, 65535, 7] False\n"


def test_an_empty_vector() -> None:
    shared = Shared([np.empty(0, np.uint8)])
    assert map_vector(shared.describe_location()).tolist() == []


def test_the_mapping_outlives_the_object_and_no_descriptor_does() -> None:
    shared = Shared(PIECES)
    array, place = map_vector(shared.describe_location()), Path(shared.describe_location()["place"])
    assert place.exists()
    gone = weakref.ref(shared)
    del shared
    assert gone() is None
    assert not place.exists()
    assert array.tolist() == [0, 1, 2, 65535, 7]


@linux_only
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_is_left_however_a_process_ends(end: int | None, tmp_path: Path) -> None:
    with process(HOLDER, TMPDIR=str(tmp_path)) as holder:
        assert holder.stdout is not None
        place = holder.stdout.readline().strip()
        assert map_vector({"place": place, "dtype": "|u1"})[:3].tolist() == [0, 1, 2]
        assert Path(place).readlink().parent == tmp_path, "the test looks in another folder"
        assert list(tmp_path.iterdir()) == []
        if end is None:
            holder.communicate("\n", timeout=60)
        else:
            holder.send_signal(end)
            holder.wait()
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_file_with_a_name_is_deleted_at_the_end(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path), VARIABLE: PORTABLE}
    with process(HOLDER, **environment) as holder:
        assert holder.stdout is not None
        place = Path(holder.stdout.readline().strip())
        assert map_vector({"place": str(place), "dtype": "|u1"})[:3].tolist() == [0, 1, 2]
        assert list(tmp_path.iterdir()) == [place]
        holder.communicate("\n", timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_said() -> None:
    def pieces_on_a_full_disk():  # type: ignore[no-untyped-def]
        yield PIECES[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))
        yield PIECES[0]

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UsageError, match=r"cannot be stored .*File too large.*TMPDIR"):
            Shared(pieces_on_a_full_disk())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_folder_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wording: Wording
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with wording.raises(UsageError):
        Shared(PIECES)
