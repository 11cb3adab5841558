"""Port the models of other libraries, and write the table of results into docs/ports.md.

    python tests/benchmarks/ports.py --python OTHER/bin/python --model gpt2 --model llama
    python tests/benchmarks/ports.py --page

``--python`` names the interpreter of an environment with the harness, torch, transformers, timm and
torchvision. Each port runs in a folder of its own; the record keeps the last result of each model.
Not a test: it takes minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

MODELS = Path(__file__).with_name("port_models.py")
RECORD = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "ports.md"
TEXT, IMAGE, SMALL = "input_ids=batch,time:86", "x=batch,3,32,32", "x=batch,3,16,16"
# The inputs of each model; the models are in port_models.py.
INPUTS = {
    "Mlp": "x=batch,12",
    "lstm": "chars=batch,time:40",
    "gru": "chars=batch,time:40",
    "transformer_encoder": "src=batch,time,32",
    "resnet18": IMAGE,
    "resnet50": IMAGE,
    "vgg11_bn": "x=batch,3,224,224",
    "mobilenet_v3_small": IMAGE,
    "densenet121": IMAGE,
    "efficientnet_b0": IMAGE,
    "timm_vit": SMALL,
    "convnext": IMAGE,
    "mixer": SMALL,
    "gpt2": TEXT,
    "llama": TEXT,
    "qwen2": TEXT,
    "bert": TEXT,
    "distilbert": TEXT,
    "hf_vit": "pixel_values=batch,3,16,16",
    "t5": TEXT,
    "mixtral": TEXT,
}


@click.command()
@click.option("--model", "names", multiple=True, type=click.Choice(list(INPUTS)))
@click.option("--python", default=sys.executable, help="Interpreter that runs the models.")
@click.option("--page", is_flag=True, help="Only write the page from the record.")
def main(names: tuple[str, ...], python: str, page: bool) -> None:
    """Port models one after another; keep the record, and write the page."""
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in () if page else names or INPUTS:
        record[name] = port(name, python)
        click.echo(f"{name}: {record[name]}")
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(text_of(record), encoding="utf-8")


def port(name: str, python: str) -> dict[str, Any]:
    """Port one model; return the digits, lines and definitions, or the refusal."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(str(Path(sys.executable).with_name("harness")), "port", f"{MODELS}:{name}"),
            *("--input", INPUTS[name], "-o", f"{folder}/port", "--python", python, "--json"),
            *("--check-on", "numpy,jax", "--timeout", "900"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode > 1:
            return {"refused": [line for line in done.stderr.splitlines() if ": " in line][-1]}
        found = json.loads(done.stdout)
        kept = ("proved", "against", "backends", "lines", "definitions", "remarks", "problems")
        return {key: found[key] for key in kept}


def text_of(record: dict[str, Any]) -> str:
    """Return the page with a row for each model."""
    rows = []
    for name in INPUTS:
        found = record.get(name)
        if found is None:
            continue
        if "refused" in found:
            rows.append(f"| {name} | refused: {found['refused']} | | |")
            continue
        digits = " / ".join(f"{found['against'][d] or 0:.1f}" for d in ("float64", "float32"))
        proved = digits if found["proved"] else f"not proved ({digits})"
        rows.append(f"| {name} | {proved} | {found['lines']} | {len(found['definitions'])} |")
    return "\n".join(
        [
            "# Ported models",
            "",
            "`python tests/benchmarks/ports.py` writes this page. It ports models of torch, "
            "torchvision, timm and transformers in small sizes ([how to port](port.md)). *Digits*: "
            "agreement of outputs and gradients with the original, in float64 and float32.",
            "",
            "| model | digits | lines | definitions |",
            "|---|---|---:|---:|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
