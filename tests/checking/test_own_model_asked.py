"""What ``--against`` takes, and with which other options: found out before any process starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from users_models import GRU, NET, model_file
from wording import Wording

import harness
from harness.checking.own_model.against import parse_against
from harness.checking.own_model.process import ModelProcess
from harness.checking.request import Request
from harness.errors import UsageError
from harness.given.make_request import apply_own_model, make_check_request


def test_a_python_file_is_run_by_what_it_imports(tmp_path: Path) -> None:
    file = model_file(tmp_path, f"import numpy as np\n{NET}")
    own = parse_against(f"{file}:Net")
    assert (own.column, own.is_format, own.name, str(own)) == (
        "torch@model.Net", False, "Net", "model.py:Net"
    )  # fmt: skip
    pair = parse_against(f"{file}:apply:init", ["jax"])
    assert (pair.column, pair.parameters) == ("jax@model.apply", "init")


def test_a_file_is_run_by_what_its_suffix_names(tmp_path: Path) -> None:
    onnx = parse_against(str(model_file(tmp_path, "x", "my net.onnx")))
    assert (onnx.column, onnx.is_format) == ("onnx@my_net", True)
    assert parse_against(str(model_file(tmp_path, "x", "net.keras"))).column == "keras@net"
    other = parse_against(str(tmp_path / "net.keras"), ["keras-torch"])
    assert (other.column, other.is_format) == ("keras-torch@net", False)


def test_rules_come_from_a_file_too(tmp_path: Path) -> None:
    rules = model_file(tmp_path, "# all\na = b  # one\n\nc.W=d.T\n", "rules.map")
    file = model_file(tmp_path, NET)
    assert parse_against(f"{file}:Net", maps=["x=y", str(rules)]).maps == (
        "x=y",
        "a = b",
        "c.W=d.T",
    )


def test_too_many_rules_and_too_long_ones_are_told_with_their_place(
    tmp_path: Path, wording: Wording
) -> None:
    file = model_file(tmp_path, NET)
    many = model_file(tmp_path, "a=b\n" * 10_001, "many.map")
    with wording.raises(UsageError, "--map: 10,002 ... 10,000"):
        parse_against(f"{file}:Net", maps=["x=y", str(many)])
    text = f"W=b[{'0,' * 5000}]"
    long = model_file(tmp_path, f"a=b\n{text}\n", "long.map")
    for rule, place in ((text, "--map"), (str(long), f"{long}:2")):
        with wording.raises(UsageError, "10,005") as caught:
            parse_against(f"{file}:Net", maps=[rule])
        assert str(caught.value).startswith(f"{place}: ")
        assert len(str(caught.value)) < 500
    # A line of a file that is none of rules may be a secret: it is not quoted.
    other = model_file(tmp_path, "a=b\nroot:x:0:0:root\n", "other.map")
    with pytest.raises(UsageError, match="rule must be OURS=THEIRS") as caught:
        parse_against(f"{file}:Net", maps=[str(other)])
    assert str(caught.value).startswith(f"{other}:2: ")
    assert "root:x" not in str(caught.value)


WRONG: dict[str, tuple[str, Any, str]] = {
    "no such file": ("none.py:Net", (), "cannot read the model"),
    "a folder": ("folder.py:Net", (), "this is a folder"),
    "a pipe": ("pipe.py:Net", (), "a named pipe"),
    "no name": ("model.py", (), "without a name"),
    "no identifier": ("model.py:a.b", (), "takes FILE.py:NAME"),
    "weights": ("weights.pt", (), "has weights but no model"),
    "another kind": ("model.txt", (), "takes FILE.py:NAME"),
    "no framework": ("plain.py:f", (), "imports no installed framework: choose"),
    "two frameworks": ("both.py:f", (), "uses jax and torch: choose the framework"),
    "no Python": ("broken.py:f", (), "is not valid Python: "),
    "two backends": ("model.py:Net", ("torch", "jax"), "only one framework can run"),
    "no backend": ("model.py:Net", ("trch",), "unknown backend 'trch'; did you mean 'torch'?"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_told(tmp_path: Path, mistake: str) -> None:
    target, backends, words = WRONG[mistake]
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    for name, text in {
        "model.py": NET,
        "plain.py": "def f(x):\n    return x\n",
        "both.py": "import torch, jax\n",
        "broken.py": "def f(:\n",
        "weights.pt": "",
        "model.txt": "",
    }.items():
        model_file(tmp_path, text, name)
    with pytest.raises(UsageError) as caught:
        parse_against(str(tmp_path / target), backends)
    assert words in str(caught.value)


def test_the_framework_may_be_imported_by_a_module_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    model_file(tmp_path, "from ..other import g\nimport layers", "parts/__init__.py")
    model_file(tmp_path, "import torch, parts\n", "layers.py")
    file = model_file(tmp_path, "from parts import g\n", "net.py")
    assert parse_against(f"{file}:f").column.startswith("torch@")


@pytest.mark.parametrize(("library", "framework"), [("optax", "jax"), ("hf", "torch")])
def test_the_framework_may_be_required_by_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, framework: str
) -> None:
    """optax requires jax always; transformers requires torch for an extra."""
    folder = tmp_path / "installed" / "hf-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Name: hf\nVersion: 1.0\nRequires-Dist: numpy\n"
        'Requires-Dist: torch; extra == "torch"\nRequires-Dist: (odd\n'
    )
    (folder / "top_level.txt").write_text("hf\n")
    monkeypatch.syspath_prepend(folder.parent)
    file = model_file(tmp_path, f"from {library} import g\n", "net.py")
    assert parse_against(f"{file}:f").column.startswith(f"{framework}@")


def test_a_file_that_imports_flax_and_jax_has_a_model_of_flax(tmp_path: Path) -> None:
    file = model_file(tmp_path, "import flax, jax, numpy\n")
    assert parse_against(f"{file}:f").column.startswith("flax@")


@pytest.mark.parametrize(("rule", "words"), [("none.map", ""), ("bad.map", "UTF-8")])
def test_a_file_of_rules_that_cannot_be_read_is_told(
    tmp_path: Path, rule: str, words: str, wording: Wording
) -> None:
    (tmp_path / "bad.map").write_bytes(b"\xff\xfe=")
    file = model_file(tmp_path, NET)
    with wording.raises(UsageError, words):
        parse_against(f"{file}:Net", maps=[str(tmp_path / rule)])


def asked(tmp_path: Path, request: Request, **more: Any) -> Request:
    file = model_file(tmp_path, NET)
    usual = {"against": f"{file}:Net", "maps": (), "takes": (), "returns": ()}
    return apply_own_model(request, {**usual, **more})


@pytest.mark.parametrize(
    ("request_", "more", "words"),
    [
        (Request(), {}, "against ... SPEC"),
        (Request(specs=("mlp", "gpt")), {}, ""),
        (Request(specs=("mlp",), dtypes=("bfloat16",)), {}, "bfloat16 ... --path autocast"),
        (Request(specs=("mlp",), on="ray"), {}, "--on"),
        (Request(specs=("mlp",)), {"reproducers": Path("x")}, "--reproducers"),
        (Request(specs=("mlp",)), {"quick": True}, "--quick"),
        (Request(specs=("mlp",), checks=("causality",)), {}, ""),
        (Request(specs=("mlp",)), {"against": None, "maps": ("a=b",)}, "--map"),
    ],
)
def test_options_without_a_meaning_are_told(
    tmp_path: Path, request_: Request, more: dict[str, Any], words: str, wording: Wording
) -> None:
    with pytest.raises(UsageError) as caught:
        asked(tmp_path, request_, **more)
    wording.line(caught.value, words)


def test_a_path_of_the_model_is_chosen_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelProcess, "call", lambda _, verb: {"native": "", "autocast": ""})
    target = f"{model_file(tmp_path, NET)}:Net"
    options = {"specs": ("mlp",), "against": target, "paths": ("autocast",)}
    own_model = make_check_request(options).against
    assert own_model is not None
    assert own_model.paths == ("autocast",)


def test_the_interpreter_of_the_framework_is_that_of_the_column(tmp_path: Path) -> None:
    found = asked(tmp_path, Request(specs=("mlp",), pythons={"torch": "/p", "jax": "/q"}))
    assert found.backends == ("torch@model.Net",)
    assert found.pythons == {"torch@model.Net": "/p"}


def test_from_python_a_mistake_ends_the_run(tmp_path: Path) -> None:
    spec, file = model_file(tmp_path, GRU, "gru_lm.yaml"), model_file(tmp_path, NET)
    with pytest.raises(UsageError, match="no installed framework"):
        harness.check(spec, against=f"{model_file(tmp_path, '', 'empty.py')}:f", maps={"a": "b"})
    with pytest.raises(UsageError, match=r"takes FILE\.py:NAME"):
        harness.check(spec, against=file)
