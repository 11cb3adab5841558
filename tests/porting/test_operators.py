"""``harness port --operators``: the operators that have a rule, by framework."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from harness.commands import cli
from harness.porting.list_operators import list_operators
from harness.runtime.own_model.service import OwnModelService
from harness.runtime.plugins import load

SOME = {"torch": "aten.linear", "jax": "dot_general", "keras": "Dense"}


@pytest.mark.parametrize("backend", SOME)
def test_the_operators_of_a_framework_are_those_with_a_rule(backend: str) -> None:
    found = OwnModelService(backend, load(backend)).operators()
    assert SOME[backend] in found
    assert len({*found}) == len(found) > 30


def test_a_format_has_operators_and_numpy_has_none() -> None:
    told: list[str] = []
    found = list_operators("onnx", None, 60.0, told.append)
    assert "Gemm" in found["onnx"]
    assert list_operators("numpy", None, 60.0, told.append) == {}
    assert len(told) == 2


def test_a_port_needs_a_model() -> None:
    done = CliRunner().invoke(cli, ["port"])
    assert done.exit_code == 2
    assert "--operators" in done.stderr
