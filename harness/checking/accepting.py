"""A difference accepted as known: the entries for it in ``known_differences.yaml``, to complete."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence

import yaml

from harness.results.cell import CellResult


def accepted(result: CellResult, checks: Sequence[str]) -> str:
    """The text of a file that accepts what some checks of a cell have found, to be completed: an
    entry each, as one that fits a check that agrees is a fault."""
    cell, entries = result.cell, {}
    location, blame = result.location, result.blame.words if result.blame else ""
    words = f"{location.rstrip('.')}. {blame}" if location and blame else location or blame
    for check in checks:
        named = f"{cell.backend}-{cell.spec}-{cell.dtype}-{check}".lower()
        name = re.sub(r"[^a-z0-9]+", "-", named).strip("-")
        fields = {"backend": cell.backend, "spec": cell.spec, "dtype": cell.dtype}
        fields |= {"path": cell.path, "check": check, "version": result.version}
        entries[name] = {
            "summary": f"{check} of {cell.spec} differs on {cell.backend}.",
            "reason": words or "SAY WHY",
            "versions": result.version,
            "link": "SAY WHERE IT IS REPORTED",
            "match": {key: glob.escape(value) for key, value in fields.items()},
        }
    text: str = yaml.safe_dump({"differences": entries}, sort_keys=False, width=100)
    return text
