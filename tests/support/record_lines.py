"""The lines of a record file as JSON data, for tests of single fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines_of(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the lines of a file in file order; with ``kind`` only the lines of this kind."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if kind in ("", line["kind"])]
