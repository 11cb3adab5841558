"""A context without root's permissions, because tests may run as root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Run the block without root's permissions, but with access to a folder.

    If the tests do not run as root, nothing changes.
    """
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
