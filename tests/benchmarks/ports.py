"""Port the models of other libraries, and write the table of results into docs/ports.md.

    python tests/benchmarks/ports.py --python OTHER/bin/python --model flax.cnn --model timm.vit
    python tests/benchmarks/ports.py --page

``ports/LIBRARY_models.py`` has the models of a library. ``--python`` names the interpreter of an
environment with the harness and all libraries: torch, torchvision, timm, transformers, flax, keras
and skl2onnx. ``ports/records/`` keeps the last result of each model, and ``build/ports/`` the
ported files, for ``make gallery``. Not a test: a port takes minutes.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).with_suffix("")
PORTS = Path("build", "ports")  # in ROOT
PAGE = ROOT / "docs" / "ports.md"
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "flax", "keras", "onnx")
# Files of models that import torch only through their library.
OF_TORCH = ("torchvision", "timm", "transformers")
FORMATS = ("torch", "jax", "keras", "onnx")
KEPT = ("proved", "against", "backends", "exports", "lines", "definitions", "remarks", "problems")
INTRODUCTION = """\
# Ported models

`make ports` ports models of other libraries in small sizes ([how to port](port.md)), and writes
this page. Then `make gallery` builds a site with picture, spec, code and proof.

- *Sizes*: images have 16 to 64 pixels per axis, but 224 in AlexNet, ShuffleNet and ZFNet of ONNX.
  AlexNet, VGG and ZFNet have dense layers of 64 units.
- *Digits*: agreement of outputs and gradients with the original model, in float64 and float32,
  without tensors that are mostly rounding errors. Models that compute a part in float32 agree to
  float32's digits in both.
- *Equations*: functions in the equations of the spec; all else is layers.
- *Code*: the formats in which the exported code agrees with the spec; `all` are torch, jax, keras
  and onnx.
"""


def _inputs(library: str) -> dict[str, list[str]]:
    """Read the constant ``INPUTS`` of a file of models, without importing the library."""
    for node in ast.parse((FOLDER / f"{library}_models.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INPUTS":
            return dict(ast.literal_eval(node.value))
    raise ValueError(library)


# The values of --input of each model.
MODELS = {f"{lib}.{name}": given for lib in LIBRARIES for name, given in _inputs(lib).items()}


@click.command()
@click.option("--model", "names", multiple=True, type=click.Choice(list(MODELS)), metavar="NAME")
@click.option("--python", default=sys.executable, help="Interpreter that runs the models.")
@click.option("--page", is_flag=True, help="Only write the page from the records.")
def main(names: tuple[str, ...], python: str, page: bool) -> None:
    """Port models one after another; keep the records, and write the page."""
    for name in () if page else names or MODELS:
        record = port(name, python)
        click.echo(f"{name}: {record}")
        path = _record(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(text_of_page(), encoding="utf-8")


def _record(name: str) -> Path:
    return FOLDER / "records" / f"{name}.json"


def port(name: str, python: str) -> dict[str, Any]:
    """Port a model; return the digits, lines and definitions, or the refusal."""
    shutil.rmtree(ROOT / PORTS / name, ignore_errors=True)
    (ROOT / PORTS).mkdir(parents=True, exist_ok=True)
    command = [
        *(str(Path(sys.executable).with_name("harness")), "port", target(name, python)),
        *(part for text in MODELS[name] for part in ("--input", text)),
        *(part for format_ in FORMATS for part in ("--to", format_)),
        *("-o", str(PORTS / name), "--python", python, "--json", "--force"),
        *(("--backend", "torch") if name.partition(".")[0] in OF_TORCH else ()),
        *("--check-on", "numpy,torch,jax,keras", "--timeout", "900"),
    ]
    # In ROOT, so that the README of a port names no folder of this machine.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode > 1:
        lines = done.stderr.splitlines()
        return {"refused": [line for line in lines if ": " in line] or lines}
    found = json.loads(done.stdout)
    (spec,) = (ROOT / PORTS / name).glob("*.yaml")
    calls = functions(yaml.safe_load(spec.read_text(encoding="utf-8")))
    return {**{key: found[key] for key in KEPT}, "functions": calls}


def target(name: str, python: str) -> str:
    """Return the argument of ``harness port`` for a model, a path in ROOT; write the file of an
    ONNX model."""
    library, _, model = name.partition(".")
    models = FOLDER / f"{library}_models.py"
    if library == "onnx":
        path = PORTS / f"{model}.onnx"
        subprocess.run([python, str(models), model, str(ROOT / path)], check=True)
        return str(path)
    variables = f"{model}_variables"  # of a function or a module without weights of its own
    return f"{models.relative_to(ROOT)}:{model}" + (
        f":{variables}" if f"def {variables}(" in models.read_text() else ""
    )


def functions(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of calls of each function in the equations of a spec."""
    count: Counter[str] = Counter()
    for part in (spec, *spec.get("definitions", ())):
        text = f"{part.get('equations')} {part.get('scan', {}).get('step')}"
        called = re.findall(r"\b([a-z]\w*)\(", text)
        count.update(name for name in called if name not in part.get("layers", {}))
    return dict(count.most_common())


def text_of_page() -> str:
    """Return the page with a table for each library."""
    text = INTRODUCTION
    for library in LIBRARIES:
        names = [n for n in MODELS if n.startswith(f"{library}.") and _record(n).exists()]
        records = {n.partition(".")[2]: json.loads(_record(n).read_text()) for n in names}
        ported = {n: r for n, r in records.items() if "refused" not in r}
        if records:
            text += f"\n## {library}\n"
        if ported:
            text += "\n| model | digits | lines | definitions | equations | code |\n"
            text += "|---|---|---:|---:|---|---|\n"
            text += "".join(f"{row(name, record)}\n" for name, record in ported.items())
        for name, record in records.items():
            if "refused" in record:
                lines = "\n".join(f"    {line}" for line in record["refused"])
                text += f"\n`{name}` is refused:\n\n{lines}\n"
    return text


def row(name: str, record: Mapping[str, Any]) -> str:
    """Return the row of a ported model."""
    digits = " / ".join(str(record["against"].get(d) or "-") for d in ("float64", "float32"))
    proved = digits if record["proved"] else f"**not proved** ({digits})"
    wrong = {line.partition(":")[0] for line in record["problems"]}
    right = tuple(format_ for format_ in record["exports"] if format_ not in wrong)
    code = "all" if right == FORMATS else ", ".join(right)
    calls = ", ".join(record["functions"])
    definitions = len(record["definitions"]) or ""
    cells = (name, proved, record["lines"], definitions, calls, code)
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
