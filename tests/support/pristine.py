"""A folder that is created once, and restored for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path


class Pristine:
    """A copy of ``folder`` with the times of its files, to restore the folder at the same path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, folder.with_name(f"{folder.name}-kept")
        shutil.copytree(folder, self.kept)

    def restore(self) -> None:
        """Restore the folder."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)
