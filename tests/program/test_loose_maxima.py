"""Which maxima may lose NaN: those of which whatever is read has its NaN from elsewhere."""

from __future__ import annotations

import pytest

from harness.language.model import load_spec
from harness.program.fused import loose_maxima
from harness.program.ir import Program

HEAD = """
model: heads
summary: What is made of a maximum.
source: A test.
sizes: {width: 6}
inputs: {x: {shape: [batch, width]}, y: {shape: [batch, width]}}
layers: {}
"""
MOST, SUM = "max(x, axis=-1, keepdims=true)", "sum(x, axis=-1, keepdims=true)"
# What is made -> how many of its maxima may lose NaN.
MADE = {
    "softmax(x)": 1,
    "log_softmax(x)": 1,
    f"x / {MOST} / {SUM}": 1,
    f"{MOST} * {SUM}": 1,
    f"x - {MOST}": 0,
    "max(x, axis=-1)": 0,
    f"exp(x - {MOST})": 0,
    f"{MOST} / sum(y, axis=-1, keepdims=true)": 0,
    f"{MOST} / sum(x, axis=0, keepdims=true)": 0,
    f"where(x <= {MOST}, x, 0) / {SUM}": 0,
    f"x ** {MOST} / {SUM}": 0,
    f"{SUM} ** 0 * {MOST}": 0,
    "softmax(x)[:, 0] + max(x, axis=-1)": 1,
}


def lowered(equation: str) -> Program:
    text = f"{HEAD}equations: |\n  made = {equation}\n  other = 2 * y\n"
    return load_spec("heads", overrides={("model", "heads"): text}).program("inference")


def made(program: Program) -> int:
    return next(port.value for port in program.outputs if port.name == "made")


@pytest.mark.parametrize(("equation", "count"), MADE.items())
def test_which_maxima_may_lose_nan(equation: str, count: int) -> None:
    program = lowered(equation)
    assert len(loose_maxima(program.nodes, [made(program)])) == count


def test_what_is_read_itself_keeps_its_nan() -> None:
    program = lowered(f"{MOST} * {SUM}")
    (most,) = (node.output for node in program.nodes if node.op == "max")
    assert loose_maxima(program.nodes, [made(program)]) == {most}
    assert not loose_maxima(program.nodes, [made(program), most])
