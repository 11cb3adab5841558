"""Rounding noise that the oracle has measured, kept between runs.

Most of the oracle's time goes into measuring noise (:mod:`harness.oracle.yardstick`): a check
repeats each computation up to ten times. The result is one number per tensor. These numbers are
kept in a database in the user's cache folder.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import msgpack
import numpy as np

from harness.arrays import Array
from harness.caching.trust import is_private
from harness.files.system import cache_folder, processor_features
from harness.files.user_file import MIB
from harness.runtime.code_digest import digest

# The most bytes of the database. If it is larger, the older half of its entries is deleted.
MOST = 64 * MIB
CHECKSUM_BYTES = 16
# The seconds to wait for another process that writes to the database.
BUSY = 10.0
_TABLE = "CREATE TABLE IF NOT EXISTS noise (key BLOB PRIMARY KEY, content BLOB, written REAL)"
_DELETE_OLDER_HALF = """DELETE FROM noise WHERE written < (
    SELECT written FROM noise ORDER BY written LIMIT 1 OFFSET (SELECT count(*) / 2 FROM noise))"""

Noise = Mapping[str, float]


class NoiseStore:
    """The database of noise. Several threads and processes may use it at the same time.

    An entry is ignored if its checksum is wrong. The whole database is ignored if another user owns
    it or can write to it, and it is replaced if it is damaged.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        with contextlib.suppress(OSError, sqlite3.Error):
            self._database = _opened(path())
            if path().stat().st_size > MOST:
                self._database.execute(_DELETE_OLDER_HALF)
                self._database.execute("VACUUM")

    def get(self, key: bytes) -> Noise | None:
        """Return the noise of each tensor by name, or None if the database does not have it.
        ``key`` is a checksum of everything that determines the noise."""
        rows = self._execute("SELECT content FROM noise WHERE key = ?", key)
        if not rows:
            return None
        checksum, content = rows[0][0][:CHECKSUM_BYTES], rows[0][0][CHECKSUM_BYTES:]
        return dict(msgpack.unpackb(content)) if checksum == _checksum(key, content) else None

    def put(self, key: bytes, noise: Noise) -> None:
        """Keep the noise of each tensor by name."""
        content = msgpack.packb({name: float(error) for name, error in noise.items()})
        entry = (key, _checksum(key, content) + content, time.time())
        self._execute("INSERT OR REPLACE INTO noise VALUES (?, ?, ?)", *entry)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    def _execute(self, statement: str, *values: object) -> list[tuple[bytes]]:
        """Execute a statement, and return its rows. After an error, e.g. on a full disk, the
        database is no longer used by this object."""
        with self._lock:
            if self._database is None:
                return []
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error:
                self._database.close()
                self._database = None
                return []


def path() -> Path:
    """Return the path of the database."""
    return cache_folder() / "noise" / "noise.db"


def size() -> tuple[int, int]:
    """Return the number of entries of the database, and its bytes; 0 and 0 if it cannot be read."""
    with contextlib.suppress(OSError, sqlite3.Error):
        bytes_ = path().stat().st_size
        with contextlib.closing(_opened(path())) as database:
            return database.execute("SELECT count(*) FROM noise").fetchone()[0], bytes_
    return 0, 0


def delete() -> None:
    """Delete the database.

    Raises:
        OSError: a file cannot be deleted.
    """
    for suffix in ("", "-wal", "-shm"):
        path().with_name(path().name + suffix).unlink(missing_ok=True)


def _opened(file: Path) -> sqlite3.Connection:
    """Open the database; create it if it does not exist, and replace it if it is damaged.

    Raises:
        OSError: another user owns it or can write to it.
        sqlite3.Error: it cannot be opened.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # else the umask decides
    if not (is_private(file.parent) and is_private(file)):
        raise PermissionError(file)
    try:
        return _connected(file)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, or a full disk
            raise
        delete()
        return _connected(file)


def _connected(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, BUSY, isolation_level=None, check_same_thread=False)
    try:
        # Entries have checksums, and a damaged database is replaced, so nothing waits for the disk.
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", _TABLE):
            database.execute(statement)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(key + content, digest_size=CHECKSUM_BYTES).digest()


@cache
def origin() -> bytes:
    """Return a checksum of what determines the noise of every computation: the code of the harness,
    the versions of Python and numpy, and the processor."""
    parts = (digest("harness"), platform.python_version(), np.__version__, processor_features())
    variables = (f"{n}={v}" for n, v in sorted(os.environ.items()) if n.startswith("OPENBLAS_"))
    return hashlib.sha256("\0".join([*parts, *variables]).encode()).digest()


_used: ContextVar[bool] = ContextVar("noise_store_used", default=True)


@contextlib.contextmanager
def unused() -> Iterator[None]:
    """Neither read nor write the database in this thread during the ``with`` block."""
    before = _used.set(False)
    try:
        yield
    finally:
        _used.reset(before)


def current() -> NoiseStore | None:
    """Return the database of this process, or None inside :func:`unused`."""
    return _of_process(os.getpid(), path()) if _used.get() else None


def kept(key: bytes, measure: Callable[[], Noise]) -> Noise:
    """Return the noise that the database has for ``key``; if it has none, measure it and keep it.
    With an empty key, only measure it."""
    store = current()
    if store is None or not key:
        return measure()
    noise = store.get(key)
    if noise is None:
        noise = measure()
        store.put(key, noise)
    return noise


def add_array(checksum: hashlib.blake2b, array: Array) -> None:
    """Add the dtype, the shape and the entries of an array to a checksum."""
    checksum.update(f"{array.dtype.str} {array.shape} ".encode())
    checksum.update(np.ascontiguousarray(array).data)


@cache
def _of_process(process: int, _: Path) -> NoiseStore:
    # A forked process must not use the connection of its parent.
    store = NoiseStore()

    def close() -> None:
        if os.getpid() == process:
            store.close()

    atexit.register(close)
    return store
