"""npz files of strangers: no objects of Python, and no memory for what is declared."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import Evil, Reader, array_bytes, bomb, listed, nothing_ran, reader, rewritten
from wording import Wording


@pytest.fixture(scope="module")
def jax_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader("jax", "npz", tmp_path_factory)


def header(descr: str, shape: str, length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 13) % 64) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length or len(text)) + text


ARRAYS: dict[str, tuple[bytes, str]] = {
    "objects": (array_bytes(np.array([Evil()]), allow_pickle=True), "Python objects"),
    "objects of the right shape": (
        array_bytes(np.array([Evil()] * 86), allow_pickle=True),
        "Python objects",
    ),
    "objects in a record": (
        array_bytes(np.array([(Evil(),)], [("a", object)]), allow_pickle=True),
        "Python objects",
    ),
    "int": (array_bytes(np.zeros(86, int)), "int64; allowed"),
    "bool": (array_bytes(np.zeros(86, bool)), "bool; allowed"),
    "complex": (array_bytes(np.zeros(86, complex)), "complex128; allowed"),
    "float16": (array_bytes(np.zeros(86, np.float16)), "float16; allowed"),
    "text": (array_bytes(np.array(["a"] * 86)), "<U1; allowed"),
    "dates": (array_bytes(np.zeros(86, "M8[s]")), "datetime64[s]; allowed"),
    "records": (array_bytes(np.zeros(86, [("a", "f4")])), "; allowed"),
    "too large": (header("'<f4'", "(1000000000000,)"), "found [1000000000000]"),
    "huge number": (header("'<f4'", f"({'9' * 4000},)"), "found [9"),
    "negative": (header("'<f4'", "(-86,)"), "found [-86]"),
    "no shape": (header("'<f4'", "'x'"), "no valid array header"),
    "code": (header("__import__('os')", "(86,)"), "no valid array header"),
    "long header": (header("'<f4'", "(86,)", 0xFFFFFFF0), "no valid array header"),
    "cut off": (array_bytes(np.zeros(86, np.float32))[:-4], "is truncated"),
    "no array": (b"text", "no valid array header"),
    "too long": (array_bytes(np.zeros(86, np.float32)) + bytes(9), "at most 472 are allowed"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_other_kinds_are_refused(name: str, jax_reader: Reader, tmp_path: Path) -> None:
    data, words = ARRAYS[name]
    path = rewritten(
        jax_reader.path, lambda parts: parts.update({"out/b.npy": data}), tmp_path / "m.npz"
    )
    assert words in jax_reader.refusal(path)
    assert nothing_ran(tmp_path)


def test_an_array_that_unpacks_to_far_more_is_refused(jax_reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    for head, words in (
        (header("'<f4'", "(268435456,)"), "found [268435456]"),
        (header("'<f4'", "(86,)"), "bytes; at most 472 are allowed"),
    ):
        with zipfile.ZipFile(jax_reader.path) as old, zipfile.ZipFile(path, "w") as new:
            for info in old.infolist():
                if info.filename != "out/b.npy":
                    new.writestr(info.filename, old.read(info))
            bomb(new, "out/b.npy", 1 << 28, head)
        assert path.stat().st_size < 4 << 20
        assert words in jax_reader.refusal(path)


def test_arrays_in_another_order_are_read(jax_reader: Reader, tmp_path: Path) -> None:
    wanted = jax_reader.caller.read(jax_reader.path, jax_reader.case)
    with np.load(jax_reader.path) as arrays:
        held: dict[str, Any] = {n: np.asfortranarray(a).astype(">f4") for n, a in arrays.items()}
    assert not held["out/W"].flags.c_contiguous
    np.savez_compressed(tmp_path / "m.npz", **held)
    found = jax_reader.caller.read(tmp_path / "m.npz", jax_reader.case)
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_a_list_of_a_million_parts_is_refused(
    jax_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = listed(tmp_path / "m.npz")
    wording(jax_reader.refusal(path))
