"""What ``compare`` prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.bench import compare as speeds
from harness.check import changes as checks
from harness.check.records import Records
from harness.check.surroundings import environment_changes
from harness.compared import Differing, counted, lines
from harness.comparison.files import load_pair
from harness.files.forms import plain
from harness.terminal import console, line, say


def run_compare(old: Path, new: Path, options: Mapping[str, Any]) -> int:
    """Compare two files and print what changed; returns the exit code."""
    before, after = load_pair(old, new)
    found: Sequence[checks.Change] | Sequence[speeds.Change]
    if isinstance(before, Records):
        assert isinstance(after, Records)
        found, around = checks.changes(before, after), environment_changes(before, after)
        what = ""
    else:
        assert not isinstance(after, Records)
        found = speeds.changes(before, after, options["threshold"])
        around = speeds.environment_changes(before, after)
        what = f"beyond {options['threshold']:.3g} and the noise: "
    code = int(any(change.worse for change in found))
    if options["as_json"]:
        say(json.dumps(_content(code, around, found)))
        return code
    told = [f"not the same: {each}" for each in around]
    told += [*lines(found), f"{what}{counted(found)}"]
    for text in told:
        line(console(), text)
    return code


def _content(
    code: int,
    around: Sequence[Differing],
    found: Sequence[checks.Change] | Sequence[speeds.Change],
) -> Any:
    content = {
        "exit_code": code,
        "environment": [each.record() for each in around],
        "changes": [change.record() for change in found],
    }
    return plain(content)
