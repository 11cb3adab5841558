"""A plugin whose backends have faults in some cells, and its installation.

pip would create the same folder: the module next to its metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent


def variables(faults: Mapping[str, str]) -> dict[str, str]:
    """Return variables that make the plugin installed, with faults by cell: ``SPEC DTYPE``."""
    paths = [str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "FAULTS": json.dumps(faults)}
