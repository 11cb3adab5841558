"""Weights of a few numbers, and the message for a rejected file of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.convert.weights import Weights, WeightsError, load

SMALL = Weights(
    "my/model",
    "f" * 64,
    {"hidden": 3},
    {"rnn.W": np.linspace(-1, 1, 6).reshape(2, 3)},
    {"norm.mean": np.array([0.5, 0.25, 0], np.float32)},
    ("\0", "a", "é"),
    {"loss": 1.5},
)


def refused(path: Path) -> str:
    """Return the message for a rejected file; assert that it has the file name and what to do."""
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert repr(str(path)) in str(caught.value)
    assert "give a file that 'harness train' or 'harness import' wrote" in str(caught.value)
    return str(caught.value)
