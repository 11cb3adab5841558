"""Data sets with a name: those that installed packages carry, so that none is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from harness.arrays import ArrayDict
from harness.errors import UsageError
from harness.files.user_file import FileFault, displayed, read_bytes

PACKAGE, FILE = "scikit-learn", "datasets/data/digits.csv.gz"
INSTALL = (
    "pip install scikit-learn (the extra 'data' of this package brings it), or name a file of "
    "arrays with --data FILE"
)
ROWS, SIDE, LEVELS = 1797, 8, 16
MOST = 1 << 20  # bytes that are read of the file, packed and unpacked
# Of the pixels and classes as bytes, a row an image.
SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"


def data_set(name: str) -> ArrayDict:
    """The arrays of a data set by name, a row an example.

    Raises:
        UsageError: the package that carries it is not installed, or has other data.
    """
    return {"digits": digits}[name]()


def digits() -> ArrayDict:
    """Images of written digits, in the order of the file.

    ``pixels`` ``[rows, 64]``, ``images`` ``[rows, 8, 8, 1]``, ``images_rgb`` ``[rows, 8, 8, 3]``
    (three times the same) and ``images_32`` ``[rows, 32, 32, 1]``, from 0 to 1, and ``label``
    ``[rows]``. A pixel is the share of ink in a block of 4 by 4 of what was scanned
    (Alpaydin and Kaynak, 1998, the test part of "Optical recognition of handwritten digits");
    ``images_32`` has that share in each place of the block. The package is not imported, which
    would take a second, but its file is read.
    """
    found = _table(_place())
    pixels = found[:, :-1].astype(np.float32) / np.float32(LEVELS)
    images = pixels.reshape(ROWS, SIDE, SIDE, 1)
    return {
        "pixels": pixels,
        "images": images,
        "images_rgb": np.repeat(images, 3, axis=3),
        "images_32": images.repeat(4, axis=1).repeat(4, axis=2),
        "label": found[:, -1].astype(np.int64),
    }


def _place() -> Path:
    spec = find_spec("sklearn")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise UsageError(
            f"the data set 'digits' is that of {PACKAGE}, which is not installed: {INSTALL}"
        )
    return Path(next(iter(folders))) / FILE


def _table(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The numbers of the file, ``[rows, pixels and class]``."""
    try:
        packed = io.BytesIO(read_bytes(path, MOST, "a data set"))
        text = gzip.GzipFile(fileobj=packed).read(MOST)
        found = np.array([line.split(b",") for line in text.split()]).astype(np.uint8)
    except (FileFault, OSError, EOFError, ValueError) as error:
        raise UsageError(f"the data set 'digits' cannot be read: {error}: {INSTALL}") from None
    if hashlib.sha256(found.tobytes()).hexdigest() != SHA256:
        raise UsageError(
            f"{displayed(path)} is not the data set 'digits' that is known here: {INSTALL}"
        )
    return found
