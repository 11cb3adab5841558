"""Every reader of what a stranger gives: real inputs, their damage, and a way to read them.

A reader takes the content, and a folder to put it into. What it may raise is a
:class:`~harness.errors.HarnessError`, whose message is for a person.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from click.testing import CliRunner
from hypothesis import strategies as st
from safetensors.numpy import save as to_safetensors

from fuzz.messages import read_frame
from fuzz.mutations import damaged, retyped
from fuzz.own_models import RULES, SOURCE, read_rules, read_source
from fuzz.real import (
    MODEL,
    SIZES,
    answers,
    checkpoint_file,
    inputs_file,
    models,
    plain_weights_file,
    program_file,
    records_file,
    reproducer_files,
    results_file,
    shipped_file,
    spec,
    table_at,
    table_file,
    weights_file,
)
from harness.checking import reproducer
from harness.checking.history import records_of
from harness.checking.request import Request
from harness.cli import cli
from harness.convert import weights
from harness.convert.weights import DIGEST, OPENING, ZEROS
from harness.errors import HarnessError
from harness.fuzz.record import CaseLine, Fault, FuzzRun, read_lines
from harness.given.files import gather
from harness.program.serial import decode, encode
from harness.text.corpus import corpus
from harness.training import checkpoint


@dataclass(frozen=True)
class Reader:
    """``share`` is how much of the whole number of inputs it gets, of :data:`WHOLE`."""

    name: str
    inputs: Callable[[], st.SearchStrategy[bytes]]
    read: Callable[[bytes, Path], None]
    share: int = 1


def signed(data: bytes) -> bytes:
    """A file of weights with the right checksum over whatever it holds."""
    if data[8 : DIGEST.start] != OPENING or len(data) < DIGEST.stop:
        return data
    found = bytearray(data)
    found[DIGEST] = ZEROS.encode()
    found[DIGEST] = hashlib.sha256(found).hexdigest().encode()
    return bytes(found)


def with_metadata(metadata: Any) -> bytes:
    """A file of weights whose metadata are any JSON, with the right checksum."""
    arrays = {"embed.W": np.zeros((2, 3), np.float32)}
    data = to_safetensors(arrays)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    return signed(len(text).to_bytes(8, "little") + text + data[end:])


def metadata_of(data: bytes) -> dict[str, Any]:
    end = 8 + int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(data[8:end])["__metadata__"]
    return found


def hostile_metadata(seed: bytes) -> st.SearchStrategy[bytes]:
    """Weights with one field of the metadata, or of the JSON within it, changed."""
    whole = metadata_of(seed)
    parts = [
        retyped(json.loads(whole[name])).map(
            lambda value, name=name: with_metadata({**whole, name: json.dumps(value)})
        )
        for name in ("sizes", "statistics", "vocabulary", "history")
    ]
    return st.one_of(retyped(whole).map(with_metadata), *parts)


def read_weights(data: bytes, folder: Path) -> None:
    (folder / "w").write_bytes(data)
    found = weights.load(folder / "w")
    weights.check(found, spec())


def read_checkpoint(data: bytes, folder: Path) -> None:
    (folder / "c").write_bytes(data)
    checkpoint.load(folder / "c")


def model_values() -> st.SearchStrategy[bytes]:
    """Models with values of other types; JSON is YAML."""
    found = [yaml.safe_load(model) for model in models()]
    return st.one_of([retyped(m).map(lambda value: json.dumps(value).encode()) for m in found])


def explain(data: bytes, folder: Path) -> None:
    (folder / "m.yaml").write_bytes(data)
    run("explain", str(folder / "m.yaml"))


def definition(path: str, model: str = MODEL, share: int = 1) -> Reader:
    """Reads a shipped definition, damaged and in a folder of one's own, through a model's use."""

    def read(data: bytes, folder: Path) -> None:
        file = folder / f"{path}.yaml"
        file.parent.mkdir()
        file.write_bytes(data)
        run("explain", model, "--specs", str(folder))

    return Reader(path, of_bytes(lambda: shipped_file(path)), read, share)


def run(*arguments: str) -> None:
    """Run a command; anything but an exit code of 2 or less is a fault."""
    done = CliRunner().invoke(cli, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code == 2:
        raise HarnessError(done.output)
    assert done.exit_code in (0, 1), done.output


def compare(data: bytes, folder: Path) -> None:
    (folder / "old.json").write_bytes(results_file())
    (folder / "new.json").write_bytes(data)
    run("compare", str(folder / "old.json"), str(folder / "new.json"))
    run("compare", str(folder / "new.json"), str(folder / "old.json"), "--print-markdown")


def hostile_lines(records: bytes) -> st.SearchStrategy[bytes]:
    """Records with values of one line changed."""
    lines = [json.loads(line) for line in records.splitlines()]

    def joined(number: int, line: Any) -> bytes:
        given = [*lines[:number], line, *lines[number + 1 :]]
        return b"".join(json.dumps(item).encode() + b"\n" for item in given)

    return st.one_of(
        [
            retyped(line).map(lambda changed, number=number: joined(number, changed))
            for number, line in enumerate(lines)
        ]
    )


def read_run(data: bytes, folder: Path) -> None:
    (folder / "run.jsonl").write_bytes(data)
    request = Request(backends=("numpy",), checks=("values",))
    assert records_of(folder / "run.jsonl", request).ended is not None


FUZZ_RUN = FuzzRun(seed=0, dtypes=("float32",), path="native", device="cpu")
_SHARED = {"number": 3, "backend": "numpy", "functions": ("exp",), "dtype": "float32"}
_FAULT = {"version": "2", "values": "ordinary", "check": "inference", "mode": "eager"}
FUZZ_RECORDS = b"".join(
    json.dumps(line.plain()).encode() + b"\n"
    for line in (
        FUZZ_RUN,
        CaseLine(**_SHARED, outcome="differ", values="ordinary", faults=("x",)),
        Fault(**_SHARED, **_FAULT, lengths="any", detail="", model="", batch=1, time=1),
    )
)


def read_fuzz_records(data: bytes, folder: Path) -> None:
    (folder / "fuzz.jsonl").write_bytes(data)
    read_lines(folder / "fuzz.jsonl", FUZZ_RUN)


def replayed(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        for file, content in reproducer_files().items():
            (folder / file).write_bytes(data if file == name else content)
        reproducer.load(folder)

    return read


def archives(content: bytes) -> st.SearchStrategy[bytes]:
    """Archives of arrays with the right names and other dtypes and shapes."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    others = (
        *(np.zeros(0), np.array(1), np.array(["x"]), np.array([True]), np.array([1j])),
        *(np.array([np.nan]), np.zeros((2,) * 12), np.array([{}], object), np.array(b"ab")),
        np.array([(1, 2.0)], "i4,f8"),
    )

    def made(name: str, other: Any, renamed: bool) -> bytes:
        given = {**arrays, (f"{name}/x" if renamed else name): other}
        buffer = io.BytesIO()
        np.savez(buffer, **given)
        return buffer.getvalue()

    return st.builds(made, st.sampled_from(sorted(arrays)), st.sampled_from(others), st.booleans())


def read_inputs(data: bytes, folder: Path) -> None:
    (folder / "x.npz").write_bytes(data)
    gather(spec(), SIZES, inputs=folder / "x.npz")


def read_table(data: bytes, folder: Path) -> None:
    (folder / "t.npz").write_bytes(data)
    table_at(folder / "t.npz")


def read_plain_weights(data: bytes, folder: Path) -> None:
    (folder / "w").write_bytes(data)
    gather(spec(), SIZES, parameters=folder / "w")


def read_text(data: bytes, folder: Path) -> None:
    (folder / "t.txt").write_bytes(data)
    corpus(os.fspath(folder / "t.txt"))


def read_program(data: bytes, folder: Path) -> None:
    decode(json.loads(data))


def of_json(seed: Callable[[], Any]) -> Callable[[], st.SearchStrategy[bytes]]:
    return lambda: retyped(seed()).map(lambda value: json.dumps(value).encode())


def of_bytes(*seeds: Callable[[], bytes | Sequence[bytes]]) -> Callable[[], Any]:
    def inputs() -> st.SearchStrategy[bytes]:
        given = [seed() for seed in seeds]
        flat = [s for g in given for s in ([g] if isinstance(g, bytes) else g)]
        return damaged(flat)

    return inputs


READERS = (
    Reader("models", of_bytes(models), explain, 6),
    Reader("model-values", model_values, explain, 2),
    definition("layers/lstm", share=2),
    definition("layers/gru", "lesson6/keras_gru", share=2),
    definition("functions/hard_sigmoid_fifth"),
    definition("losses/sparse_cross_entropy"),
    definition("optimizers/adam_epsilon_hat"),
    Reader("weights", of_bytes(weights_file), read_weights),
    Reader("signed-weights", lambda: of_bytes(weights_file)().map(signed), read_weights),
    Reader("metadata", lambda: hostile_metadata(weights_file()), read_weights, 2),
    Reader("checkpoints", lambda: hostile_metadata(checkpoint_file()), read_checkpoint, 2),
    Reader("records", of_bytes(records_file), read_run),
    Reader("record-lines", lambda: hostile_lines(records_file()), read_run, 2),
    Reader("fuzz-records", of_bytes(lambda: FUZZ_RECORDS), read_fuzz_records),
    Reader("fuzz-record-lines", lambda: hostile_lines(FUZZ_RECORDS), read_fuzz_records, 2),
    Reader("results", of_bytes(results_file), compare),
    Reader("result-values", of_json(lambda: json.loads(results_file())), compare, 2),
    Reader(
        "programs", of_bytes(lambda: reproducer_files()["program.json"]), replayed("program.json")
    ),
    Reader(
        "program-values",
        of_json(lambda: json.loads(program_file())),
        replayed("program.json"),
        2,
    ),
    Reader("arrays", of_bytes(lambda: reproducer_files()["arrays.npz"]), replayed("arrays.npz")),
    Reader(
        "array-values",
        lambda: archives(reproducer_files()["arrays.npz"]),
        replayed("arrays.npz"),
    ),
    Reader("inputs", of_bytes(inputs_file), read_inputs),
    Reader("input-values", lambda: archives(inputs_file()), read_inputs),
    Reader("tables", of_bytes(table_file), read_table),
    Reader("table-values", lambda: archives(table_file()), read_table),
    Reader("plain-weights", of_bytes(plain_weights_file), read_plain_weights),
    Reader("texts", of_bytes(lambda: ["Ein Text.\r\nÜber zwei Zeilen.".encode()]), read_text),
    Reader("rules", of_bytes(lambda: RULES), read_rules),
    Reader("sources", of_bytes(lambda: SOURCE), read_source),
    Reader("frames", of_bytes(answers), read_frame, 4),
    Reader("wire", of_json(lambda: encode(spec().programs["training"])), read_program, 2),
)
WHOLE = sum(reader.share for reader in READERS)
