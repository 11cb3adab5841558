"""A model that gives no number is not timed: everybody agrees on NaN."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import TO_BE_WRITTEN
from wording import Wording

import harness

LOSS = """\
targets:
  t: {shape: [batch, 2]}
loss: mean(squared_error(y, t))
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""


@pytest.mark.parametrize(("mode", "rest"), [("train", LOSS), ("forward", "")])
def test_what_is_no_number_has_no_speed(
    tmp_path: Path, mode: str, rest: str, wording: Wording
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(f"{TO_BE_WRITTEN}  y = out(x) / 0\n{rest}", encoding="utf-8")
    report = harness.bench(str(file), "numpy", modes=mode, batches=8, rounds=1)
    (result,) = report.results
    assert result.status == "refused"
    wording.line(result.reason, "NaN")
    wording.line(result.reason, "NaN ... check")
