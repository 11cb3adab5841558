"""Write the gallery: a site of the models that ``make ports`` ported, in ``build/gallery``.

    python docs/gallery/make.py --backend torch --backend jax

The page of a model has a picture, the spec, the code for each framework, and the proof: the README
that ``harness port`` wrote. ``--ports`` names the folder with a port in each of its folders.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

import click

import harness
from harness.porting.readme import README

ROOT = Path(__file__).parents[2]
INDEX = """\
# Ported models

`harness port` wrote each spec, its weights and the code, and compared all of them with the original
model. The last column is the first comparison.

| model | lines of the spec | comparison with the original |
|---|---:|---|
{rows}

```{{toctree}}
:hidden:
{names}
```
"""
PAGE = """\
# {name}

## Picture

```{{raw}} html
<p><a href="{picture}">on a page of its own</a></p>
<iframe src="{picture}" title="The layers" sandbox style="width: 100%; height: 40rem"></iframe>
```

## Spec

{spec}

## Code

{code}

## Port

```{{include}} {readme}
:heading-offset: 1
```
"""


@click.command()
@click.option("--ports", type=click.Path(path_type=Path), default=ROOT / "build" / "ports")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "build" / "gallery")
@click.option("--backend", "backends", multiple=True, help="Show how this backend runs each layer.")
def main(ports: Path, output: Path, backends: tuple[str, ...]) -> None:
    """Draw every model, write a page for each, and build the site."""
    folders = sorted(readme.parent for readme in ports.glob(f"*/{README}"))
    if not folders:
        sys.exit(
            f"{ports} has no ports: run 'make ports' first, which takes hours, or port a few "
            "models with 'python tests/benchmarks/ports.py --model torch.Mlp'"
        )
    shutil.rmtree(output, ignore_errors=True)
    (output / "pictures").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        rows = []
        for folder in folders:
            rows.append(write_page(folder, source))
            click.echo(f"drawing {folder.name}")
            spec = find_spec(folder)
            picture = output / "pictures" / f"{folder.name}.html"
            harness.explain(spec, html=picture, backends=backends)
        text = INDEX.format(rows="\n".join(rows), names="\n".join(f.name for f in folders))
        (source / "index.md").write_text(text, encoding="utf-8")
        options = ("-q", "-c", str(Path(__file__).parent), "-d", f"{name}/doctrees")
        command = [sys.executable, "-m", "sphinx", *options, name, str(output)]
        if subprocess.run(command, check=False).returncode:
            sys.exit(1)
    click.echo(output / "index.html")


def find_spec(folder: Path) -> Path:
    """Return the spec in the folder of a port."""
    (spec,) = folder.glob("*.yaml")
    return spec


def write_page(folder: Path, source: Path) -> str:
    """Write the page of a port; return its row in the index."""
    name, spec = folder.name, find_spec(folder)
    shutil.copytree(folder, source / "files" / name)
    files = sorted(path.name for path in folder.iterdir() if path.name not in (spec.name, README))
    code = [show(f"files/{name}/{file}", "python") for file in files if file.endswith(".py")]
    links = [f"- {{download}}`{file} <files/{name}/{file}>`" for file in [spec.name, *files]]
    readme = (folder / README).read_text(encoding="utf-8")
    # The title of the README would be a second title of the page.
    body = re.sub(r"\A.*?^# .*?$", "", readme, count=1, flags=re.DOTALL | re.MULTILINE)
    (source / "files" / name / README).write_text(body, encoding="utf-8")
    text = PAGE.format(
        name=name,
        picture=escape(f"pictures/{name}.html"),
        spec=show(f"files/{name}/{spec.name}", "yaml"),
        code="\n\n".join([*code, "\n".join(links)]),
        readme=f"files/{name}/{README}",
    )
    (source / f"{name}.md").write_text(text, encoding="utf-8")
    # The first row of the table of comparisons.
    proof = re.search(r"^\|[- :|]+\|\n\| (.*) \|$", readme, re.MULTILINE)
    *compared, _, digits = proof[1].split(" | ") if proof else ("", "", "")
    lines = len(spec.read_text(encoding="utf-8").splitlines())
    doubt = "**not proved:** " if "**This port is not proved.**" in readme else ""
    shown = f"{', '.join(compared)}: {digits} digits" if proof else ""
    return f"| [{name}]({name}.md) | {lines} | {doubt}{shown} |"


def show(path: str, language: str) -> str:
    """Return the directive that shows a file."""
    name = os.path.basename(path)
    return f"```{{literalinclude}} {path}\n:language: {language}\n:caption: {name}\n```"


if __name__ == "__main__":
    main()
