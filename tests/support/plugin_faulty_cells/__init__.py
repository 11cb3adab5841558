"""A plugin whose backends have faults, and the environment in which it is installed.

This folder is what pip would make of it: the module beside its metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent


def variables(faults: Mapping[str, str]) -> dict[str, str]:
    """Variables under which the plugin is installed, with faults by cell: ``SPEC DTYPE``."""
    paths = [str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "FAULTS": json.dumps(faults)}
