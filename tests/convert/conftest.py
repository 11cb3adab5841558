"""What several tests of weights are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_weights import SMALL

from harness.convert.weights import save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of weights of a few numbers."""
    save(tmp_path / "w", SMALL)
    return tmp_path / "w"
