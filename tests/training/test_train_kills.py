"""Runs of training that are killed at any moment, and taken up, in real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from process_faults.support import allow_interrupts
from sampling import sampled
from texts import FOX

from harness.convert.weights import Weights, load, save
from harness.training import checkpoint

TEXT = 60 * FOX
# How often: the first is what make test has.
KILLS = (2, 6)
# Seconds from the start of a process until it is killed: from before the first checkpoint on.
EARLIEST, LATEST = 0.6, 3.0


def command(text: Path, backend: str, kept: Path) -> list[str]:
    harness = str(Path(sys.executable).with_name("harness"))
    options = ["--backend", backend, "--text", str(text), "--weights", str(kept), "--batch", "1"]
    options += ["--epochs", "12", "--every", "64", "--size", "hidden=16", "--threads", "1"]
    return [harness, "train", "lesson6/stateful_lstm", *options]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "kills"), sampled(product(("numpy", "torch"), KILLS), [("numpy", KILLS[0])])
)
def test_kills_lose_nothing(backend: str, kills: int, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    whole = tmp_path / "whole"
    started = time.monotonic()
    subprocess.run(command(text, backend, whole), check=True, capture_output=True, timeout=300)
    seconds = time.monotonic() - started
    kept = tmp_path / "kept"
    moments = random.Random(1)
    positions = []
    for _ in range(kills):
        run = subprocess.Popen(
            [*command(text, backend, kept), "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(EARLIEST, min(LATEST, seconds)))
        run.send_signal(signal.SIGKILL)
        run.wait()
        if checkpoint.place_of(kept).exists():
            position = checkpoint.load(checkpoint.place_of(kept)).position
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
    arguments[arguments.index("12")] = "20000"
    run = subprocess.Popen(allow_interrupts(arguments), stderr=subprocess.PIPE, text=True)
    try:
        while not checkpoint.place_of(kept).exists():
            time.sleep(0.1)
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()  # a training must not outlive a test that fails
    assert run.returncode == 130, errors
    # The weights are written after the checkpoint, and it may have come between the two.
    assert "--resume continues from " in errors
    assert "Traceback" not in errors
    checkpoint.load(checkpoint.place_of(kept))


def test_weights_that_are_there_are_not_lost(tmp_path: Path) -> None:
    text, kept = tmp_path / "text.txt", tmp_path / "kept"
    text.write_text(TEXT)
    save(kept, Weights("something/dear", "", {}, {"m.W": np.ones(3)}, {}))
    before = kept.read_bytes()
    run = subprocess.run(
        command(text, "numpy", kept), capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert "--resume continues the training, --force replaces" in run.stderr
    assert kept.read_bytes() == before


def await_change(run: subprocess.Popen[bytes], path: Path, content: bytes) -> None:
    """Wait until a run has written a file anew, or ends."""
    while run.poll() is None and path.read_bytes() == content:
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kills", sampled(KILLS, KILLS[:1]))
def test_kills_of_a_run_that_begins_anew_lose_nothing(kills: int, tmp_path: Path) -> None:
    """What is there is the old run's or the new one's, and each is taken up as what it is."""
    text, kept = tmp_path / "text.txt", tmp_path / "kept"
    text.write_text(TEXT)
    old = command(text, "numpy", kept)
    new = [*old, "--seed", "1"]
    subprocess.run(old, check=True, capture_output=True, timeout=300)
    files = {path: path.read_bytes() for path in (kept, checkpoint.place_of(kept))}
    moments, seen = random.Random(2), set()
    for moment in [EARLIEST, *(moments.uniform(EARLIEST, LATEST) for _ in range(kills)), None]:
        for path, content in files.items():
            path.write_bytes(content)
        run = subprocess.Popen(
            [*new, "--force"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if moment is None:  # the last one when the new run's first file is there
            await_change(run, checkpoint.place_of(kept), files[checkpoint.place_of(kept)])
        else:
            time.sleep(moment)
        run.send_signal(signal.SIGKILL)
        run.wait()
        weights, begun = load(kept), checkpoint.load(checkpoint.place_of(kept))
        seeds = weights.history["seed"], begun.weights.history["seed"]
        seen.add(seeds)
        done = subprocess.run(
            [*new, "--resume"], capture_output=True, text=True, timeout=300, check=False
        )
        if seeds[1] == 0:
            assert (done.returncode, "another seed" in done.stderr) == (2, True)
            assert {path: path.read_bytes() for path in files} == files
        else:
            assert done.returncode == 0, done.stderr
            assert load(kept).history["seed"] == 1
    assert seen <= {(0, 0), (0, 1), (1, 1)}
    assert len(seen) > 1, "the kills are to fall before and after the new run's first files"
    assert not list(tmp_path.glob(".harness-*.lock"))
