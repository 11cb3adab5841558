"""The site of ``make gallery``: a page for each ported model, and no text that becomes markup."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from needed import need
from places import DOCS
from report_pages import HOSTILE

from harness.language.model import load_spec
from harness.output.markdown import table
from harness.porting.readme import PROOF

need("sphinx", "myst_parser", "furo")
pytestmark = [pytest.mark.pages, pytest.mark.slow]
TEXT = f"""<!-- written by backend-comparison-harness port -->
# chars

A port of {HOSTILE}.

## Proof

{table(PROOF, [("the model chars.py:Net", "float64", "outputs", "3", "15.2")])}

## Defaults that differ

- Another list.
"""


def build(ports: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "gallery" / "make.py"), "--ports", str(ports)]
    command += ["--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_each_port_has_a_page(tmp_path: Path) -> None:
    ports, output = tmp_path / "ports", tmp_path / "gallery"
    assert build(ports, output).returncode == 1
    for name, model in (("torch.gpt", "gpt"), ("onnx.mlp", "mlp")):
        folder = ports / name
        folder.mkdir(parents=True)
        spec = load_spec(model).definition.path.read_text("utf-8")
        (folder / f"{model}.yaml").write_text(f"model: my_{spec.removeprefix('model: ')}")
        (folder / f"{model}_jax.py").write_text("code = '<b>bold</b>'\n")
        (folder / f"{model}_jax.npz").write_bytes(b"PK")
        (folder / "README.md").write_text(TEXT)
    (ports / "refused").mkdir()
    found = build(ports, output)
    assert (found.returncode, found.stderr) == (0, "")
    index = (output / "index.html").read_text("utf-8")
    assert index.count("float64, outputs: 15.2 digits") == 2
    page = (output / "torch.gpt.html").read_text("utf-8")
    for part in ("gpt_block", "<p>15.2</p>", "gpt_jax.npz", "pictures/torch.gpt.html"):
        assert part in page
    assert "<b>bold</b>" not in page
    assert "<img src=x" not in page
    assert "blocks" in (output / "pictures" / "torch.gpt.html").read_text("utf-8")
