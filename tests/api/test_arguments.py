"""What the functions of ``harness`` take: one thing where one is meant, and errors in words."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import SPECS
from wording import Wording

import harness
from harness.api import arguments
from harness.checking.request import Request
from harness.errors import HarnessError, UsageError
from harness.given.run import Settings
from harness.timing.request import BenchRequest
from harness.training.generate.request import GenerateRequest
from harness.training.request import TrainRequest

SPEC = "lesson6/simple_rnn"
FUNCTIONS = harness.__all__
# What is asked for in another way, or by the harness itself.
RENAMED = {
    "spec",
    "specs",
    "backend",
    "backends",
    "environment",
    "service",
    "given",
    "texts",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_signature_of_its_own(name: str) -> None:
    function = getattr(harness, name)
    parameters = inspect.signature(function).parameters.values()
    assert not [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert all(p.annotation is not p.empty for p in parameters)
    text = inspect.getdoc(function) or ""
    assert "Raises:" in text
    for parameter in parameters:
        assert f"    {parameter.name}: " in text, parameter.name


@pytest.mark.parametrize(
    ("name", "request_type"),
    [
        ("check", Request),
        ("bench", BenchRequest),
        ("train", TrainRequest),
        ("generate", GenerateRequest),
        ("run", Settings),
    ],
)
def test_every_field_of_a_request_can_be_asked_for(name: str, request_type: Any) -> None:
    taken = inspect.signature(getattr(harness, name)).parameters
    fields = {field.name: field for field in dataclasses.fields(request_type)}
    assert set(fields) - RENAMED <= set(taken)
    for field in fields.values():
        if field.name in taken and isinstance(field.default, int | float | str | bool):
            default = taken[field.name].default
            same = default == field.default or (default, field.name) == (None, "python")
            assert same, field.name


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"checks": "loss"}, {"loss"}),
        ({"checks": ("loss", "outputs")}, {"loss", "outputs"}),
    ],
)
def test_a_string_is_one_name(options: dict[str, Any], wanted: set[str], tmp_path: Path) -> None:
    text = (SPECS / "layers/dense.yaml").read_text(encoding="utf-8")
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/dense.yaml").write_text(text, encoding="utf-8")
    report = harness.check(
        SPEC, "numpy", dtypes="float64", sizes={"hidden": 8}, folders=str(tmp_path), **options
    )
    assert report.exit_code == 0
    assert wanted <= {finding.check for result in report.results for finding in result.findings}


def test_a_spec_that_is_loaded_and_a_path_are_one_spec(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (SPECS / f"models/{SPEC}.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace(f"model: {SPEC}", "model: mine"), encoding="utf-8")
    loaded = harness.load(path)
    for given in (loaded, path, str(path)):
        assert arguments.models(given, ()) == ((str(path),), ())
    assert arguments.models(harness.load(SPEC), str(tmp_path)) == ((SPEC,), (tmp_path,))
    assert arguments.models([SPEC, loaded], ())[0] == (SPEC, str(path))


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: harness.check(SPEC, "trch"), "'trch' ... 'torch'"),
    (lambda: harness.check(SPEC, 5), "5"),
    (lambda: harness.check(SPEC, b"torch"), "b'torch'"),
    (lambda: harness.check(SPEC, ["torch", None]), ""),
    (lambda: harness.check({SPEC: 1}), "{'lesson6"),
    (lambda: harness.check([[SPEC]]), ""),
    (lambda: harness.check("lesson6/simple_rn"), "'lesson6/simple_rnn'"),
    (lambda: harness.check(SPEC, "numpy", dtypes="float8"), "'float8'"),
    (lambda: harness.check(SPEC, "numpy", paths="nativ"), "'native'"),
    (lambda: harness.check(SPEC, "numpy", checks="los"), "'los'"),
    (lambda: harness.check(SPEC, "numpy", checks=()), ""),
    (lambda: harness.check(SPEC, "numpy", sizes="hidden=8"), ""),
    (lambda: harness.check(SPEC, "numpy", folders="no/such"), "'no/such'"),
    (lambda: harness.check(SPEC, "numpy", folders=[3]), "3"),
    (lambda: harness.check(SPEC, "numpy", records=3), "3"),
    (lambda: harness.check(SPEC, "numpy", timeout="long"), ""),
    (lambda: harness.check(SPEC, "numpy", device=3), "3"),
    (lambda: harness.check(SPEC, "numpy", on=3), "3"),
    (lambda: harness.check(SPEC, "numpy", pythons={"numpy": 3}), "3"),
    (
        lambda: harness.check(SPEC, "numpy", environment={"numpy": "A=1"}),
        "'numpy' ... 'A=1'",
    ),
    (
        lambda: harness.bench(SPEC, "numpy", environment={"numpy": {"A": 1}}),
        "'numpy', 'A' ... 1",
    ),
    (lambda: harness.bench(SPEC, "numpy", device=3), "3"),
    (lambda: harness.bench(SPEC, "numpy", on=3), "3"),
    (lambda: harness.train(SPEC, ["numpy"]), "['numpy']"),
    (lambda: harness.train(SPEC, "numpy", python=3), "3"),
    (lambda: harness.train(SPEC, "numpy", encoding=3), "3"),
    (lambda: harness.bench(SPEC, "numpi"), "'numpy'"),
    (lambda: harness.bench(SPEC, "numpy", modes="trian"), "'train'"),
    (lambda: harness.bench(SPEC, "numpy", batches="64"), ""),
    (lambda: harness.bench(SPEC, "numpy", sizes={"hidden": "a"}), ""),
    (lambda: harness.train(SPEC, "torhc"), "'torch'"),
    (lambda: harness.train([SPEC, SPEC], "torch"), "lesson6/"),
    (
        lambda: harness.train(SPEC, "numpy", epochs=0),
        "--epochs ... 0",
    ),
    (lambda: harness.train(SPEC, "numpy", weights=7), "7"),
    (
        lambda: harness.generate(SPEC, "numpi", weights="w.safetensors", prompt="a"),
        "'numpy'",
    ),
    (lambda: harness.generate(SPEC, (), weights="w", prompt="a"), ""),
    (lambda: harness.generate(SPEC, "numpy", weights="w", prompt=3), ""),
    (lambda: harness.compare("no.json", "no.json"), "no.json"),
    (lambda: harness.compare(3, "no.json"), "3"),
    (lambda: harness.compare("a.json", "b.json", threshold="much"), "10%"),
    (lambda: harness.run(SPEC, "numpy", want="outputz", inputs={"chars": [[1]]}), ""),
    (lambda: harness.run(SPEC, "numpy", want=3, inputs={"chars": [[1]]}), ""),
    (lambda: harness.run(SPEC, "numpi", want="outputs", inputs={"chars": [[1]]}), ""),
    (lambda: harness.load(3), "3"),
    (lambda: harness.load("lesson6/simple_rn"), "'lesson6/simple_rnn'"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_what_is_wrong_is_said(call: Callable[[], Any], words: str, wording: Wording) -> None:
    with wording.raises(HarnessError, words):
        call()


def test_an_argument_that_is_unknown_is_pythons_own_error(wording: Wording) -> None:
    for name, words in (
        ("dtype", r"check\(\) has no argument 'dtype'; use dtypes="),
        ("memory", "'memory'; use memory_limit="),
        ("json", "'json'; only the command line has this option"),
        ("sead", "'sead'; did you mean 'seed'"),
    ):
        with pytest.raises(TypeError, match=words):
            harness.check(SPEC, **{name: "x"})  # type: ignore[arg-type]
    with wording.raises(AttributeError, "'chekc'"):
        _ = harness.chekc
    with pytest.raises(UsageError):
        arguments.names({"a": 1}, "names")  # type: ignore[arg-type]


def test_the_import_is_light() -> None:
    """It brings none of what the calls need: every command and every worker imports it."""
    program = (
        "import sys; before = set(sys.modules); import harness\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - {'harness', '__future__'}))"
    )
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert harness.__version__ == version("backend-comparison-harness")
