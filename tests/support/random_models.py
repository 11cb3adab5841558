"""Random models of ``harness.fuzz`` for hypothesis, which shrinks a failing model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from harness.fuzz.models import draw_model


@st.composite
def models(draw: Callable[[Any], Any], most: int = 10) -> tuple[str, dict[str, int]]:
    """Return the text of a model, and its sizes with batch and time."""
    model, sizes = draw_model(lambda low, high: draw(st.integers(low, high)), most)
    optimizer = "{optimizer: sgd, learning_rate: 0.125}"
    return model.text("random", model.loss(), optimizer), sizes
