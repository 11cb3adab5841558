"""Convolutions and pools in every format: the oracle's outputs, and weights that come back."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_round_trip import NEEDS, assert_round_trip
from image_model import image_model

import harness


@pytest.mark.parametrize("format_", NEEDS)
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    spec = harness.load(image_model(tmp_path))
    assert_round_trip(format_, spec, tmp_path, ((3, 1), (1, 1)))
