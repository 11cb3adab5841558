"""Files of strangers that are imported: nothing in them is run, and they take no memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from exporting import Caller, case_of, exported, running

from harness import weights
from harness.cli import cli
from harness.material import draw
from harness.spec.lower import load_spec
from harness.weights import Weights
from harness.wire import encode

SPEC = "lesson6/sequence_rnn"
# Bytes by which a process may grow while it refuses a file.
GROWTH = 64 << 20
SECONDS = 20.0


class Reader:
    """The process of a format, and a file of it that is right."""

    def __init__(self, caller: Caller, folder: Path, suffix: str) -> None:
        self.caller, self.case = caller, case_of(SPEC, 8)
        self.path = folder / f"good.{suffix}"
        caller.write(exported(self.case, "float32"), self.path)
        # What is loaded at a first reading is no growth.
        caller.read(self.path, self.case)

    def refusal(self, path: Path) -> str:
        """What is told of a file, which costs neither memory nor time."""
        before, start = self._memory(), time.monotonic()
        os.chdir(path.parent)
        told = self.caller.refusal(path, self.case)
        assert time.monotonic() - start < SECONDS
        assert self._memory() - before < GROWTH
        return told

    def _memory(self) -> int:
        """The most that the process has ever had."""
        status = Path(f"/proc/{self.caller.worker.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def reader(name: str, suffix: str, tmp: pytest.TempPathFactory) -> Iterator[Reader]:
    pytest.importorskip("onnxruntime" if name == "onnx" else name)
    here = os.getcwd()
    with running(name) as caller:
        yield Reader(caller, tmp.mktemp(name), suffix)
    os.chdir(here)


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], to: Path) -> Path:
    """An archive with other parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return to


class Evil:
    """What a pickle makes of this calls a function of the system."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


def nothing_ran(folder: Path) -> bool:
    return not list(folder.rglob("PWNED"))


# torch


@pytest.fixture(scope="module")
def torch_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader("torch", "pt", tmp_path_factory)


def _pickle(data: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(parts: dict[str, bytes]) -> None:
        (name,) = (n for n in parts if n.endswith("/data.pkl"))
        parts[name] = data

    return change


PICKLES = {
    "reduce": pickle.dumps(Evil(), 2),
    "protocol 0": pickle.dumps(Evil(), 0),
    "protocol 5": pickle.dumps(Evil(), 5),
    "in a dict": pickle.dumps({"out.bias": Evil()}, 2),
    "as a key": pickle.dumps({Evil: 1}, 2),
    "inst": b"(S'touch PWNED'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch PWNED'\no.",
    "newobj": b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch PWNED\x85\x81.",
    "eval": b"\x80\x02cbuiltins\neval\nX\x0f\x00\x00\x00__import__('os')\x85R.",
    "getattr": b"\x80\x02cbuiltins\ngetattr\n.",
    "a dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "torch.load": b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
    "extension": b"\x80\x02\x82\x01.",
    "attributes": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "long memo": b"\x80\x02}" + b"r\xff\xff\xff\xffj\xff\xff\xff\xff.",
    "frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.",
    "text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "numpy": pickle.dumps(np.zeros(3), 2),
    "nothing": b"",
    "a number": pickle.dumps(3, 2),
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("name", PICKLES)
def test_no_pickle_is_run(name: str, torch_reader: Reader, tmp_path: Path) -> None:
    path = rewritten(torch_reader.path, _pickle(PICKLES[name]), tmp_path / "m.pt")
    told = torch_reader.refusal(path)
    # A memo of any size is no more than a number.
    assert ("does not fit" if "memo" in name else "cannot be read as a state_dict: ") in told
    path.write_bytes(PICKLES[name])
    assert "cannot be read as a state_dict: " in torch_reader.refusal(path)
    assert nothing_ran(tmp_path)


def saved(reader: Reader, path: Path, change: Callable[[dict[str, Any]], None], **how: Any) -> Path:
    import torch

    state = torch.load(reader.path, weights_only=True)
    change(state)
    torch.save(state, path, **how)
    return path


def _tensors() -> dict[str, tuple[Callable[[Any, Any], Any], str]]:
    return {
        "expanded": (lambda t, x: x.new_ones(1).expand(30000, 30000), "found [30000, 30000]"),
        "float16": (lambda t, x: x.half(), "float16; allowed"),
        "int": (lambda t, x: x.int(), "int32; allowed"),
        "long": (lambda t, x: x.long(), "int64; allowed"),
        "bool": (lambda t, x: x.bool(), "bool; allowed"),
        "complex": (lambda t, x: x.cfloat(), "complex64; allowed"),
        "bfloat16": (lambda t, x: x.bfloat16(), "bfloat16; allowed"),
        "sparse": (lambda t, x: x.to_sparse(), "cannot be read as a state_dict: it asks for"),
        "meta": (lambda t, x: x.to("meta"), "cannot be read as a state_dict: "),
        "no tensor": (lambda t, x: 3, "a dict with int, not tensors"),
        "part of a large one": (
            lambda t, x: t.zeros(1 << 25)[: x.numel()].view(x.shape),
            "save a clone of it",
        ),
    }


@pytest.mark.parametrize("name", _tensors())
def test_tensors_of_other_kinds_are_refused(
    name: str, torch_reader: Reader, tmp_path: Path
) -> None:
    import torch

    made, words = _tensors()[name]

    def change(state: dict[str, Any]) -> None:
        state["out.weight"] = made(torch, state["out.weight"])

    assert words in torch_reader.refusal(saved(torch_reader, tmp_path / "m.pt", change))


def test_views_and_transposed_tensors_are_read(torch_reader: Reader, tmp_path: Path) -> None:
    import torch

    def change(state: dict[str, Any]) -> None:
        weight = state["out.weight"]
        state["out.weight"] = torch.nn.Parameter(weight.t().contiguous().t())
        both = torch.cat([state["out.bias"], state["out.bias"]])
        state["out.bias"] = both[len(both) // 2 :]

    path = saved(torch_reader, tmp_path / "m.pt", change)
    found = torch_reader.caller.read(path, torch_reader.case)
    wanted = torch_reader.caller.read(torch_reader.path, torch_reader.case)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_state_dict_of_an_old_form_is_refused(torch_reader: Reader, tmp_path: Path) -> None:
    path = saved(
        torch_reader, tmp_path / "m.pt", lambda s: None, _use_new_zipfile_serialization=False
    )
    assert "cannot be read as a state_dict: File is not a zip file" in torch_reader.refusal(path)


def _edited(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        # The offset, the shape and the strides of the first tensor (86, 42), whose storage has
        # 3,612 numbers.
        (lambda d: _edited(d, b"QK\x00KVK*\x86", b"QK\x01KVK*\x86"), "goes beyond its storage"),
        (lambda d: _edited(d, b"QK\x00KVK*\x86", b"QJ\xff\xff\xff\xffKVK*\x86"), "negative sizes"),
        (lambda d: _edited(d, b"K*K\x01\x86", b"M\xff\xffK\x01\x86"), "goes beyond its storage"),
        (lambda d: _edited(d, b"K*K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86"), "negative sizes"),
        (lambda d: _edited(d, b"K*K\x01\x86", b"K*\x85"), "as torch does not"),
        (lambda d: _edited(d, b"M\x1c\x0e", b"J\xff\xff\xff\x7f"), "save a clone of it"),
    ],
)
def test_no_tensor_leads_out_of_its_storage(
    edit: Callable[[bytes], bytes], words: str, torch_reader: Reader, tmp_path: Path
) -> None:
    def change(parts: dict[str, bytes]) -> None:
        (name,) = (n for n in parts if n.endswith("/data.pkl"))
        # Without the memo, bytes that mean the same are the same.
        parts[name] = edit(pickletools.optimize(parts[name]))

    path = rewritten(torch_reader.path, change, tmp_path / "m.pt")
    assert words in torch_reader.refusal(path)


def test_a_storage_that_unpacks_to_gigabytes_is_refused(
    torch_reader: Reader, tmp_path: Path
) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(torch_reader.path) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith("/data/0"):
                new.writestr(info.filename, old.read(info))
            else:
                bomb(new, info.filename, 2 << 30)
    assert path.stat().st_size < 4 << 20
    assert "has 2,147,483,648 bytes, where 14,448 are the most" in torch_reader.refusal(path)


def bomb(archive: zipfile.ZipFile, name: str, size: int, head: bytes = b"") -> None:
    """A part of zeros, which are nothing in the archive."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    zeros = bytes(1 << 24)
    with archive.open(info, "w", force_zip64=True) as part:
        part.write(head)
        for _ in range(size // len(zeros)):
            part.write(zeros)


@pytest.mark.parametrize("suffix", ["pt", "npz", "keras"])
def test_a_list_of_a_million_parts_is_refused(
    suffix: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = {"pt": "torch_reader", "npz": "jax_reader", "keras": "keras_reader"}
    path = tmp_path / f"m.{suffix}"
    central = (
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, *[0] * 6) + b"x"
    )
    count = 1_000_000
    data = b"PK\3\4" + bytes(26) + central * count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(central) * count, 30, 0)
    path.write_bytes(data + end)
    assert "its list of parts is too long" in request.getfixturevalue(names[suffix]).refusal(path)


# JAX


@pytest.fixture(scope="module")
def jax_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader("jax", "npz", tmp_path_factory)


def array_bytes(array: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def header(descr: str, shape: str, length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 13) % 64) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length or len(text)) + text


ARRAYS: dict[str, tuple[bytes, str]] = {
    "objects": (array_bytes(np.array([Evil()]), allow_pickle=True), "objects of Python"),
    "objects of the right shape": (
        array_bytes(np.array([Evil()] * 86), allow_pickle=True),
        "objects of Python",
    ),
    "objects in a record": (
        array_bytes(np.array([(Evil(),)], [("a", object)]), allow_pickle=True),
        "objects of Python",
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
    "no shape": (header("'<f4'", "'x'"), "no header of an array"),
    "code": (header("__import__('os')", "(86,)"), "no header of an array"),
    "long header": (header("'<f4'", "(86,)", 0xFFFFFFF0), "no header of an array"),
    "cut off": (array_bytes(np.zeros(86, np.float32))[:-4], "is cut off"),
    "no array": (b"text", "no header of an array"),
    "too long": (array_bytes(np.zeros(86, np.float32)) + bytes(9), "where 472 are the most"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_other_kinds_are_refused(name: str, jax_reader: Reader, tmp_path: Path) -> None:
    data, words = ARRAYS[name]
    path = rewritten(
        jax_reader.path, lambda parts: parts.update({"out/b.npy": data}), tmp_path / "m.npz"
    )
    assert words in jax_reader.refusal(path)
    assert nothing_ran(tmp_path)


def test_an_array_that_unpacks_to_gigabytes_is_refused(jax_reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    for head, words in (
        (header("'<f4'", "(805306368,)"), "found [805306368]"),
        (header("'<f4'", "(86,)"), "bytes, where 472 are the most"),
    ):
        with zipfile.ZipFile(jax_reader.path) as old, zipfile.ZipFile(path, "w") as new:
            for info in old.infolist():
                if info.filename != "out/b.npy":
                    new.writestr(info.filename, old.read(info))
            bomb(new, "out/b.npy", 3 << 30, head)
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


# Keras


@pytest.fixture(scope="module")
def keras_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if find_spec("tensorflow") is None:
        pytest.skip("not installed: tensorflow")
    yield from reader("keras", "keras", tmp_path_factory)


def _lambda() -> dict[str, Any]:
    """A layer of Keras with code in it, as base64 of Python's marshal."""
    import base64
    import marshal

    code = compile("lambda x: __import__('os').system('touch PWNED') or x", "x", "eval")
    (function,) = (c for c in code.co_consts if hasattr(c, "co_code"))
    packed = base64.b64encode(marshal.dumps(function)).decode()
    value = {"class_name": "__lambda__", "config": {"value": packed}}
    return {"class_name": "Lambda", "module": "keras.layers", "config": {"function": value}}


CONFIGS: dict[str, dict[str, Any]] = {
    "lambda": _lambda(),
    "a function of os": {
        "class_name": "function",
        "module": "os",
        "config": "system",
        "registered_name": "system",
    },
    "called with arguments": {
        "class_name": "system",
        "module": "os",
        "config": {"command": "touch PWNED"},
        "inbound_nodes": [{"args": ["touch PWNED"], "kwargs": {}}],
    },
    "unsafe is allowed first": {
        "class_name": "function",
        "module": "keras.config",
        "config": "enable_unsafe_deserialization",
        "inbound_nodes": [{"args": [], "kwargs": {}}],
    },
    "a saved model": {
        "class_name": "TFSMLayer",
        "module": "keras.layers",
        "config": {"filepath": "/tmp/evil", "call_endpoint": "serve"},
    },
    "a file is fetched": {
        "class_name": "StringLookup",
        "module": "keras.layers",
        "config": {"vocabulary": "/etc/passwd"},
    },
    "utils": {
        "class_name": "function",
        "module": "keras.utils",
        "config": "get_file",
        "inbound_nodes": [{"args": ["x", "file:///etc/passwd"], "kwargs": {}}],
    },
}


def configured(reader: Reader, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    def edit(parts: dict[str, bytes]) -> None:
        config = json.loads(parts["config.json"])
        change(config)
        parts["config.json"] = json.dumps(config).encode()

    return rewritten(reader.path, edit, to)


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_that_a_configuration_names_is_made(
    name: str, keras_reader: Reader, tmp_path: Path
) -> None:
    """In front of all layers, and in the place of one; as a registered name, and as a model."""
    evil = CONFIGS[name]

    def first(config: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(evil))
        if isinstance(entry["config"], dict):
            entry["config"]["name"] = "evil"
        config["config"]["layers"].insert(0, {"name": "evil", **entry})

    def instead(config: dict[str, Any]) -> None:
        (one,) = (e for e in config["config"]["layers"] if e["config"].get("name") == "out")
        one |= evil

    def whole(config: dict[str, Any]) -> None:
        config |= evil

    def inside(config: dict[str, Any]) -> None:
        for entry in config["config"]["layers"]:
            entry["config"]["kernel_initializer"] = evil
            entry["build_config"] = evil
        config["compile_config"] = evil

    found = []
    for number, change in enumerate((first, instead, whole, inside)):
        path = configured(keras_reader, tmp_path / f"m{number}.keras", change)
        outcome = keras_reader.caller.worker.call(
            "read", {"path": str(path), "training": encode(keras_reader.case.training)}
        )
        assert outcome.ok or outcome.cause.startswith("UsageError: "), outcome
        found.append(outcome.ok)
    # What a configuration says beside names and classes is not looked at.
    assert found[1:] == [False, False, True]
    assert nothing_ran(Path.cwd())
    assert nothing_ran(tmp_path)


def hdf5(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def edit(parts: dict[str, bytes]) -> None:
        import h5py

        buffer = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        parts["model.weights.h5"] = buffer.getvalue()

    return edit


OUT = "layers/dense/vars/0"


def _replaced(file: Any, **how: Any) -> None:
    del file[OUT]
    file.create_dataset(OUT, **how)


def _linked(kind: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        import h5py

        del file[OUT]
        links = {
            "soft": h5py.SoftLink("/layers/dense/vars/1"),
            "external": h5py.ExternalLink("/etc/passwd", "/"),
        }
        file[OUT] = links[kind]

    return change


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((8, 86), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8, 86))
    del file[OUT]
    file.create_virtual_dataset(OUT, layout)


DATASETS: dict[str, tuple[Callable[[Any], None], str]] = {
    "soft link": (_linked("soft"), "has no dataset '0' of its own"),
    "external link": (_linked("external"), "has no dataset '0' of its own"),
    "external file": (
        lambda f: _replaced(f, shape=(8, 86), dtype="f4", external=[("/etc/passwd", 0, 2752)]),
        "are not in the file",
    ),
    "virtual": (_virtual, "are not in the file"),
    "empty": (lambda f: _replaced(f, dtype="f4", shape=None), "are not in the file"),
    "too large": (
        lambda f: _replaced(f, shape=(1 << 20, 1 << 20), dtype="f4", chunks=(64, 64)),
        "found [1048576, 1048576] of float32",
    ),
    "large chunks": (
        lambda f: _replaced(
            f,
            shape=(8, 86),
            maxshape=(None, None),
            dtype="f4",
            chunks=(16384, 16384),
            compression="gzip",
        ),
        "the chunks of /layers/dense/vars/0 are too large",
    ),
    "float16": (lambda f: _replaced(f, shape=(8, 86), dtype="f2"), "of float16"),
    "int": (lambda f: _replaced(f, shape=(8, 86), dtype="i4"), "of int32"),
    "bool": (lambda f: _replaced(f, shape=(8, 86), dtype="?"), "of bool"),
    "complex": (lambda f: _replaced(f, shape=(8, 86), dtype="c8"), "of complex64"),
    "double": (lambda f: _replaced(f, shape=(8, 86), dtype="f8"), "all must be of one dtype"),
    "a group": (lambda f: (f.pop(OUT), f.create_group(OUT)), "has no dataset '0' of its own"),
    "another name": (
        lambda f: f["layers/dense/vars"].attrs.__setitem__("name", "other"),
        "its variables are of 'other', not of 'out'",
    ),
    "nothing": (lambda f: f.pop("layers"), "/ has no group 'layers' of its own"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_variables_that_are_not_in_the_file_are_refused(
    name: str, keras_reader: Reader, tmp_path: Path
) -> None:
    change, words = DATASETS[name]
    path = rewritten(keras_reader.path, hdf5(change), tmp_path / "m.keras")
    assert words in keras_reader.refusal(path)


@pytest.mark.parametrize(
    ("part", "size", "words"),
    [
        ("config.json", 1 << 30, "config.json has 1,073,741,824 bytes, where 4,194,304"),
        ("model.weights.h5", 3 << 30, "model.weights.h5 has 3,221,225,472 bytes, where "),
        ("harness.json", 1 << 30, "harness.json has 1,073,741,824 bytes, where "),
    ],
)
def test_a_part_that_unpacks_to_gigabytes_is_refused(
    part: str, size: int, words: str, keras_reader: Reader, tmp_path: Path
) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(keras_reader.path) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if info.filename != part:
                new.writestr(info.filename, old.read(info))
        bomb(new, part, size)
    assert words in keras_reader.refusal(path)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("config.json", b""),
        ("config.json", b"[" * 1_000_000),
        ("config.json", b"9" * 5000),
        ("config.json", b"null"),
        ("config.json", b'{"config": {"layers": [3]}}'),
        ("config.json", b'{"config": {"layers": [{"config": {"name": 1}, "class_name": 2}]}}'),
        ("config.json", b"\xff\xfe"),
        ("harness.json", b"[]"),
        ("harness.json", b'{"spec": 3}'),
        ("harness.json", b"[" * 1_000_000),
        ("model.weights.h5", b""),
        ("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(2000)),
    ],
)
def test_damaged_parts_are_told(
    part: str, content: bytes, keras_reader: Reader, tmp_path: Path
) -> None:
    path = rewritten(
        keras_reader.path, lambda parts: parts.update({part: content}), tmp_path / "m.keras"
    )
    assert "cannot be read as a .keras file: its " in keras_reader.refusal(path)


# ONNX


@pytest.fixture(scope="module")
def onnx_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from reader("onnx", "onnx", tmp_path_factory)


def initializer(model: Any, name: str = "out.b") -> Any:
    return next(i for i in model.graph.initializer if i.name == name)


def _external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx

        onnx.external_data_helper.set_external_data(initializer(model), location, 0, 344)
        initializer(model).ClearField("raw_data")

    return change


def _typed(array: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx

        initializer(model).CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), "out.b"))

    return change


def _dims(*dims: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        one = initializer(model)
        del one.dims[:]
        one.dims.extend(dims)
        one.raw_data = b""

    return change


def _set(**fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(initializer(model), name, value)

    return change


TENSORS: dict[str, tuple[Callable[[Any], None], str]] = {
    "another file": (_external("../../etc/passwd"), "in another file, ../../etc/passwd"),
    "an absolute file": (_external("/etc/passwd"), "in another file, /etc/passwd"),
    "a device": (_external("/dev/zero"), "in another file, /dev/zero"),
    "huge": (_dims(1 << 40), "found [1099511627776]"),
    "many axes": (_dims(*[1 << 30] * 60), "found [1073741824, "),
    "negative": (_dims(-86), "found [-86]"),
    "no numbers": (_dims(86), "out.b is damaged"),
    "too many numbers": (_set(raw_data=bytes(4 * 87)), "out.b is damaged"),
    "int": (_typed(np.zeros(86, np.int32)), "of int32"),
    "bool": (_typed(np.zeros(86, bool)), "of bool"),
    "complex": (_typed(np.zeros(86, np.complex64)), "of complex64"),
    "float16": (_typed(np.zeros(86, np.float16)), "of float16"),
    "double": (_typed(np.zeros(86)), "all must be of one dtype"),
    "text": (_set(data_type=8), "of object"),
    "unknown type": (_set(data_type=99), "of element type 99"),
    "undefined type": (_set(data_type=0), "of element type 0"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_in_the_graph_are_refused(
    name: str, onnx_reader: Reader, tmp_path: Path
) -> None:
    import onnx

    change, words = TENSORS[name]
    model = onnx.load(onnx_reader.path)
    change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert words in onnx_reader.refusal(path)


def test_a_graph_of_millions_of_nothings_is_refused(onnx_reader: Reader, tmp_path: Path) -> None:
    """Field 7 of a model is its graph, field 1 of that a node of two bytes."""
    path = tmp_path / "m.onnx"
    nodes = b"\x0a\x00" * (12 << 20)
    size = len(nodes)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    path.write_bytes(b"\x3a" + length + nodes)
    assert "are too many for an ONNX file of this model; at most " in onnx_reader.refusal(path)


# All of them, by the command.


@pytest.mark.parametrize("name", ["torch", "jax", "keras", "onnx"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing", "empty"])
def test_what_is_no_regular_file_is_refused_at_once(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "empty" and name != "torch":
        pytest.skip("each format's own tests have that")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    {
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "folder": file.mkdir,
        "loop": lambda: file.symlink_to(file),
        "missing": lambda: None,
        "empty": lambda: file.write_bytes(b""),
    }[kind]()
    start = time.monotonic()
    arguments = ["import", SPEC, "file", "--from", name, "--weights", "w.st"]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    assert time.monotonic() - start < (SECONDS if kind == "empty" else 2.0)
    assert not (tmp_path / "w.st").exists()


def made(path: Path, **changed: Any) -> Weights:
    spec = load_spec(SPEC)
    program = spec.program("training", hidden=8)
    drawn = draw(program, 1, 1, 3)
    parameters = {n: a.astype(np.float32) for n, a in drawn.parameters.items()} | changed
    sizes = dict(program.sizes)
    found = Weights(SPEC, weights.fingerprint(spec), sizes, parameters, {}, ("a",) * 86)
    weights.save(path, found)
    return found


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_neither_exported_nor_imported(
    number: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    monkeypatch.chdir(tmp_path)
    bias = np.zeros(86, np.float32)
    made(tmp_path / "good.st")
    arguments = ["export", SPEC, "--to", "jax", "--output", "m.npz", "--weights"]
    assert CliRunner().invoke(cli, [*arguments, "good.st"]).exit_code == 0
    bias[3:5] = number
    made(tmp_path / "bad.st", **{"out.b": bias})
    found = CliRunner().invoke(cli, [*arguments, "bad.st", "--force"])
    assert found.exit_code == 2
    words = "2 of the 86 numbers of out.b are NaN or infinite"
    assert f"bad.st: {words}" in " ".join(found.output.split())
    rewritten(
        tmp_path / "m.npz",
        lambda parts: parts.update({"out/b.npy": array_bytes(bias)}),
        tmp_path / "n.npz",
    )
    arguments = ["import", SPEC, "n.npz", "--from", "jax", "--size", "hidden=8", "--weights", "w"]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 2
    assert f"n.npz: {words}" in " ".join(found.output.split())
    assert not (tmp_path / "w").exists()
