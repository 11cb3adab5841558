"""Check that a backend works in a new environment (``python -m harness.environments.proof torch``).

The command prints the backend's versions as JSON, or fails with a traceback.
"""

from __future__ import annotations

import json
import os
import platform
import sys

from harness.runtime import plugins


def main(name: str) -> None:
    """Load a backend as its worker does, and print the versions of the backend and of Python."""
    os.environ.update(plugins.environment(name))
    versions = {key: str(text) for key, text in plugins.load(name).versions().items()}
    sys.stdout.write(f"\n{json.dumps({'python': platform.python_version(), 'versions': versions})}")


if __name__ == "__main__":
    main(sys.argv[1])
