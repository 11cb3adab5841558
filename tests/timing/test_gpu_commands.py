"""``make check-gpu`` and ``make bench-gpu``: what they say without a card, and what they write."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu
import gpu_page
import pytest
from bench_results import REQUEST, refused, result
from click.testing import CliRunner
from places import ROOT, TESTS
from wording import Wording

from harness.timing.json_file import document

CARD = {
    "name": "A Card 80GB",
    "uuid": "GPU-1",
    "driver_version": "1.2",
    "power.limit": "700.00 W",
    "mig.mode.current": "Disabled",
}


def test_make_has_both() -> None:
    lines = (ROOT / "Makefile").read_text()
    for name in ("check", "bench"):
        assert f"\n{name}-gpu: install\n\t$(BIN)/python tests/benchmarks/gpu.py {name}\n" in lines


@pytest.mark.parametrize("command", ["check", "bench"])
def test_without_a_card_they_say_so_and_fail(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "benchmarks/gpu.py", command],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {gpu.NO_CARD}\n")


@pytest.mark.parametrize("command", ["check", "bench"])
def test_without_a_framework_that_can_use_it_they_say_so(
    monkeypatch: pytest.MonkeyPatch, command: str, wording: Wording
) -> None:
    monkeypatch.setattr(gpu, "cards", lambda: [CARD])
    monkeypatch.setattr(gpu, "offers", lambda name: False)
    done = CliRunner().invoke(gpu.main, [command])
    assert done.exit_code == 1
    wording.line(done.output, "80GB")


def test_a_framework_for_the_cpu_does_not_offer_a_card() -> None:
    assert not gpu.offers("numpy")
    assert not gpu.offers("no-such-backend")


class Timing:
    """What stands in the place of a run."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def __enter__(self) -> Timing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self) -> list[Any]:
        return results(self.request.path)


def results(path: str) -> list[Any]:
    """torch twice as fast as its own layers, on cuDNN; jax, which has none; one without a speed."""
    found = [result("torch", 0.001 if path == "fastest" else 0.002), result("jax", 0.004)]
    for one in found:
        label = "torch.lstm (cuDNN)" if one.cell.backend == "torch" else "equations"
        one.record.paths = {"rnn": label}
        one.record.peak = {"large": 5e13, "large_by": "torch", "large_size": [8192] * 3}
        one.record.bandwidth = {"measured": 2e12}
    found[1].record.doubts = ["not to be relied on"]
    return [*found, refused("keras")]


def test_a_page_is_written_of_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setattr(gpu, "FOLDER", tmp_path / "docs" / "gpu")
    monkeypatch.setattr(gpu, "cards", lambda: [CARD])
    monkeypatch.setattr(gpu, "offers", lambda name: name != "keras-jax")
    monkeypatch.setattr(gpu, "Bench", Timing)
    done = CliRunner().invoke(gpu.main, ["bench", "--dtype", "float32", "--batch", "64"])
    assert done.exit_code == 0, done.output
    wording.line(done.output, "cuda")
    assert "written: docs/gpu/a-card-80gb.md" in done.output
    page = (tmp_path / "docs/gpu/a-card-80gb.md").read_text()
    assert page.startswith("# A Card 80GB\n")
    assert "| sequence_rnn train 64 | 512 derived (2.00) | 128! derived |" in page
    wording.line(page, "float32 ... 50.0 TFLOP/s ... 8192 ... torch ... 2,000 GB/s")
    wording.line(page, "[keras-train-b64-t8-cuda] ... differs ... 1: loss")
    wording.line(page, "`make check-gpu`")
    kept = (tmp_path / "docs/gpu/a-card-80gb/float32-native.json").read_text()
    assert '"node"' not in kept
    assert '"host"' not in kept


def test_what_was_checked_is_counted() -> None:
    lines = [{"kind": "end", "verdict": v} for v in ("agree", "agree", "differ")]
    assert gpu_page.counted([{"kind": "head"}, *lines]) == {"agree": 2, "differ": 1}
    content = document(replace(REQUEST, device="cuda"), results("fastest")).plain()
    page = gpu_page.render(CARD, {("tf32", "fastest"): content}, {"agree": 2, "differ": 1})
    assert "`make check-gpu`: 2 agree, 1 differ." in page
    assert "## tf32" in page
