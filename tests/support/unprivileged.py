"""Being somebody to whom something is forbidden, though the tests run as root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Not root in this block, but able to reach a folder; whoever is not root stays who it is."""
    user = os.geteuid()
    if user == 0:
        top = Path(tempfile.gettempdir())
        for parent in folder.parents:
            if top in parent.parents:
                parent.chmod(0o755)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
