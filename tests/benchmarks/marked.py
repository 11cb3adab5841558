"""The part of a page that a script writes: what stands between two markers."""

from __future__ import annotations

from pathlib import Path

import click

from harness.files.atomic import write_whole

DOCS = Path(__file__).parents[2] / "docs"


def put(page: str, name: str, text: str) -> None:
    """Exchange what a page of docs has between ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    Raises:
        click.ClickException: the page lacks one of the two.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    path = DOCS / page
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, marker, after = rest.partition(end)
    if not marker:
        raise click.ClickException(f"{page} lacks {start.strip()} or {end}")
    write_whole(path, (before + start + text + end + after).encode())
