"""Runs of training that are killed at any moment, and taken up, in real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.train import checkpoint
from harness.weights import load

TEXT = "the quick brown fox jumps over the lazy dog. " * 60
KILLS = 6
# Seconds from the start of a process until it is killed: from before the first checkpoint on.
EARLIEST, LATEST = 0.6, 3.0


def command(text: Path, backend: str, kept: Path) -> list[str]:
    harness = str(Path(sys.executable).with_name("harness"))
    options = ["--backend", backend, "--text", str(text), "--weights", str(kept), "--batch", "1"]
    options += ["--epochs", "12", "--every", "64", "--size", "hidden=16", "--threads", "1"]
    return [harness, "train", "lesson6/stateful_lstm", *options]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_kills_lose_nothing(backend: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    whole = tmp_path / "whole"
    started = time.monotonic()
    subprocess.run(command(text, backend, whole), check=True, capture_output=True, timeout=300)
    seconds = time.monotonic() - started
    kept = tmp_path / "kept"
    moments = random.Random(1)
    positions = []
    for _ in range(KILLS):
        run = subprocess.Popen(
            [*command(text, backend, kept), "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(EARLIEST, min(LATEST, seconds)))
        run.send_signal(signal.SIGKILL)
        run.wait()
        if checkpoint.place(kept).exists():
            position = checkpoint.load(checkpoint.place(kept)).position
            positions.append((position["epoch"], position["step"]))
    assert positions == sorted(positions), "a later run lost what an earlier one had kept"
    last = subprocess.run(
        [*command(text, backend, kept), "--resume"],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "weights: " in last.stdout
    expected, found = load(whole), load(kept)
    losses = [[e["loss"] for e in w.history["epochs"]] for w in (expected, found)]
    assert losses[0] == losses[1]
    for name, array in {**expected.parameters, **expected.statistics}.items():
        np.testing.assert_array_equal({**found.parameters, **found.statistics}[name], array)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    text, kept = tmp_path / "text.txt", tmp_path / "kept"
    text.write_text(TEXT)
    arguments = command(text, "numpy", kept)
    arguments[arguments.index("12")] = "100000"
    run = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not checkpoint.place(kept).exists():
        time.sleep(0.1)
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "--resume goes on from it" in errors
    assert "Traceback" not in errors
    checkpoint.load(checkpoint.place(kept))


def test_weights_that_are_there_are_not_lost(tmp_path: Path) -> None:
    text, kept = tmp_path / "text.txt", tmp_path / "kept"
    text.write_text(TEXT)
    kept.write_text("something dear")
    run = subprocess.run(
        command(text, "numpy", kept), capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert "--resume goes on with it, --force begins anew" in run.stderr
    assert kept.read_text() == "something dear"
