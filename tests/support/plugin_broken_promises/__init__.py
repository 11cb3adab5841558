"""A plugin of backends, each of which violates one rule of the contract, and its installation.

pip would create the same folder: the module next to its metadata, which has the name of every
fault.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def variables() -> dict[str, str]:
    """Return environment variables that make the plugin installed."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    }
