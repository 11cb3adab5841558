"""Readers of frameworks' own files, each in the process of its format."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from export_round_trip import SUFFIXES
from hypothesis import strategies as st

from fuzz.mutations import Edit, damaged, edits
from fuzz.readers import Reader
from fuzz.real import real_weights, spec
from harness.convert.run import Caller, exported_of
from harness.program.serial import encode


def foreign(caller: Caller) -> Reader:
    """The reader of a format whose process runs."""
    name, suffix = caller.name, SUFFIXES[caller.name]
    program = encode(spec().program("training", **real_weights().sizes))

    @cache
    def seed() -> bytes:
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix}"
            exported = exported_of(spec(), real_weights()).payload()
            caller.call("write", exported=exported, path=str(path))
            return path.read_bytes()

    def inputs() -> st.SearchStrategy[bytes]:
        whole = damaged([seed()])
        return (
            st.one_of(whole, repacked(seed())) if zipfile.is_zipfile(io.BytesIO(seed())) else whole
        )

    def read(data: bytes, folder: Path) -> None:
        path = folder / f"model{suffix}"
        path.write_bytes(data)
        caller.call("read", path=str(path), training=program)

    return Reader(name, inputs, read)


def repacked(archive: bytes) -> st.SearchStrategy[bytes]:
    """A zip archive with a member damaged or renamed, and right checksums."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}

    def made(name: str, wanted: Sequence[Edit], other: str, rename: bool) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as new:
            for member, content in members.items():
                if member == name:
                    for edit in wanted:
                        content = edit(content)
                new.writestr(other if member == name and rename else member, content)
        return buffer.getvalue()

    names = st.sampled_from(sorted(members))
    others = st.sampled_from(("x", "../x", "/x", "data.pkl", "config.json", "a/b"))
    return st.builds(made, names, st.lists(edits(), min_size=1, max_size=3), others, st.booleans())
