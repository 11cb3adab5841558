"""What ``compare`` prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.comparison.files import compare
from harness.files.forms import plain
from harness.terminal import console, line, say


def run_compare(old: Path, new: Path, options: Mapping[str, Any]) -> int:
    """Compare two files and print what changed; returns the exit code."""
    found = compare(old, new, options["threshold"])
    if options["as_json"]:
        say(json.dumps(plain({"exit_code": found.exit_code, **found.record()})))
    elif options["markdown"]:
        say(found.markdown())
    else:
        for text in found.lines():
            line(console(), text)
    return found.exit_code
