"""Models that ship, in every format and both dtypes: outputs as the oracle's, weights that return.

Each is exported with drawn weights at its own sizes, as ``harness export`` does it, run by the
framework alone, and imported again. The `.keras` files are run on each engine of Keras.
``python tests/benchmarks/every_model.py page`` writes the record into docs/models.md. Not a test:
it takes minutes.

    python tests/benchmarks/every_export.py --model gpt
"""

from __future__ import annotations

import json
import os
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from every_model import MODELS

import harness
from harness.convert import weights
from harness.convert.request import Export, Import
from harness.convert.run import FormatFault, export, import_
from harness.convert.weights import Weights
from harness.errors import HarnessError
from harness.files.atomic import write_whole
from harness.language.model import fingerprint
from harness.oracle.draw import draw

RECORD = Path(__file__).with_suffix(".json")
SUFFIX = {"torch": ".pt", "jax": ".npz", "keras": ".keras", "onnx": ".onnx"}
FORMATS = ("torch", "jax", "onnx", "keras/tensorflow", "keras/torch", "keras/jax")
# On these engines Keras rounds float64 on the way, so that such a file is not written.
NARROW = ("keras/torch", "keras/jax")


def drawn(name: str, dtype: str) -> Weights:
    """Drawn weights of a model at its own sizes."""
    spec = harness.load(name)
    program = spec.program("training")
    material = draw(program, 1, 1, 3)
    return Weights(
        spec.name,
        fingerprint(spec),
        dict(program.sizes),
        {n: a.astype(dtype) for n, a in material.parameters.items()},
        {n: a.astype(dtype) for n, a in material.statistics.items()},
    )


def one(name: str, format_: str, dtype: str, folder: Path) -> dict[str, Any]:
    """What came of an export and of the import of its file."""
    format_, _, engine = format_.partition("/")
    if engine:  # read by the process of the format
        os.environ["KERAS_BACKEND"] = engine
    given = drawn(name, dtype)
    weights.save(folder / "given", given)
    file = folder / f"model{SUFFIX[format_]}"
    try:
        found = export(
            Export(
                spec=name, weights=folder / "given", format_=format_, output=file, timeout=3600.0
            )
        )
        back = import_(
            Import(
                spec=name,
                file=file,
                format_=format_,
                weights=folder / "back",
                like=folder / "given",
            )
        )
    except FormatFault:  # too slow, say: to be run again
        raise
    except HarnessError as error:
        return {"fault": str(error)}
    same = given.parameters.keys() == back.parameters.keys() and all(
        np.array_equal(array, back.parameters[n]) for n, array in given.parameters.items()
    )
    return {
        "agrees": found.agreement.agrees,
        "comparisons": found.agreement.comparisons,
        "worst": str(found.agreement.worst),
        "digits": round(found.agreement.digits, 1),
        "returned": same and given.statistics.keys() == back.statistics.keys(),
        "versions": dict(found.versions),
    }


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS))
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS))
@click.option("--record", type=click.Path(path_type=Path), default=RECORD)
def main(models: tuple[str, ...], formats: tuple[str, ...], record: Path) -> None:
    """Export what the record lacks, and add it one by one."""
    wanted = product(models or MODELS, formats or FORMATS, ("float32", "float64"))
    for model, format_, dtype in wanted:
        known = json.loads(record.read_text()) if record.exists() else {}
        key = f"{model} {format_} {dtype}"
        if key in known or (dtype == "float64" and format_ in NARROW):
            continue
        with tempfile.TemporaryDirectory() as folder:
            known[key] = one(model, format_, dtype, Path(folder))
        write_whole(record, (json.dumps(known, indent=1) + "\n").encode())
        click.echo(f"{key}: {known[key]}")


if __name__ == "__main__":
    main()
