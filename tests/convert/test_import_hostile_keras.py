""".keras files of strangers: nothing in them is made, and no variable lies elsewhere."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign import Reader, bomb, listed, nothing_ran, reader, rewritten
from needed import need
from wording import Wording

from harness.program.serial import encode


@pytest.fixture(scope="module")
def keras_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    need("tensorflow")
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
    "soft link": (_linked("soft"), "has no dataset '0' in this file"),
    "external link": (_linked("external"), "has no dataset '0' in this file"),
    "external file": (
        lambda f: _replaced(f, shape=(8, 86), dtype="f4", external=[("/etc/passwd", 0, 2752)]),
        "are stored outside of the file",
    ),
    "virtual": (_virtual, "are stored outside of the file"),
    "empty": (lambda f: _replaced(f, dtype="f4", shape=None), "are stored outside of the file"),
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
    "double": (lambda f: _replaced(f, shape=(8, 86), dtype="f8"), "must have the same dtype"),
    "a group": (lambda f: (f.pop(OUT), f.create_group(OUT)), "has no dataset '0' in this file"),
    "another name": (
        lambda f: f["layers/dense/vars"].attrs.__setitem__("name", "other"),
        "its variables belong to 'other', not to 'out'",
    ),
    "nothing": (lambda f: f.pop("layers"), "/ has no group 'layers' in this file"),
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
        ("config.json", 1 << 28, "config.json has 268,435,456 bytes"),
        ("model.weights.h5", 3 << 26, "model.weights.h5 has 201,326,592 bytes"),
        ("harness.json", 1 << 28, "harness.json has 268,435,456 bytes"),
    ],
)
def test_a_part_that_unpacks_to_far_more_is_refused(
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
    part: str, content: bytes, keras_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = rewritten(
        keras_reader.path, lambda parts: parts.update({part: content}), tmp_path / "m.keras"
    )
    wording.line(keras_reader.refusal(path), ".keras")


def test_a_list_of_a_million_parts_is_refused(
    keras_reader: Reader, tmp_path: Path, wording: Wording
) -> None:
    path = listed(tmp_path / "m.keras")
    wording(keras_reader.refusal(path))
