"""Run exported code in a process of its own, which cannot import the harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.convert.agreement import GRADIENT, Agreement, Batch, compare_outputs
from harness.convert.formats import Exported, Script
from harness.errors import CouldNotRun, shorten
from harness.oracle.tolerance import scales
from harness.oracle.yardstick import Expected

FILE, GIVEN, FOUND = "run_export.py", "given.npz", "found.npz"
# The parts of the program before and after the exported code.
HEAD = """import sys
from pathlib import Path

import numpy as np

# From here on, an import of the harness is an error.
sys.modules["harness"] = None
FOLDER = Path(__file__).resolve().parent
"""
MAIN = """

def main():
    batches = {}
    with np.load(FOLDER / "given.npz") as given:
        for key in given.files:
            number, group, name = key.split("/", 2)
            groups = {"inputs": {}, "state": {}, "cotangents": {}}
            batches.setdefault(number, groups)[group][name] = given[key]
    found = {}
    for number, groups in batches.items():
        results = run(groups["inputs"], groups["state"], groups["cotangents"])
        found |= {f"{number}/{name}": array for name, array in results.items()}
    np.savez(FOLDER / "found.npz", **found)


main()
"""


# A function that returns the format's script, with gradients converted to the framework's tensors.
WriteScript = Callable[[Arrays], Script]


@dataclass(frozen=True)
class Compared:
    """The comparison of an export that ran alone: its outputs with the new state, and its
    gradients (None if the format computes no gradients)."""

    outputs: Agreement
    gradients: Agreement | None


def compare_alone(
    write_script: WriteScript,
    exported: Exported,
    batches: Sequence[Batch],
    folder: Path,
    run: Callable[[Path], str],
) -> Compared:
    """Run exported code on all batches in a process of its own, and compare it with the oracle.

    Args:
        write_script: Returns the script of the export, see :meth:`Format.script`.
        exported: The exported model.
        batches: The batches; the first may have gradients.
        folder: The folder of the written files. It gets three more files.
        run: Runs a Python file, and returns what it printed.

    Raises:
        CouldNotRun: the code wrote no results. The message has the last line of its output.
    """
    script, gradients = _pack_gradients(write_script, exported, batches[0])
    text = "\n\n".join((HEAD, script.module, script.source)) + MAIN
    (folder / FILE).write_text(text, encoding="utf-8")
    groups = ["inputs", "state", *(["cotangents"] if gradients else [])]
    given = {
        f"{number}/{group}/{name}": array
        for number, batch in enumerate(batches)
        for group in groups
        for name, array in getattr(batch, group).items()
    }
    np.savez(folder / GIVEN, **given)
    printed = run(folder / FILE)
    if not (folder / FOUND).is_file():
        last = shorten((printed.splitlines() or ["no output"])[-1], 600)
        raise CouldNotRun(f"the exported code failed without the harness: {last}")
    with np.load(folder / FOUND) as found:
        results = {name: found[name] for name in found.files}
    outputs: list[ArrayDict] = [{} for _ in batches]
    for key, array in results.items():
        number, _, name = key.partition("/")
        if not name.startswith(GRADIENT):
            outputs[int(number)][name] = array
    outcome = compare_outputs(batches, outputs, exported.dtype)
    return Compared(outcome, _compare_gradients(gradients, results, exported.dtype))


def _pack_gradients(
    write_script: WriteScript, exported: Exported, batch: Batch
) -> tuple[Script, Expected | None]:
    """Return the script, and the expected gradients by the script's names; None if the script
    computes none."""
    noise, scale = batch.expected.noise(exported.dtype), scales(batch.expected.values)
    values: ArrayDict = {}
    limits: ArrayDict = {}
    for name, array in exported.parameters.items():
        key = f"{GRADIENT}{name}"
        values[name] = np.asarray(batch.expected.values.get(key, np.zeros(array.shape)))
        limits[name] = np.full(array.shape, noise.get(key, 0.0) * scale.get(key, 0.0))
    script = write_script(values)
    if not batch.cotangents or not script.gradients:
        return script, None
    # A tensor of the framework may hold several parameters; the largest rounding error counts.
    packed = {f"{GRADIENT}{n}": a for n, a in script.gradients.items()}
    largest = {
        f"{GRADIENT}{n}": float(a.max(initial=0.0))
        for n, a in write_script(limits).gradients.items()
    }
    packed_scale = scales(packed)
    return script, Expected.within(
        packed, {n: largest[n] / packed_scale[n] for n in packed}, exported.dtype
    )


def _compare_gradients(expected: Expected | None, results: Arrays, dtype: str) -> Agreement | None:
    if expected is None:
        return None
    found = {n: results[f"0/{n}"] for n in expected.values if f"0/{n}" in results}
    # A framework returns no gradient of a weight that no output depends on.
    missing = [n for n, a in expected.values.items() if n not in found and not a.any()]
    found |= {n: expected.values[n].astype(dtype) for n in missing}
    return Agreement.of(expected.deviations(found, dtype))
