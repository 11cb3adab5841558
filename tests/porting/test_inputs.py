"""The option ``--input``: errors say what to write instead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import SpecError, UsageError
from harness.language.model import load_spec
from harness.porting.graph import ModelGraph, TracedCall
from harness.porting.inputs import InputDeclaration, check_indices, explain_failure
from harness.porting.run import _own_faults, fixed_sizes
from harness.runtime.own_model.contract import check_arguments

SPEC = """model: net
summary: A wrong spec.
source: A test.
inputs: {x: {shape: [batch, 4]}}
equations: y = unknown(x)
"""


def declared(*texts: str) -> list[InputDeclaration]:
    return [InputDeclaration.of(text) for text in texts]


@pytest.mark.parametrize(
    ("inputs", "message", "sizes", "parts"),
    [
        (["t=batch,time"], "expected Long", {"batch": 11, "time": 5}, ["t=batch,time:"]),
        (
            ["x=batch,3,h,w"],
            "sizes differ",
            {"batch": 11, "h": 5, "w": 19},
            ["w 19", "=batch,3,32,32"],
        ),
        (["x=batch,8"], "sizes differ", {"batch": 11}, []),
    ],
)
def test_a_model_that_does_not_run_needs_other_inputs(
    inputs: list[str], message: str, sizes: dict[str, int], parts: list[str]
) -> None:
    text = str(explain_failure(UsageError(message), declared(*inputs), sizes))
    assert all(part in text for part in (message, *parts))
    assert parts or text == message


def test_the_integers_of_an_input_fit_the_embedding() -> None:
    settings = {"layer": "embedding", "settings": {"rows": 20}}
    calls = (
        TracedCall("ids", "input", (), {"name": "tokens"}, ("batch", "time"), "index"),
        TracedCall("e", "layer", ("ids",), settings, ("batch", "time", 4), place="tcn.py:12"),
    )
    graph = ModelGraph(calls, {"y": "e"}, {}, {"batch": (3, 4, 5), "time": (5, 6, 7)})
    check_indices(graph, declared("tokens=batch,time:20"))
    with pytest.raises(UsageError, match=r"tcn.py:12.*tokens=batch,time:20$"):
        check_indices(graph, declared("tokens=batch,time:25"))


def test_all_unknown_inputs_are_named() -> None:
    check_arguments(None, ["anything"])
    with pytest.raises(UsageError, match=r"(?s)imgae.*'image'.*second"):
        check_arguments(["image", "mask"], ["imgae", "second"])


def test_an_error_of_the_port_shows_the_line_and_no_deleted_file(tmp_path: Path) -> None:
    against: Any = SimpleNamespace(__str__=lambda: "net.py:Net")
    folder = tmp_path / "port"
    folder.mkdir()
    (folder / "net.yaml").write_text(SPEC, encoding="utf-8")
    with pytest.raises(UsageError) as caught, _own_faults(against, str(tmp_path)):
        load_spec(str(folder / "net.yaml"))
    assert str(tmp_path) not in str(caught.value)
    assert "net.yaml:5: equations: y = unknown(x)" in str(caught.value)
    with pytest.raises(SpecError), _own_faults(against, str(tmp_path / "elsewhere")):
        load_spec(str(folder / "net.yaml"))


def test_sizes_that_written_code_cannot_read_are_named(tmp_path: Path) -> None:
    text = SPEC.replace("4]", "width]").replace("unknown(x)", "windows(x, axes=[1], size=[width])")
    path = tmp_path / "net.yaml"
    path.write_text(text.replace("inputs:", "sizes: {width: 5}\ninputs:"), encoding="utf-8")
    (remark,) = fixed_sizes(load_spec(str(path)), ["batch", "width"])
    assert "width = 5" in remark
