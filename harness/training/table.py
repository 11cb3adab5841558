"""Batches from arrays (of a file or of a data set) in which each row is an example."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError, did_you_mean
from harness.files.npz import read_npz
from harness.files.user_file import MAX_TABLE, FileFault, displayed, read_bytes
from harness.language import schema
from harness.language.model import Spec
from harness.oracle.user_arrays import digest_of
from harness.program.dims import Dim, bind
from harness.program.ir import Port, Program, Type
from harness.program.signature import check_entries, noise_ports
from harness.runtime.answers import WHOLE
from harness.runtime.precision import host_dtype
from harness.text.shared import Shared, map_vector
from harness.training.feed import Recipe, RowArray, RowFeed

# Data sets with a name. They are part of installed packages, so nothing is downloaded.

PACKAGE, FILE = "scikit-learn", "datasets/data/digits.csv.gz"
INSTALL = (
    "pip install scikit-learn (or install the extra 'data' of this package), or name a file of "
    "arrays with --data FILE"
)
ROWS, SIDE, LEVELS = 1797, 8, 16
MOST = 1 << 20  # the most bytes of the file, both packed and unpacked
# The checksum of the pixels and classes as bytes, one row per image.
SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"


def data_set(name: str) -> ArrayDict:
    """Return the arrays of the data set ``name``, e.g. ``digits``, with one row per example.

    Raises:
        UsageError: the package of the data set is not installed, or contains other data.
    """
    return {"digits": digits}[name]()


def digits() -> ArrayDict:
    """Return a dictionary with the images of handwritten digits, in the order of the file.

    The same images are in four arrays of different shape. A value is the share of ink, 0 to 1:

    - ``pixels``: ``[rows, 64]``
    - ``images``: ``[rows, 8, 8, 1]``
    - ``images_rgb``: ``[rows, 8, 8, 3]`` with three equal channels
    - ``images_32``: ``[rows, 32, 32, 1]``, with each pixel repeated 4 by 4 times

    ``label`` is ``[rows]``, the digit of each image. A pixel of an 8 by 8 image is a block of 4 by
    4 dots of the scan. The source is the test part of "Optical recognition of handwritten digits"
    (Alpaydin and Kaynak, 1998). This function reads the file itself, because importing scikit-learn
    takes a second.
    """
    rows = _table(_digits_path())
    pixels = rows[:, :-1].astype(np.float32) / np.float32(LEVELS)
    images = pixels.reshape(ROWS, SIDE, SIDE, 1)
    return {
        "pixels": pixels,
        "images": images,
        "images_rgb": np.repeat(images, 3, axis=3),
        "images_32": images.repeat(4, axis=1).repeat(4, axis=2),
        "label": rows[:, -1].astype(np.int64),
    }


def _digits_path() -> Path:
    spec = find_spec("sklearn")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise UsageError(
            f"the data set 'digits' is part of {PACKAGE}, which is not installed: {INSTALL}"
        )
    return Path(next(iter(folders))) / FILE


def _table(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return the file of digits as an array ``[rows, 65]``: in each row the 64 pixels, then the
    digit."""
    try:
        packed = io.BytesIO(read_bytes(path, MOST, "a data set"))
        text = gzip.GzipFile(fileobj=packed).read(MOST)
        values = np.array([line.split(b",") for line in text.split()]).astype(np.uint8)
    except (FileFault, OSError, EOFError, ValueError) as error:
        raise UsageError(f"the data set 'digits' cannot be read: {error}: {INSTALL}") from None
    if hashlib.sha256(values.tobytes()).hexdigest() != SHA256:
        raise UsageError(
            f"{displayed(path)} is not the expected version of the data set 'digits': {INSTALL}"
        )
    return values


BATCH = Dim.of("batch")
# The declaration in a spec of data that are not a text.
Declared = schema.ArrayFile | schema.DataSet
INSTEAD = "give it with --data FILE"


@dataclass(frozen=True, eq=False)
class Table:
    """The arrays of a model's inputs and targets, by names such as ``input.x``, with their source
    and shapes.

    Each array has the shape ``[rows, ...]``, or has no row axis (e.g. graph edges) and is used
    whole in each batch. Other processes may map the arrays into their memory. ``sizes`` are the
    values of the spec's sizes that follow from the shapes of the arrays.
    """

    name: str
    sha256: str
    rows: int
    sizes: Mapping[str, int]
    arrays: Mapping[str, Shared]
    shapes: Mapping[str, tuple[int, ...]]
    vocabulary: None = None
    unit: str = "rows"
    other: str = "other data"

    def describe_location(self) -> dict[str, object]:
        """Return the location of the arrays in shared memory. Another process passes it to
        :func:`map_arrays`."""
        return {
            "arrays": {
                name: {**shared.describe_location(), "shape": list(self.shapes[name])}
                for name, shared in self.arrays.items()
            }
        }

    def summary(self) -> str:
        """Return the number of rows as text, e.g. ``1,797 rows``."""
        return f"{self.rows:,} rows"

    def here(self) -> dict[str, Array]:
        """Return a dictionary from name, e.g. ``input.x``, to array, for use in this process."""
        return {n: s.array.reshape(self.shapes[n]) for n, s in self.arrays.items()}


def map_arrays(description: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays of another process by name, mapped into the memory of this process.
    ``description`` is the result of :meth:`Table.describe_location` in the other process. Raise
    OSError if that process has ended."""
    return {
        n: map_vector(shared).reshape(shared["shape"])
        for n, shared in description["arrays"].items()
    }


def table(spec: Spec, program: Program, declared: Declared, file: Path | None) -> Table:
    """Return the data that a model is trained on: the arrays in ``file``, or, if it is None, the
    data that the spec declares.

    Raises:
        UsageError: the file or data set is missing, or an array is missing or does not fit the
            model.
        FileFault: the file cannot be read.
    """
    name: str
    if isinstance(declared, schema.DataSet) and file is None:
        name, arrays_found = declared.set, data_set(declared.set)
    else:
        path = file or _data_path(spec, declared)
        name, content = displayed(path), read_bytes(path, MAX_TABLE, "a file of arrays")
        try:
            arrays_found = read_npz(content, MAX_TABLE)
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
    arrays, sizes = _match_ports(name, program, declared, arrays_found)
    return Table(
        name,
        digest_of(arrays),
        sizes.pop("batch"),
        sizes,
        {name: Shared([array.reshape(-1)]) for name, array in arrays.items()},
        {name: array.shape for name, array in arrays.items()},
    )


def _data_path(spec: Spec, declared: Declared) -> Path:
    """Return the path of the data file that a spec names (``data: npz:``). The file must be in the
    spec's folder."""
    assert isinstance(declared, schema.ArrayFile)
    name = declared.npz
    at = spec.document.place_of(("data", "npz"))
    if Path(name).name != name:
        raise UsageError(
            f"{at}: npz must be the name of a file in the spec's folder, found {name!r}; for a "
            f"file elsewhere, {INSTEAD}"
        )
    folder = spec.definition.path
    path = folder.parent / name if isinstance(folder, Path) else None
    if path is None or not path.exists():
        raise UsageError(f"{at}: there is no {name} in the spec's folder; {INSTEAD}")
    return path


def _match_ports(
    file: str, program: Program, declared: Declared, found_arrays: Arrays
) -> tuple[dict[str, Array], dict[str, int]]:
    """Return two dictionaries: from each input and target of the model (e.g. ``input.x``) to its
    array, and from each size of the spec that the arrays determine to its value.

    ``found_arrays`` are the arrays of ``file``; ``declared`` says which array belongs to which
    input or target.
    """
    inputs = [port for port in program.inputs if port not in noise_ports(program)]
    arrays: dict[str, Array] = {}
    sizes: dict[str, int] = {}
    for group, ports in (("input", inputs), ("target", program.targets)):
        for port in ports:
            source = declared.arrays.get(port.name, port.name)
            if source not in found_arrays:
                raise UsageError(
                    f"{file}: there is no array {source!r} for the {group} {port.name!r}"
                    f"{did_you_mean(source, found_arrays)} (found: "
                    f"{', '.join(found_arrays) or 'none'}); name another under 'data: arrays:'"
                )
            arrays[f"{group}.{port.name}"] = _check_array(
                file, program, port, found_arrays[source], sizes
            )
    for group, ports in (("input", inputs), ("target", program.targets)):
        for port in ports:
            name = f"{group}.{port.name}"
            check_entries(program, port, f"{file}: {name}", arrays[name], sizes)
    if "batch" not in sizes:
        raise UsageError(f"{program.name} has no input or target with a batch axis")
    return arrays, sizes


def _check_array(
    file: str, program: Program, port: Port, array: Array, sizes: dict[str, int]
) -> Array:
    type_, name = program.type_of(port), f"{file}: {port.name}"
    if any("batch" in dim.names for dim in type_.shape[has_rows(type_) :]):
        raise UsageError(f"{name}: its first axis is not 'batch', so it has no rows")
    try:
        bind(name, type_.shape, array.shape, program.sizes, sizes)
    except UsageError as error:
        has_free_sizes = any(dim.names for dim in type_.shape[1:])
        raise UsageError(f"{error}{'; --size sets other sizes' * has_free_sizes}") from None
    if type_.kind == "float":
        if array.dtype.kind not in "fiu":
            raise UsageError(f"{name}: expected numbers, found {array.dtype}")
        if not np.isfinite(array).all():
            raise UsageError(f"{name}: some entries are NaN or infinite")
        return array if array.dtype.itemsize <= 4 else array.astype(np.float64)
    if (type_.kind == "bool") != (array.dtype.kind == "b") or array.dtype.kind not in "iub":
        expected = "booleans" if type_.kind == "bool" else "integers"
        raise UsageError(f"{name}: expected {expected}, found {array.dtype}")
    return array


def has_rows(type_: Type) -> bool:
    """Return whether an array of this type has a row axis. Without a row axis, all rows share the
    array (e.g. graph edges)."""
    return type_.shape[:1] == (BATCH,)


class TableFeed(RowFeed):
    """Batches from arrays ``[rows, ...]``, whose names are e.g. ``input.x`` and ``target.y``.

    Raise :class:`UsageError` if there are too few rows for a batch.
    """

    def __init__(
        self, program: Program, batch_recipe: Recipe, arrays: Arrays, dtype: str, seed: int
    ) -> None:
        sizes: dict[str, int] = {}
        ports = {f"input.{p.name}": p for p in program.inputs}
        ports |= {f"target.{p.name}": p for p in program.targets}
        row_arrays: dict[str, RowArray] = {}
        for name, array in arrays.items():
            type_ = program.type_of(ports[name])
            bind(name, type_.shape, array.shape, program.sizes, sizes)
            kind = WHOLE.get(type_.kind, np.dtype(host_dtype(dtype)))
            row_arrays[name] = RowArray(array, kind, shared=not has_rows(type_))
        super().__init__(
            program, batch_recipe, sizes["batch"], sizes.get("time", 1), dtype, seed, row_arrays
        )
