"""Reproducers of a stranger: a message for what is damaged or hostile, and nothing is run."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import ABSURD, changed, flips, mutations, places
from wording import Wording

from harness.checking.reproducer import load, save
from harness.checking.request import Request, make_case
from harness.cli import cli
from harness.errors import HarnessError, UsageError
from harness.files.npz import read_npz
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.language.program_checks import MalformedProgram, check_program
from harness.program.serial import decode, encode
from harness.results.cell import Cell

CELL = Cell("lesson6/stateful_lstm", "numpy", "cpu", "float64", "derived")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = make_case(load_spec(CELL.spec), Request(), own=False)
    return save(tmp_path_factory.mktemp("saved"), CELL, case, "gradients")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    for name in ("program.json", "arrays.npz"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(UsageError, match="holds no reproducer: ") as caught:
        load(folder)
    return str(caught.value)


def replayed(folder: Path) -> tuple[int, str]:
    run = CliRunner().invoke(cli, ["replay", str(folder)])
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    return run.exit_code, run.output


@pytest.mark.parametrize("seed", range(2))
def test_any_field_may_be_damaged(seed: int, folder: Path) -> None:
    meta = json.loads((folder / "program.json").read_text())
    loaded = 0
    for bad in mutations(meta, 100, seed):
        (folder / "program.json").write_text(json.dumps(bad))
        try:
            load(folder)
        except UsageError:
            continue
        loaded += 1
        if loaded <= 2:
            assert replayed(folder)[0] in (0, 1, 3)
    assert loaded < 50


@pytest.mark.parametrize("name", ["program.json", "arrays.npz"])
def test_any_byte_may_be_damaged(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    for bad in flips(content, 60):
        (folder / name).write_bytes(bad)
        try:
            load(folder)
        except UsageError:
            continue


@pytest.mark.parametrize("value", [*ABSURD, {"map": 1}, {"map": [1]}, {"map": [[[], 1]]}])
@pytest.mark.parametrize("field", ["training", "inference", "cell", "check", "phase", "noise"])
def test_an_absurd_field_is_told(field: str, value: Any, folder: Path) -> None:
    meta = json.loads((folder / "program.json").read_text())
    (folder / "program.json").write_text(json.dumps({**meta, field: value}))
    if field == "check" and isinstance(value, str):
        assert load(folder).run.check == value
    elif field == "noise" and value in ({}, {"map": 1}):
        assert load(folder).expected.measured("float32") == value
    else:
        refused(folder)


def test_deep_nesting_is_told(folder: Path, wording: Wording) -> None:
    good = (folder / "program.json").read_text()
    for text in ("[" * 200_000, '{"map":[[1,' * 50_000):
        (folder / "program.json").write_text(text)
        assert "nested too deeply" in refused(folder)
    deep = '{"map":[[1,' * 120 + "1" + "]]}" * 120
    text = good.replace('"training": ', f'"training": {deep}, "was": ', 1)
    (folder / "program.json").write_text(text)
    wording(refused(folder))


@pytest.mark.parametrize("name", ["program.json", "arrays.npz"])
def test_a_pipe_does_not_hang(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "named pipe" in refused(folder)


def arrays_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "arrays.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("group", ["parameters", "inputs", "state", "targets"])
@pytest.mark.parametrize("how", ["missing", "other axes", "other length"])
def test_arrays_that_do_not_fit_the_program_are_told(group: str, how: str, folder: Path) -> None:
    arrays = arrays_of(folder)
    name = next(n for n in arrays if n.startswith(f"{group}/"))
    array = arrays.pop(name)
    if how == "other axes":
        arrays[name] = array[None, None]
    elif how == "other length":
        arrays[name] = np.concatenate([array, array])
    np.savez(folder / "arrays.npz", **arrays)
    told = refused(folder)
    assert name.rpartition("/")[2] in told or "batch = 6, found 3" in told


# --- npz ---------------------------------------------------------------------------------------


def member(header: bytes, content: bytes = b"", name: str = "x.npy", size: int = 0) -> bytes:
    """An npz file of one member whose header says what one likes."""
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, body + bytes(size))
    return file.getvalue()


def header(shape: str, dtype: str = "'<f8'") -> bytes:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.array([{"a": 1}], dtype=object))
    return file.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "an object array": pickled,
    "a shape of 8 TB": lambda: member(header("(1000000000000,)")),
    "a shape that overflows": lambda: member(header("(4294967296, 4294967296)")),
    "a negative shape": lambda: member(header("(-1,)"), bytes(8)),
    "100 axes": lambda: member(header(f"({'1, ' * 100})"), bytes(8)),
    "a shape of text": lambda: member(header("('a',)")),
    "code in the header": lambda: member(header("(__import__('os').abort(),)")),
    "a deep header": lambda: member(b"(" * 5000),
    "a structured dtype": lambda: member(header("(1,)", "[('a', '<f8')]"), bytes(8)),
    "complex numbers": lambda: member(header("(1,)", "'<c16'"), bytes(16)),
    "text": lambda: member(header("(1,)", "'<U8'"), bytes(32)),
    "too many bytes": lambda: member(header("(1,)"), bytes(64)),
    "too few bytes": lambda: member(header("(8,)"), bytes(8)),
    "a bomb": lambda: member(header("(125000,)"), size=1_000_001),
    "another file": lambda: member(header("(1,)"), bytes(8), name="../x.txt"),
    "no magic": lambda: member(b"").replace(b"NUMPY", b"NOTPY"),
    "no zip": lambda: b"PK\x03\x04" + bytes(100),
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_npz(HOSTILE[name](), 1_000_000)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", ["float64", ">f8", "float32", "float16", "int64", "int32", "uint8", "bool"]
)
def test_arrays_come_back(order: Any, dtype: str) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    file = io.BytesIO()
    np.savez_compressed(file, a=array, **{"b/c": np.float64(0.5), "empty": np.zeros((0, 3))})
    found = read_npz(file.getvalue(), 10_000)
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].dtype == np.dtype(dtype).newbyteorder("=")
    assert found["a"].flags.writeable
    assert found["b/c"].shape == ()
    assert found["empty"].shape == (0, 3)


# --- programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lesson6())
def test_programs_of_the_harness_are_well_formed(name: str) -> None:
    spec = load_spec(name)
    for program in spec.programs.values():
        check_program(program)


def test_what_is_decoded_is_a_program_or_refused() -> None:
    """Whatever passes has every value defined, and each operation its operands."""
    program = load_spec("lesson6/stateful_lstm").program()
    data = json.loads(json.dumps(encode(program)))
    chosen = random.Random(3)
    paths = [path for path in places(data) if path and path[-1] != "class"]
    refusals = 0
    for _ in range(200):
        bad = changed(data, chosen.choice(paths), chosen.choice(ABSURD))
        try:
            check_program(decode(bad))
        except HarnessError:
            refusals += 1
    assert refusals > 100


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"tanh"', '"system"', ""),
        ('"matmul"', '"__class__"', ""),
        ('["hidden", 1]', '["hiddden", 1]', ""),
        ('"roles"', '"rolls"', "'roles'"),
        ('"results"', '"result"', "'results'"),
        ('["attributes", {', '["attribute", {', "'attributes'"),
        ('["roles", [', '["roles", ["more", ', ""),
        ('["instance", "', '["instance", 3], ["was", "', "'instance' ... 3"),
    ],
)
def test_what_is_wrong_is_told(old: str, new: str, words: str, wording: Wording) -> None:
    text = json.dumps(encode(load_spec("lesson6/stateful_lstm").program()))
    assert old in text
    with wording.raises((MalformedProgram, HarnessError), words):
        check_program(decode(json.loads(text.replace(old, new))))
