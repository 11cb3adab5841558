"""Shared code for tests of untrusted files: the process of a format, and manipulated archives."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporting import Caller, case_of, exported, running
from needed import need
from time_limits import over_within

SPEC = "lesson6/sequence_rnn"
# The bytes by which a process may grow while it rejects a file.
GROWTH = 64 << 20
SECONDS = 20.0


class Reader:
    """The process of a format, and a valid file of this format."""

    def __init__(self, caller: Caller, folder: Path, suffix: str) -> None:
        self.caller, self.case = caller, case_of(SPEC, 8)
        self.path = folder / f"good.{suffix}"
        caller.write(exported(self.case, "float32"), self.path)
        # Read once, so that memory for imports does not count as growth.
        caller.read(self.path, self.case)

    def refusal(self, path: Path) -> str:
        """Return the message for a rejected file; assert that it takes little memory and time."""
        before = self._memory()
        with over_within(SECONDS):
            os.chdir(path.parent)
            told = self.caller.refusal(path, self.case)
        assert self._memory() - before < GROWTH
        return told

    def _memory(self) -> int:
        """Return the peak memory of the process in bytes."""
        status = Path(f"/proc/{self.caller.worker.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def reader(name: str, suffix: str, tmp: pytest.TempPathFactory) -> Iterator[Reader]:
    need("onnxruntime" if name == "onnx" else name)
    here = os.getcwd()
    with running(name) as caller:
        yield Reader(caller, tmp.mktemp(name), suffix)
    os.chdir(here)


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], to: Path) -> Path:
    """Return a copy of an archive with changed parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return to


class Evil:
    """An object whose pickle calls a function of the system when it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


def nothing_ran(folder: Path) -> bool:
    return not list(folder.rglob("PWNED"))


def bomb(archive: zipfile.ZipFile, name: str, size: int, head: bytes = b"") -> None:
    """Add a part of ``size`` zeros, which take almost no space in the archive."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.compresslevel = 1  # a quarter of the time
    zeros = bytes(1 << 24)
    with archive.open(info, "w", force_zip64=True) as part:
        part.write(head)
        for _ in range(size // len(zeros)):
            part.write(zeros)


def array_bytes(array: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def listed(path: Path) -> Path:
    """Write an archive with a million entries in its list of parts."""

    central = (
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, *[0] * 6) + b"x"
    )
    count = 1_000_000
    data = b"PK\3\4" + bytes(26) + central * count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(central) * count, 30, 0)
    path.write_bytes(data + end)
    return path
