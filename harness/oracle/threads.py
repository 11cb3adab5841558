"""Limit of one BLAS thread for the oracle, because its products are small.

If workers keep all cores busy, the threads of one product spend more time waiting for each other
than computing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Possible prefixes and suffixes of OpenBLAS function names in numpy's wheels and system libraries.
_PREFIXES, _SUFFIXES = ("scipy_", ""), ("64_", "")


@contextmanager
def one_thread() -> Iterator[None]:
    """Set every loaded OpenBLAS library to one thread during the ``with`` block."""
    before = [(library, _call(library, "get")()) for library in _libraries()]
    try:
        for library, _ in before:
            _call(library, "set")(1)
        yield
    finally:
        for library, count in before:
            _call(library, "set")(count)


def _libraries() -> list[ctypes.CDLL]:
    """Return the loaded OpenBLAS libraries whose number of threads can be read and set."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line.lower()}
    found = [ctypes.CDLL(path) for path in sorted(paths) if Path(path).is_file()]
    return [library for library in found if _name(library, "set") and _name(library, "get")]


def _name(library: ctypes.CDLL, verb: str) -> str:
    """Return the name of a library's function that gets or sets the number of threads (``verb`` is
    "get" or "set"); "" if there is none."""
    names = (f"{p}openblas_{verb}_num_threads{s}" for p in _PREFIXES for s in _SUFFIXES)
    return next((name for name in names if hasattr(library, name)), "")


def _call(library: ctypes.CDLL, verb: str) -> ctypes._NamedFuncPointer:
    return getattr(library, _name(library, verb))  # type: ignore[no-any-return]
