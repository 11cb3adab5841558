"""A folder that is made once, and put back as it was for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path


class Pristine:
    """``folder`` as it is now, with the times of its files; its path stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, folder.with_name(f"{folder.name}-kept")
        shutil.copytree(folder, self.kept)

    def restore(self) -> None:
        """Put it back."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)
