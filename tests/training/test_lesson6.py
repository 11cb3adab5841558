"""The script of docs/lesson6.md: its runs and page, and the mistakes made on purpose."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import notebook_rnn
import numpy as np
import pytest
from lesson6 import RECORD, SYSTEMS
from lesson6_mistakes import PLANTED, said
from lesson6_page import render, stories
from lesson6_pictures import draw
from places import DOCS

from harness.text.corpus import builtin_text

SCRIPT = DOCS / "lesson6" / "lesson6.py"
SAID = {
    "scalar": ("backward: the forward pass is right; wrong gradients: gradient.rnn.U",),
    "in-place": ("update: gradients are right", "step 1: rnn.W moved is off", "rnn.U moved is off"),
    "rate": ("update: gradients are right", "training: differ: step 3: "),
    "types": ("step 1: rnn.W moved: expected dtype float32, found float64",),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_the_harness_finds_each_mistake_of_the_notebook(mistake: str) -> None:
    _, *lines = said(mistake, *PLANTED[mistake])
    printed = "\n".join(lines)
    for line in SAID[mistake]:
        assert line in printed
    if mistake != "scalar":
        assert "gradients: differ" not in printed


def test_the_loop_without_mistakes_has_the_true_gradient() -> None:
    """Against a central difference; the mistakes do not."""
    w = {n: a[:7, :7] for n, a in notebook_rnn.draw(7, 7).items()}
    rows = np.eye(7)[np.random.default_rng(0).integers(0, 7, 9)]
    x, y = rows[:-1], rows[1:]
    rng, step = np.random.default_rng(1), 1e-6
    for name in w:
        way = rng.normal(size=w[name].shape)
        ends = [
            notebook_rnn.loss(notebook_rnn.forward(x, {**w, name: w[name] + s * way})[1], y)
            for s in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / 2 / step
        found = [
            float(np.sum(way * notebook_rnn.moves(x, y, w, scalar=s, rate=r)[name]))
            for s, r in ((False, 0.0), (True, 0.0), (False, 0.1))
        ]
        assert found[0] == pytest.approx(slope, rel=1e-6)
        assert (found[1] == pytest.approx(slope, rel=1e-3)) == (name != notebook_rnn.HIDDEN)
        # The output weights are read before they move first.
        assert (found[2] == pytest.approx(slope, rel=1e-3)) == (name == notebook_rnn.OUTPUT)


def script(*arguments: str, record: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--record", str(record)],
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_runs_are_kept_and_shown(tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text(builtin_text()[:6000])
    place = tmp_path / "record.json"
    arguments = (
        *("run", "--text", str(small), "--notebook-text", str(small)),
        *("--prompt", "the value ", "--work", str(tmp_path / "work")),
        *("--backend", "torch", "--backend", "numpy", "--system", "sequence_rnn", "--epochs", "3"),
    )
    run = script(*arguments, record=place)
    assert not run.returncode, run.stderr
    found = json.loads(place.read_text())
    entry = found["systems"]["sequence_rnn"]
    assert list(entry["trained"]) == ["torch", "numpy"]
    assert list(entry["written"]["greedy"]["texts"]) == ["torch", "numpy"]
    assert entry["written"]["greedy"]["same"]
    for trained in entry["trained"].values():
        losses = [epoch["loss"] for epoch in trained["epochs"]]
        assert losses == sorted(losses, reverse=True)
        assert all(epoch["memory"]["resident"] > 2**20 for epoch in trained["epochs"])
    again = script(*arguments, record=place)
    assert "training" not in again.stderr
    assert json.loads(place.read_text()) == found
    other = script(*arguments[:2], "builtin", *arguments[3:], record=place)
    assert other.returncode == 2
    assert "has runs on the text" in other.stderr
    for speed in entry["speed"].values():
        assert 0.2 < statistics.median(speed["bench"]) / statistics.median(speed["train"]) < 5
    page = script("page", "--output", str(tmp_path / "page.md"), record=place)
    assert not page.returncode, page.stderr
    printed = (tmp_path / "page.md").read_text()
    assert f"{entry['trained']['torch']['epochs'][-1]['loss']:.4f}" in printed
    assert "step 1: rnn.W moved: expected dtype float32, found float64" in printed
    assert (tmp_path / "page" / "sequence_rnn.svg").stat().st_size > 5000
    _check_drawn_alike(entry["trained"], tmp_path)


def _check_drawn_alike(trained: Any, folder: Path) -> None:
    """The same record, the same bytes; a loss that is another, another picture."""
    draw(trained, folder / "again.svg")
    first = (folder / "page" / "sequence_rnn.svg").read_bytes()
    assert (folder / "again.svg").read_bytes() == first
    trained["numpy"]["epochs"][0]["curve"][0] *= 2
    draw(trained, folder / "other.svg")
    assert (folder / "other.svg").read_bytes() != first


def test_the_page_is_that_of_its_record() -> None:
    found = json.loads(RECORD.read_text())
    assert (DOCS / "lesson6.md").read_text() == render(found, "lesson6")
    assert list(found["systems"]) == [s for s in SYSTEMS if s in found["systems"]]
    assert list(stories()) == list(SYSTEMS)
    for entry in found["systems"].values():
        assert len(entry["trained"]) == 6
        assert len(set(entry["written"]["greedy"]["texts"].values())) == 1
