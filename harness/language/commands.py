"""The command ``schema``. What it needs is imported when it is run."""

from __future__ import annotations

import json

import click

from harness.output.printing import say


@click.argument("kind", type=click.Choice(["model", "layer", "function", "loss", "optimizer"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of a kind of spec file, for editors."""
    from harness.language.schema import json_schema

    say(json.dumps(json_schema(kind), indent=2))
