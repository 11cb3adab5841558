"""A run, its speeds and a training, as files that reports are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run.jsonl, bench.json and w.safetensors."""
    folder = tmp_path_factory.mktemp("report")
    report_files.records(folder / "run.jsonl")
    report_files.speeds(folder / "bench.json")
    report_files.weights(folder / "w.safetensors")
    return folder
