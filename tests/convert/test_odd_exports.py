"""Models that exports once had no words for, or wrong ones, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_round_trip import NEEDS, assert_round_trip

from harness.language.model import load_spec

ODD = Path(__file__).parents[1] / "support" / "odd_models"
MODELS = [
    *("first_place", "moved_indices", "columns", "long_convolution"),
    *("both_directions", "masked_directions", "tied_otherwise"),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("format_", NEEDS)
def test_outputs_are_the_oracles_and_weights_come_back(
    format_: str, model: str, tmp_path: Path
) -> None:
    spec = load_spec(str(ODD / f"{model}.yaml"))
    assert_round_trip(format_, spec, tmp_path, ((3, 4), (1, 2), (4, 3)))
