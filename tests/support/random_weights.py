"""Files with random weights of a model."""

from __future__ import annotations

from pathlib import Path

from harness.convert import weights
from harness.convert.weights import Weights
from harness.language.model import fingerprint, load_spec
from harness.oracle.draw import draw

SPEC = "lesson6/sequence_rnn"


def write_random_weights(
    path: Path, name: str = SPEC, dtype: str = "float32", **sizes: int
) -> Weights:
    """Write random weights of a model with 8 units per layer to ``path``, and return the
    weights."""
    spec = load_spec(name)
    program = spec.program("training", **{"hidden": 8, **sizes})
    drawn = draw(program, 1, 1, 3)
    made = Weights(
        spec.name,
        fingerprint(spec),
        dict(program.sizes),
        {n: a.astype(dtype) for n, a in drawn.parameters.items()},
        {n: a.astype(dtype) for n, a in drawn.statistics.items()},
        ("\0", *(chr(32 + i) for i in range(program.sizes["vocab"] - 1))),
        {"epochs": 3},
    )
    weights.save(path, made)
    return made
