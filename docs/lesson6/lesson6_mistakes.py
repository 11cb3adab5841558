"""Measurements of the notebook's mistakes, and what ``harness check`` reports about them."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import notebook_rnn
import numpy as np
from lesson6_commands import HARNESS, harness

from harness.text import corpus, vocabulary

THREE_CHAR = Path(__file__).parents[2] / "specs/models/lesson6/three_char.yaml"
CLASSES, HIDDEN, LENGTH = 86, 256, 8
SEQUENCES = 10_000
# The learning rate of the notebook, and a rate at which a step changes the weights visibly.
RATES = (1e-5, 1e-2)
# For each mistake: the system in which the notebook makes it, and the dtype in which it is visible.
PLANTED = {
    "scalar": ("pure_python_rnn", "float64"),
    "in-place": ("pure_python_rnn", "float64"),
    "rate": ("three_char", "float64"),
    "types": ("theano_rnn", "float32"),
}


def measure_mistakes(name: str) -> dict[str, Any]:
    """Measure all mistakes on a text, which is named as in ``harness train``."""
    indices = corpus.corpus(name).text.indices.array
    classes = max(CLASSES, int(indices.max()) + 1)
    xs, ys = (_rows(indices, offset, classes) for offset in (0, 1))
    return {
        "scalar": _scalar(xs, ys),
        "in_place": {str(rate): _in_place(xs[0], ys[0], rate) for rate in RATES},
        "training": {
            "literal": notebook_rnn.train(xs, ys, RATES[0], literal=True),
            "right": notebook_rnn.train(xs, ys, RATES[0], literal=False),
        },
        "rate": _rate_that_stays(name),
        "types": str(np.result_type(np.zeros(1, np.float32), np.zeros(1))),
        "said": {mistake: said(mistake, *where) for mistake, where in PLANTED.items()},
    }


def _rows(indices: Any, offset: int, classes: int) -> Any:
    """Return one-hot windows of a text, shape ``[sequences, time, classes]``."""
    return np.eye(classes)[vocabulary.windows(indices, LENGTH, LENGTH, offset, 2)[:SEQUENCES]]


def _scalar(xs: Any, ys: Any) -> dict[str, float]:
    """Compare the notebook's update of ``w_h`` on the first sequence with the true gradient."""
    w = notebook_rnn.draw(xs.shape[-1], HIDDEN)
    wrong, true = (
        notebook_rnn.moves(xs[0], ys[0], w, scalar=s)[notebook_rnn.HIDDEN] for s in (True, False)
    )
    norms = [float(np.linalg.norm(a)) for a in (wrong, true)]
    return {
        "value": float(wrong[0, 0]),
        "trace": float(np.trace(true)),
        "norm": norms[0],
        "true_norm": norms[1],
        "error": float(np.linalg.norm(wrong - true)) / norms[1],
        "cosine": float(np.sum(wrong * true)) / norms[0] / norms[1],
    }


def _in_place(x: Any, y: Any, rate: float) -> dict[str, float]:
    """Return the relative difference between each weight's update in the notebook and the true
    gradient."""
    w = notebook_rnn.draw(x.shape[-1], HIDDEN)
    wrong, true = (notebook_rnn.moves(x, y, w, scalar=False, rate=r) for r in (rate, 0.0))
    return {
        name: float(np.linalg.norm(wrong[name] - true[name]) / np.linalg.norm(true[name]))
        for name in w
    }


def _rate_that_stays(name: str) -> dict[str, list[float]]:
    """Train ``three_char`` with the first learning rate in all phases, and with the rates of its
    spec. Return the losses of all epochs."""
    written = THREE_CHAR.read_text()
    phase = re.compile(r"(- {epochs: 4, learning_rate: )([\d.e-]+)}")
    first = phase.search(written)
    assert first is not None
    with tempfile.TemporaryDirectory() as folder:
        stuck = Path(folder) / "rate_that_stays.yaml"
        # Rename the model, because two files must not declare the same name.
        named = written.replace("model: lesson6/three_char\n", "model: rate_that_stays\n")
        stuck.write_text(phase.sub(rf"\g<1>{first[2]}}}", named))
        return {"stays": _losses(stuck, name), "applied": _losses(THREE_CHAR, name)}


def _losses(spec: Path, name: str) -> list[float]:
    trained = harness("train", str(spec), "--backend", "torch", "--text", name)
    return [epoch["loss"] for epoch in trained["epochs"]]


def said(mistake: str, system: str, dtype: str) -> list[str]:
    """Run ``harness check`` on the backend that makes a mistake; return the command and the lines
    about the mistake."""
    backend = f"notebook-{mistake}"
    command = ["check", f"lesson6/{system}", "--backend", backend, "--dtype", dtype]
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [str(HARNESS), *command], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 1:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return [f"harness {' '.join(command)}", *_complaints(done.stdout)]


def _complaints(printed: str) -> list[str]:
    """Return the lines from the verdict of the cell to the end of the list of cells."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(": differ"))
    end = next(i for i, line in enumerate(lines) if line.startswith("oracle:"))
    return lines[start:end]
