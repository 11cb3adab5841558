"""What ``compare`` prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.comparison.between import between
from harness.comparison.files import compare
from harness.errors import UsageError
from harness.files.forms import plain
from harness.output.printing import console, line, say


def run_compare(old: Path, new: Path | None, options: Mapping[str, Any]) -> int:
    """Compare two files, or two columns of one, and print what changed; returns the exit code.

    Raises:
        UsageError: there is one file, and nothing in it to compare; or there is too much of both.
    """
    columns = options["between"]
    if (new is None) == (columns is None):
        raise UsageError(
            "give two files, or one and '--between OLD NEW', two columns of it"
            if new is None
            else "--between is of two columns of one file, and two files are given"
        )
    if new is not None:
        found = compare(old, new, options["threshold"])
    else:
        one, other = columns
        found = between(old, one, other, options["threshold"])
    if options["as_json"]:
        say(json.dumps(plain({"exit_code": found.exit_code, **found.record()})))
    elif options["markdown"]:
        say(found.markdown())
    else:
        for text in found.lines():
            line(console(), text)
    return found.exit_code
