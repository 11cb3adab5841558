"""What several tests of workers are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from process_faults.support import launch

from harness.worker.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker that has started, and answers the verbs of ``tests/support/process_faults``."""
    with Worker(launch()) as worker:
        assert worker.start().ok
        yield worker
