"""Function that runs ``harness`` commands for the script of docs/lesson6.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

HARNESS = Path(sys.executable).with_name("harness")


def harness(*arguments: str) -> Any:
    """Run a command with ``--json`` and return its data. Messages of the command go to the
    terminal."""
    command = [str(HARNESS), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"harness {' '.join(arguments)} ended with {done.returncode}")
    return json.loads(done.stdout)
