"""The page on formats: its examples run on what harness export has written; it is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needed import need
from places import DOCS

from harness.convert import weights
from harness.convert.formats import available
from harness.convert.request import Export
from harness.convert.run import export
from harness.convert.weights import Weights
from harness.language.model import fingerprint, load_spec
from harness.oracle.draw import draw

pytestmark = pytest.mark.pages
PAGE = (DOCS / "formats.md").read_text(encoding="utf-8")
SPEC = "lesson6/stateful_lstm"
TITLES = {"torch": "torch", "jax": "JAX", "keras": "Keras", "onnx": "ONNX"}
SUFFIXES = {"torch": "pt", "jax": "npz", "keras": "keras", "onnx": "onnx"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of the model of the page."""
    folder = tmp_path_factory.mktemp("docs")
    spec = load_spec(SPEC)
    program = spec.program("training")
    drawn = draw(program, 1, 1, 0)
    made = Weights(
        spec.name,
        fingerprint(spec),
        dict(program.sizes),
        {n: a.astype(np.float32) for n, a in drawn.parameters.items()},
        {n: a.astype(np.float32) for n, a in drawn.statistics.items()},
        ("\0", " ", *map(chr, range(38, 122))),
    )
    weights.save(folder / "lstm.safetensors", made)
    return folder


@pytest.mark.parametrize("name", TITLES)
def test_the_example_runs_and_knows_nothing_of_the_harness(name: str, folder: Path) -> None:
    need("onnxruntime" if name == "onnx" else name)
    section = PAGE.partition(f"\n## {TITLES[name]}\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    file = f"stateful_lstm_{name}.{SUFFIXES[name]}"
    assert file in example
    made = export(
        Export(spec=SPEC, weights=folder / "lstm.safetensors", format_=name, output=folder / file)
    )
    assert made.agreement.agrees
    end = "assert not any(n.partition('.')[0] == 'harness' for n in sys.modules)\nprint(outputs)\n"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{example}{end}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "next_chars" in run.stdout


def test_every_format_has_a_row() -> None:
    own = [n for n, o in available().items() if o.distribution == "backend-comparison-harness"]
    rows = re.findall(r"^\| `(\w+)` \| `NAME\.(\w+)`", PAGE, re.MULTILINE)
    assert dict(rows) == SUFFIXES
    assert sorted(own) == sorted(SUFFIXES)
