"""The target that ``--loss`` adds to a ported spec."""

from __future__ import annotations

import pytest

from harness.porting.loss import add_loss
from harness.porting.spec import PortedSpec

TEXT = """model: small
summary: A dense layer.
source: own
inputs: {x: {shape: [batch, 3]}}
layers: {out: {layer: dense, units: 2}}
equations: y = out(x)
"""


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        ("squared_error", "{shape: [batch, 2]}"),
        ("cross_entropy", "{shape: [batch, 2]}"),
        ("sparse_cross_entropy", "{shape: [batch], index: 2}"),
    ],
)
def test_a_target_is_of_the_kind_that_the_loss_takes(loss: str, target: str) -> None:
    spec = add_loss(PortedSpec(TEXT, (), (), {}, frozenset()), "small", loss)
    added = spec.text.removeprefix(TEXT).splitlines()
    assert added == ["targets:", f"  target: {target}", f"loss: mean({loss}(y, target))"]
