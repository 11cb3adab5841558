"""A plugin of backends that break one promise each, and the environment in which it is installed.

This folder is what pip would make of it: the module beside its metadata, which names every fault.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def variables() -> dict[str, str]:
    """Variables under which the plugin is installed."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    }
