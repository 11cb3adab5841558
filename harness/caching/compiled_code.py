"""Code that frameworks compile, kept between runs.

Some frameworks, such as XLA, keep the code that they compile in a folder. Each worker has a folder
of its own, because these frameworks do not write their files atomically. Before a cell of a model,
the folder gets the files of the model's archive. After the cell, the archive gets the new files.
Archives are in the user's cache folder, and the least recently used are deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import msgpack

from harness.caching.trust import is_private
from harness.files.atomic import write_whole
from harness.files.system import cache_folder, processor_features
from harness.files.user_file import MIB, FileFault, read_bytes

# The most bytes of one archive, and of all archives.
MOST, MOST_TOGETHER = 64 * MIB, 1024 * MIB
SUFFIX = ".code"


class CompiledCode:
    """The compiled code of one worker.

    An archive is for one model, backend and interpreter, and for this processor. The framework
    itself recognises code for other versions and options. Archives that are damaged, or that other
    users can write, are ignored and replaced.

    Args:
        backend: The worker's backend, which may have a label (``jax@0.5``).
        python: The worker's interpreter.
    """

    def __init__(self, backend: str, python: str) -> None:
        self.folder = Path(tempfile.gettempdir(), f"harness-code-{token_hex(8)}")
        self._owner = f"{backend}\0{python}\0{processor_features()}"
        self._names: dict[str, set[str]] = {}
        self._known: set[str] = set()

    @contextlib.contextmanager
    def kept(self, model: str) -> Iterator[None]:
        """Give a cell the code of its model's archive; keep the new code if the cell ends without
        an error. ``model`` is the fingerprint of the cell's spec."""
        self.load(model)
        yield
        self.store(model)

    def load(self, model: str) -> None:
        """Write the files of a model's archive into the folder, once."""
        if model in self._names:
            return
        # Several threads may run cells of one backend.
        self.folder.mkdir(mode=0o700, exist_ok=True)
        files = _read(self._archive(model))
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        self._names[model] = {*files}
        self._known |= {*files}

    def store(self, model: str) -> None:
        """Add the files that the worker has written since the last call to a model's archive. If
        the cache folder cannot be written, nothing is kept."""
        found = {path.name for path in self.folder.iterdir() if path.is_file()}
        new, self._known = found - self._known, found
        archive = self._archive(model)
        with contextlib.suppress(OSError):
            if not new:
                os.utime(archive)
                return
            names = self._names.setdefault(model, set())
            names |= new
            if sum(map(self._size, names)) > MOST:
                names.intersection_update(new)
            if sum(map(self._size, names)) > MOST:
                return
            content = msgpack.packb({n: (self.folder / n).read_bytes() for n in sorted(names)})
            archive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(archive, hashlib.sha256(content).digest(), content)
            _delete_oldest()

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def _archive(self, model: str) -> Path:
        # A file system may have names that are not UTF-8.
        identity = f"{self._owner}\0{model}".encode(errors="surrogateescape")
        return root() / f"{hashlib.sha256(identity).hexdigest()[:32]}{SUFFIX}"


def root() -> Path:
    """Return the folder of the archives."""
    return cache_folder() / "compiled"


def archives() -> list[Path]:
    """Return all archives, the least recently used first."""
    times: dict[Path, int] = {}
    for path in root().glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another process deleted it
            times[path] = path.stat().st_mtime_ns
    return sorted(times, key=times.__getitem__)


def _delete_oldest() -> None:
    paths = archives()
    together = sum(path.stat().st_size for path in paths)
    for path in paths:
        if together <= MOST_TOGETHER:
            return
        together -= path.stat().st_size
        path.unlink(missing_ok=True)


def _read(archive: Path) -> dict[str, bytes]:
    """Return the files of an archive by name; return {} if it is missing, damaged or foreign."""
    try:
        if not (is_private(archive) and is_private(archive.parent)):
            return {}
        content = read_bytes(archive, MOST + MIB, "compiled code")
    except (OSError, FileFault):
        return {}
    checksum, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != checksum:
        return {}
    return dict(msgpack.unpackb(content))
