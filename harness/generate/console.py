"""The command ``generate``: what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping

import click

from harness.generate.writing import GenerateError, GenerateRequest, prepare


def run_generate(request: GenerateRequest, as_json: bool) -> int:
    """Write on with every backend; returns the exit code."""
    writer = prepare(request)
    texts: dict[str, str] = {}
    for backend in request.backends:
        shown = not texts and not as_json
        if shown:
            print(request.prompt, end="", flush=True)
        written = io.StringIO()
        try:
            for character in writer.write(backend):
                written.write(character)
                if shown:
                    print(character, end="", flush=True)
        except GenerateError as error:
            click.echo(f"{chr(10) if shown else ''}{error}", err=True)
            return 3
        finally:
            if shown:
                print()
        texts[backend] = written.getvalue()
    parted = differences(texts)
    if as_json:
        print(json.dumps({"prompt": request.prompt, "texts": texts, "same": not parted}))
    elif len(texts) > 1:
        print(parted or f"the same text on {', '.join(texts)}", file=sys.stderr)
    return 1 if parted else 0


def differences(texts: Mapping[str, str]) -> str:
    """Where the texts of backends part from the first one's; empty if they do not."""
    (first, base), *others = texts.items()
    lines = []
    for backend, text in others:
        if text != base:
            at = next(i for i, (a, b) in enumerate(zip(base, text, strict=True)) if a != b)
            lines.append(
                f"{backend} parts from {first} at character {at + 1}: "
                f"{text[at : at + 20]!r} instead of {base[at : at + 20]!r}"
            )
    return "\n".join(lines)
