"""Formats are listed without an import, loaded in a process of their own; files come whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_definitions import changed, shipped
from exporting import exported, running, same_bits
from wording import Wording

from harness.convert import formats
from harness.convert.formats import (
    BrokenFormat,
    Exported,
    Format,
    FormatService,
    UnknownFormat,
    launch,
    load,
)
from harness.errors import UsageError
from harness.files.atomic import whole
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.program.serial import encode
from harness.runtime import hookspecs
from harness.worker.worker import Worker

Install = Callable[..., None]

GOOD = """
from harness.convert.formats import Format
from harness.runtime.hookspecs import hookimpl

class Echo(Format):
    name = "echo"
    suffix = ".echo"

    def write(self, exported, path):
        path.write_text(f"{exported.spec} {exported.dtype} {sorted(exported.parameters)}")
        return [path]

    def outputs(self, path, inputs, state):
        return {f"output.{n}": a for n, a in inputs.items()}

@hookimpl
def harness_format(name):
    return Echo()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with one module and a format."""

    def install(name: str, source: str, distribution: str = "dist", extra: str = "") -> None:
        folder = tmp_path / distribution
        metadata = folder / f"{distribution}-1.5.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{name}_module.py").write_text(source)
        extras = f"Provides-Extra: {extra}\n" if extra else ""
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n{extras}"
        )
        (metadata / "entry_points.txt").write_text(
            f"[{hookspecs.FORMATS_GROUP}]\n{name} = {name}_module\n"
        )
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)

    return install


def tiny(dtype: str = "float32") -> Exported:
    spec = load_spec("lesson6/stateful_lstm")
    training = spec.program("training", hidden=2)
    inference = spec.program("inference", hidden=2)
    parameters = {p.name: np.ones(training.shape(p), dtype) for p in training.parameters}
    statistics = {p.name: np.zeros(training.shape(p), dtype) for p in training.statistics}
    return Exported(spec.name, training, inference, parameters, statistics, ("\0", "a"), {"x": 1})


def test_our_formats_are_listed_without_importing_any() -> None:
    code = (
        "import sys\nfrom harness.convert.formats import available\nfound = available()\n"
        "print(*found)\n"
        "assert not [m for m in sys.modules if m.startswith('harness.backends.')]\n"
        "assert not {'torch', 'jax', 'keras', 'onnx'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["jax", "keras", "onnx", "torch"]


def test_format_of_anybody_writes_and_runs_in_a_process_of_its_own(
    install: Install, tmp_path: Path, wording: Wording
) -> None:
    install("echo", GOOD)
    assert formats.available()["echo"].distribution == "dist"
    path = tmp_path / "m.echo"
    where = {"PYTHONPATH": str(tmp_path / "dist")}
    with Worker(launch("echo", environment=where)) as worker:
        assert worker.call("suffix").value == ".echo"
        made = worker.call("write", {"exported": tiny().payload(), "path": str(path)})
        assert made.value == [str(path)], made.cause
        inputs = {"x": np.arange(3)}
        found = worker.call("outputs", {"path": str(path), "inputs": inputs, "state": {}})
        assert found.value["output.x"].tolist() == [0, 1, 2]
        training = encode(load_spec("lesson6/simple_rnn").program("training"))
        refused = worker.call("read", {"path": str(path), "training": training})
        wording(refused.cause, "UsageError ... 'echo'")
        assert (worker.hello or {})["versions"] == {"numpy": np.__version__}
    assert "echo_module" not in sys.modules
    assert path.read_text().startswith("lesson6/stateful_lstm float32 ['embed.table', 'lstm.U_f',")


def test_what_is_exported_travels_whole() -> None:
    given = tiny("float64")
    found = Exported.of(given.payload())
    assert found == given
    assert found.dtype == "float64"
    assert Exported("none", given.training, given.inference, {}, {}).dtype == "float32"


@pytest.mark.parametrize(("name", "words"), [("toch", "'torch'"), ("zzz", "jax, keras")])
def test_unknown_format_is_told_what_there_is(name: str, words: str, wording: Wording) -> None:
    for function in (launch, load):
        with wording.raises(UnknownFormat, words):
            function(name)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no device')", "RuntimeError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_framework", "'dist[bad]'"),
        ("", "harness_format"),
        (GOOD.replace("return Echo()", "return None"), ""),
    ],
)
def test_broken_format_says_how(
    source: str, words: str, install: Install, wording: Wording
) -> None:
    install("bad", source, extra="bad")
    with wording.raises(BrokenFormat, words):
        load("bad")


def test_hint_names_only_an_extra_that_there_is(install: Install) -> None:
    install("bad", "import no_such_framework")
    with pytest.raises(BrokenFormat, match=r"No module named 'no_such_framework'$"):
        load("bad")


def test_name_that_two_distributions_claim_is_not_loaded(
    install: Install, wording: Wording
) -> None:
    install("twice", GOOD, distribution="one")
    install("twice", GOOD, distribution="two")
    with wording.raises(BrokenFormat):
        launch("twice")


def test_verbs_are_those_of_the_format() -> None:
    class Refusing(formats.Format):
        name, suffix = "refusing", ".x"

        def write(self, exported: Exported, path: Path) -> list[Path]:
            raise UsageError("not this one")

        def outputs(self, path: Path, inputs: object, state: object) -> dict[str, np.ndarray]:
            return {}

    with pytest.raises(UsageError, match="not this one"):
        FormatService(Refusing())("write", {"exported": tiny().payload(), "path": "m.x"})


# Files that come whole.


def test_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_text("old")
    with whole(path) as new:
        assert new.parent == tmp_path
        assert new.suffix == ".txt"
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["m.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".txt")
    with whole(path) as new:
        new.write_text("new")
    assert path.read_text() == "new"


def test_what_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_text("old")

    def interrupted() -> None:
        with whole(path) as new:
            new.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.txt"]


def test_a_module_may_serve_a_backend_and_a_format(install: Install) -> None:
    install("both", GOOD + "\n@hookimpl\ndef harness_backend(name):\n    return None\n")
    assert load("both").name == "echo"


MINE = """\
model: mine
summary: Copies of what ships, and a function of another meaning.
source: none
sizes: {width: 4, units: 5}
inputs: {x: {shape: [batch, time, width]}}
layers:
  first: {layer: cell, units: units}
  second: {layer: lstm, units: units}
  out: {layer: affine, units: width, activation: positive}
equations: |
  y = out(second(first(x)))
"""


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_what_is_written_goes_by_the_meaning_of_definitions(name: str, tmp_path: Path) -> None:
    """A framework's own layer for a copy under another name; none for another sigmoid."""
    copies = {"cell": ("layer", "lstm"), "affine": ("layer", "dense")}
    copies["positive"] = ("function", "relu")
    overrides = {("model", "mine"): MINE}
    for copy, (kind, own) in copies.items():
        text = shipped(kind, own).replace(f"{kind}: {own}\n", f"{kind}: {copy}\n")
        overrides[kind, copy] = text.replace("gate: sigmoid", "gate: squash")
    overrides["function", "squash"] = shipped("function", "sigmoid").replace(
        "function: sigmoid", "function: squash"
    )
    overrides["function", "sigmoid"] = changed("function", "sigmoid", "0.5 * x", "0.25 * x")
    case = Case(load_spec("mine", overrides=overrides), {}, 3, 5)
    with running(name) as caller:
        path = tmp_path / {"torch": "model.pt", "keras": "model.keras"}[name]
        caller.write(exported(case, "float64"), path)
        found = caller.deviations(path, case, "float64")
    assert found
    assert [str(d) for d in found if not d.agrees] == []
    if name == "torch":
        text = (tmp_path / "model.py").read_text()
        assert (text.count("nn.LSTM("), text.count("nn.Linear(")) == (1, 1)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB."""
    place = tmp_path / "full"
    place.mkdir()
    if os.geteuid() or subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], stderr=subprocess.DEVNULL
    ):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.check_call(["umount", place])


@pytest.mark.parametrize("format_", ["torch", "onnx"])
def test_a_full_disk_is_a_message_and_leaves_nothing(
    format_: str, full: Path, wording: Wording
) -> None:
    """torch hides the system's error behind one of its own."""
    case = Case(load_spec("lesson6/keras_gru"), {"hidden": 64}, 1, 2)
    service = FormatService(load(format_))
    path = full / f"x{service.suffix()}"
    words = f"cannot write {path.name}: no space left on device"
    with wording.raises(UsageError, f"{words}"):
        service.write(exported(case, "float64").payload(), str(path))
    assert list(full.iterdir()) == []


def test_other_errors_of_a_format_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    class Failing(Format):
        name, suffix = "failing", ".x"

        def write(self, exported: Exported, path: Path) -> list[Path]:
            try:
                raise OSError(errno.ENOENT, "gone")
            except OSError as error:
                raise RuntimeError("corrupt") from error

        def outputs(self, path: Path, inputs: object, state: object) -> dict[str, Any]:
            return {}

    payload = exported(Case(load_spec("lesson6/three_char"), {}, 1, 2), "float32").payload()
    with pytest.raises(RuntimeError, match="corrupt"):
        FormatService(Failing()).write(payload, str(tmp_path / "x.x"))


CONVOLUTIONS = """\
model: convolutions
summary: Each kind of convolution, with options that torch has too.
source: none
sizes: {width: 3, units: 4}
inputs: {x: {shape: [batch, 6, 6, width]}}
layers:
  plain: {layer: conv2d, units: units, kernel: 3, stride: 2, padding: 1, activation: relu}
  bare: {layer: conv2d, bias: false, units: units, kernel: 1, stride: 2}
  deep: {layer: conv2d, units: 2 * width, groups: width, kernel: 3, dilation: 2, padding: 2}
  back: {layer: conv2d_transpose, units: units, kernel: 2, stride: 2}
  line: {layer: conv1d, units: units, kernel: 2}
  odd: {layer: conv2d, units: units, kernel: 1, activation: gelu}
equations: |
  y = back(plain(x))
  z = odd(bare(deep(x)))
  w = line(merge(x, axes=[1, 2]))
"""


def test_convolutions_are_modules_of_torch(tmp_path: Path) -> None:
    overrides = {("model", "convolutions"): CONVOLUTIONS}
    case = Case(load_spec("convolutions", overrides=overrides), {}, 3, 5)
    path = tmp_path / "model.pt"
    with running("torch") as caller:
        given = exported(case, "float64")
        caller.write(given, path)
        found = caller.deviations(path, case, "float64")
        back = caller.read(path, case)
    assert [str(d) for d in found if not d.agrees] == []
    assert {f"output.{name}" for name in "yzw"} == {d.name for d in found}
    text = path.with_suffix(".py").read_text()
    kinds = ("nn.Conv1d(", "nn.Conv2d(", "nn.ConvTranspose2d(")
    # torch's convolution has no gelu: that layer is its equations.
    assert [text.count(kind) for kind in kinds] == [1, 3, 1]
    assert "nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=3, dtype=dtype)" in text
    assert same_bits(back, given)
