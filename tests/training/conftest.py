"""What several tests of training are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_trainings import SYSTEM, TEXT

from harness.training.request import TrainRequest
from harness.worker.worker import Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A worker of numpy."""
    with Worker(TrainRequest(SYSTEM, "numpy").launch) as started:
        yield started


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file with the text that is trained on."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where weights go."""
    return tmp_path / "kept"
