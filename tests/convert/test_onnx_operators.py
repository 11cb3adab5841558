"""Every primitive as ONNX's operators, and what cannot become a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from format_cases import ALLOWED, Case, ask, error
from needed import need
from wording import Wording

import harness
from harness.convert.formats import Exported, launch
from harness.errors import UsageError
from harness.oracle.oracle import run
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Port, Program, Type, walk_nodes
from harness.program.primitives import EVERY
from harness.worker.worker import Worker

need("onnx", "onnxruntime")

from harness.backends.onnx import format as onnx_format  # noqa: E402


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(launch("onnx")) as started:
        yield started


def primitives() -> Program:
    """A program with every primitive, those that only gradients are made of too."""
    batch, time, units = Dim.of("batch"), Dim.of("time"), Dim.of("units")
    b = Builder()
    x = b.value(Type((batch, time, units)), "x")
    index = b.value(Type((batch, time), "index", Dim.of("rows")), "index")
    table = b.value(Type((Dim.of("rows"), units)), "table")
    found: dict[str, int] = {}
    for op in ("exp", "tanh", "negative", "stop_gradient"):
        found[op] = b.emit(op, x)
    for op in ("add", "subtract", "multiply", "less", "less_equal", "equal"):
        found[op] = b.emit(op, x, found["tanh"])
    found["same"] = b.emit("astype", b.emit("less_equal", x, x))
    found["divide"] = b.emit("divide", x, found["exp"])
    found["power"] = b.emit("power", x, b.constant(2.0))
    found["log"], found["sqrt"] = b.emit("log", found["exp"]), b.emit("sqrt", found["power"])
    found["where"] = b.emit("where", found["less"], x, b.constant(-1.0))
    for op in ("less", "less_equal", "equal"):
        found[op] = b.emit("astype", found[op])
    found["astype"] = found["equal"]
    found["permute_dims"] = turned = b.emit("permute_dims", x, axes=(1, 0, 2))
    found["expand_dims"] = wide = b.emit("expand_dims", x, axis=1)
    wider = (batch, Dim(2), time, units)
    found["broadcast_to"] = b.emit("broadcast_to", wide, shape=wider)
    found["squeeze"] = b.emit("squeeze", wide, axis=1)
    found["concat"] = b.emit("concat", x, x, axis=1)
    # One long axis of two lengths, of which another takes a part.
    found["slice"] = b.emit("slice", found["concat"], axis=1, start=time - 1, stop=time * 2 - 1)
    found["flip"] = b.emit("flip", x, axis=1)
    found["take"] = rows = b.emit("take", table, index)
    column = b.emit("expand_dims", index, axis=2)
    hot = b.emit("one_hot", index, classes=Dim.of("rows"))
    found["one_hot"], found["take_along_axis"] = hot, b.emit("take_along_axis", hot, column)
    found["segment_sum"] = b.emit("segment_sum", rows, index, rows=Dim.of("rows"))
    for op in ("erf", "sin", "cos", "floor"):
        found[op] = b.emit(op, x)
    found["arange"] = b.emit("arange", stop=time)
    found["cumulative_sum"] = b.emit("cumulative_sum", x)
    found["argsort"] = b.emit("argsort", b.emit("floor", x))
    found["reshape"] = b.emit("reshape", x, shape=(batch * time, units))
    found["windows"], found["overlap_add"] = _framed(b, x, time)
    found["sum"] = b.emit("sum", x, axis=(0, 2), keepdims=False)
    found["max"] = b.emit("max", x, axis=(2,), keepdims=True)
    found["nothing"] = b.emit("sum", x, axis=(), keepdims=False)
    found["matmul"] = b.emit("matmul", x, b.emit("permute_dims", table, axes=(1, 0)))
    found["tensordot"] = b.emit("tensordot", x, rows, axes=((0, 1), (0, 1)))
    found["extent"] = b.emit("multiply", x, b.emit("extent", dims=(batch, time, units)))
    found["scan"], found["carried"], found["passed"] = _backwards(b, turned, rows)
    ports = tuple(Port(f"made_{name}", value) for name, value in found.items())
    return Program(
        name="primitives",
        phase="inference",
        sizes={"units": 4, "rows": 3},
        types=b.types,
        names=b.names,
        nodes=tuple(b.nodes),
        inputs=(Port("x", x), Port("index", index)),
        targets=(),
        state=(),
        statistics=(),
        parameters=(Port("table", table),),
        outputs=ports,
        new_state=(),
        new_statistics=(),
    )


def _framed(b: Builder, x: int, time: Dim) -> tuple[int, int]:
    """Windows of an axis whose length arrays decide and of one of 4, and the latter's sum."""
    one, two, none = (tuple(map(Dim, (n, n))) for n in (1, 2, 0))
    framing = {
        "axes": (1, 2),
        "size": (Dim(2), Dim(3)),
        "stride": one,
        "dilation": (Dim(1), Dim(2)),
    }
    length = (time + 1, Dim(2))
    made = b.emit("windows", x, **framing, padding=one, after=one, length=length, lowest=False)
    part = b.emit("sum", made, axis=(3,), keepdims=False)
    framing = {"axes": (2,), "size": (Dim(3),), "stride": two[:1], "dilation": one[:1]}
    ends = {"padding": one[:1], "after": none[:1], "length": (Dim(4),)}
    return made, b.emit("overlap_add", part, **framing, **ends)


def _backwards(b: Builder, sequence: int, outer: int) -> tuple[int, int, int]:
    """A loop from the last step to the first, whose results are also its inputs and around it."""
    start = b.zeros(b.types[sequence].shape[1:])
    carried, part = b.value(b.types[start]), b.value(b.types[start])
    b.begin()
    step = b.emit("add", b.emit("multiply", carried, b.constant(0.5)), part)
    body = b.end([carried, part], [step, step, part, carried])
    last, (stacked, same, _) = b.scan(body, [start], [sequence], reverse=True)
    return stacked, b.emit("add", last[0], b.emit("sum", outer, axis=(1,), keepdims=False)), same


@pytest.mark.parametrize("dtype", ALLOWED)
def test_every_primitive(worker: Worker, tmp_path: Path, dtype: str) -> None:
    program = primitives()
    used = {node.op for node in walk_nodes(program.nodes)}
    assert used == {*EVERY, "constant", "extent", "scan"}
    rng = np.random.default_rng(5)
    table = rng.normal(size=(3, 4)).astype(dtype)
    exported = Exported(program.name, program, program, {"table": table}, {})
    path = tmp_path / "primitives.onnx"
    ask(worker, "write", exported=exported.payload(), path=str(path))
    for batch, time in ((2, 3), (3, 1)):
        x, index = rng.normal(size=(batch, time, 4)), rng.integers(0, 3, (batch, time))
        x = x.astype("float32").astype("float64")
        inputs = {"x": x, "index": index}
        found = ask(worker, "outputs", path=str(path), inputs=inputs, state={})
        env = {p.value: {**inputs, "table": table}[p.name] for p in program.inputs}
        env[program.parameters[0].value] = table.astype("float64")
        values = run(program.nodes, env, {**program.sizes, "batch": batch, "time": time})
        wanted = {f"output.{p.name}": np.asarray(values[p.value]) for p in program.outputs}
        assert error(found, wanted) < ALLOWED[dtype]


def test_a_length_that_no_input_has_is_an_error(tmp_path: Path, wording: Wording) -> None:
    program = primitives()
    types = dict(program.types)
    longer = Dim.of("time") + 1
    for port in program.inputs:
        batch, _, *rest = types[port.value].shape
        types[port.value] = replace(types[port.value], shape=(batch, longer, *rest))
    program = replace(program, types=types)
    exported = Exported("primitives", program, program, {"table": np.zeros((3, 4))}, {})
    with wording.raises(UsageError):
        onnx_format.Onnx("onnx").write(exported, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_more_than_one_file_holds_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    case = Case.of(harness.load("lesson6/simple_rnn"), "float32")
    size = sum(array.nbytes for array in case.exported.parameters.values())
    form, path = onnx_format.Onnx("onnx"), tmp_path / "model.onnx"
    monkeypatch.setattr(onnx_format, "LIMIT", size - 1)
    with wording.raises(UsageError, f"{size:,}"):
        form.write(case.exported, path)
    monkeypatch.setattr(onnx_format, "LIMIT", size)
    assert form.write(case.exported, path) == [path]
