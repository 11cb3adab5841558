"""The notebook's mistakes, measured, and what the harness says of a backend that makes them."""

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
# The notebook's own rate, and one at which a step moves the weights visibly.
RATES = (1e-5, 1e-2)
# The mistake, the system it was made in, and the dtype in which it shows.
PLANTED = {
    "scalar": ("pure_python_rnn", "float64"),
    "in-place": ("pure_python_rnn", "float64"),
    "rate": ("three_char", "float64"),
    "types": ("theano_rnn", "float32"),
}


def measure_mistakes(name: str) -> dict[str, Any]:
    """All of them, on a text as ``harness train`` names it."""
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
    """One-hot windows [sequences, time, classes]."""
    return np.eye(classes)[vocabulary.windows(indices, LENGTH, LENGTH, offset, 2)[:SEQUENCES]]


def _scalar(xs: Any, ys: Any) -> dict[str, float]:
    """The update of ``w_h`` on the first sequence, against the true gradient."""
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
    """How far what is subtracted is from the gradient, relative to it, by weight."""
    w = notebook_rnn.draw(x.shape[-1], HIDDEN)
    wrong, true = (notebook_rnn.moves(x, y, w, scalar=False, rate=r) for r in (rate, 0.0))
    return {
        name: float(np.linalg.norm(wrong[name] - true[name]) / np.linalg.norm(true[name]))
        for name in w
    }


def _rate_that_stays(name: str) -> dict[str, list[float]]:
    """``three_char`` with the rate of its first phase in all of them, and as the spec says: the
    loss of each epoch."""
    written = THREE_CHAR.read_text()
    phase = re.compile(r"(- {epochs: 4, learning_rate: )([\d.e-]+)}")
    first = phase.search(written)
    assert first is not None
    with tempfile.TemporaryDirectory() as folder:
        stuck = Path(folder) / "rate_that_stays.yaml"
        # Two files may not give one name to two models.
        named = written.replace("model: lesson6/three_char\n", "model: rate_that_stays\n")
        stuck.write_text(phase.sub(rf"\g<1>{first[2]}}}", named))
        return {"stays": _losses(stuck, name), "applied": _losses(THREE_CHAR, name)}


def _losses(spec: Path, name: str) -> list[float]:
    trained = harness("train", str(spec), "--backend", "torch", "--text", name)
    return [epoch["loss"] for epoch in trained["epochs"]]


def said(mistake: str, system: str, dtype: str) -> list[str]:
    """The lines of ``harness check`` about the backend that makes the mistake."""
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
    """From the cell's verdict on, without what follows the cells."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(": differ"))
    end = next(i for i, line in enumerate(lines) if line.startswith("oracle:"))
    return lines[start:end]
