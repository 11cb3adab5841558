"""Weights as safetensors files, with metadata that identify their model.

The tensors have the same names for all frameworks (``rnn.W``). The header's metadata are strings.
``format``, ``spec`` and ``fingerprint`` (a checksum of the spec) are plain text; ``sizes``,
``statistics`` (the names of the tensors that are moving statistics), ``vocabulary`` and ``history``
are JSON. ``sha256`` comes first, because safetensors itself does not detect a flipped bit. It is
the checksum of the whole file, computed with zeros in place of the checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from harness.arrays import Array, ArrayDict
from harness.convert.archive import EXTENSIONS, FLOATS, INTEGERS
from harness.errors import HarnessError, SpecError, UsageError, did_you_mean, shorten
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.kinds import OPENING, FileKind
from harness.files.user_file import (
    MAX_HEADER,
    MAX_WEIGHTS,
    FileFault,
    check_regular,
    displayed,
    read_head,
    read_pieces,
    why,
)
from harness.language.model import fingerprint
from harness.text.vocabulary import Vocabulary

# The header of a file of weights. Every field is validated, because the file is untrusted: the
# checksum proves that the file is undamaged, but not who wrote it.

# The field ``format`` of the header, by kind of file.
FORMATS = {
    kinds.WEIGHTS: "backend-comparison-harness weights 1",
    kinds.CHECKPOINT: "backend-comparison-harness checkpoint 1",
}
# The position of the checksum in the file, and the text in its place while it is computed.
DIGEST = slice(8 + len(kinds.OPENING), 8 + len(kinds.OPENING) + 64)
ZEROS = "0" * 64
# The exceptions raised when malformed weights are written or read.
MALFORMED = (
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
    MemoryError,
)

Character = Annotated[str, Field(min_length=1, max_length=1)]


def _in_order(characters: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return Vocabulary(characters).characters if characters else ()
    except UsageError as error:
        raise ValueError(str(error)) from None


Characters = Annotated[tuple[Character, ...], AfterValidator(_in_order)]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Name = Annotated[str, Field(max_length=1000)]
Hex = Annotated[str, Field(max_length=64)]
# The maximum number of axes in numpy, and an axis length that exceeds any memory.
Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2**48)], ...], Field(max_length=64)]


class HeaderPart(BaseModel):
    """Base class of the header's pydantic models. They are strict: unknown keys are errors, types
    are not converted, and text must be valid Unicode."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class TensorHeader(HeaderPart):
    """The dtype, shape and position of a tensor in the file. safetensors checks that the position
    is inside the file."""

    dtype: Literal["F32", "F64", "I64"]
    shape: Axes
    data_offsets: tuple[int, int]


class Metadata(HeaderPart):
    """The metadata in the header of a file of weights. The fields are those of :class:`Weights`,
    and the checksum."""

    sha256: str
    format: Name
    spec: Name
    fingerprint: Hex
    sizes: Json[dict[Name, Size]]
    statistics: Json[tuple[Name, ...]]
    vocabulary: Json[Characters]
    history: Json[dict[str, JsonValue]]


class Header(BaseModel):
    """The whole header of a file of weights: the metadata, and the dtype, shape and position of
    each tensor."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    __pydantic_extra__: dict[str, TensorHeader]

    metadata: Metadata = Field(alias="__metadata__")

    @property
    def tensors(self) -> dict[str, TensorHeader]:
        """The dtype, shape and position of each tensor, by name."""
        return self.__pydantic_extra__


def parse(text: bytes | memoryview) -> Header:
    """Parse and validate the header of a file of weights.

    Raises:
        ValueError: the header is too long or malformed; pydantic's error is a ValueError too.
    """
    check_length(len(text))
    header = Header.model_validate_json(bytes(text))
    unknown = [n for n in header.metadata.statistics if n not in header.tensors]
    if unknown:
        raise ValueError(f"it has no tensor for the statistic {unknown[0]!r}")
    trained = header.tensors.keys() - set(header.metadata.statistics)
    integers = sorted(name for name in trained if header.tensors[name].dtype == "I64")
    if integers:
        raise ValueError(f"the parameter {integers[0]!r} is I64; parameters are F32 or F64")
    return header


def check_length(size: int) -> None:
    """Raise ValueError if a header of ``size`` bytes is too long."""
    if size > MAX_HEADER:
        raise ValueError(f"its header has {size:,} bytes; at most {MAX_HEADER:,} are allowed")


def split(data: memoryview) -> tuple[dict[str, Any], int]:
    """Split a file that safetensors has written. Return two things: its header, and the offset at
    which the bytes of the tensors begin."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(bytes(data[8:end])), end


def digest(parts: Iterable[bytes | bytearray | memoryview]) -> str:
    """Return the sha256 checksum (hexadecimal) of a file whose contents are the concatenated
    ``parts``."""
    hash_ = hashlib.sha256()
    for part in parts:
        hash_.update(part)
    return hash_.hexdigest()


def reason_of(error: Exception) -> str:
    """Return the text of an error that a malformed file has caused. The type of the error is in
    :data:`MALFORMED`."""
    if isinstance(error, ValidationError):
        return describe_error(error)
    return "there is not enough memory" if isinstance(error, MemoryError) else str(error)


def describe_error(error: ValidationError) -> str:
    """Describe the first validation error on one line: place, expected value and value found."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part != "__metadata__")
    value, message = first.get("input"), first["msg"].removeprefix("Value error, ")
    if isinstance(value, str | int | float | None):
        message += f", found {shorten(repr(value)[:200])}"
    return f"{shorten(ascii(place)[1:-1], 100)}: {message}" if place else message


if TYPE_CHECKING:
    from harness.language.model import Spec


GIVE = "give a file that 'harness train' or 'harness import' wrote"


class WeightsError(HarnessError):
    """Error: weights cannot be read or written, or belong to a different model."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The arrays of a trained model, and everything needed to run the model.

    ``sizes`` has the sizes of the program by name, e.g. ``hidden``. ``fingerprint`` is a checksum
    of the spec. ``parameters`` and ``statistics`` map names in the spec, e.g. ``rnn.W``, to float32
    or float64 arrays. ``vocabulary`` has the characters by index. ``history`` is JSON data about
    the origin of the weights.
    """

    spec: str
    fingerprint: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, Array]
    statistics: Mapping[str, Array]
    vocabulary: tuple[str, ...] = ()
    history: Mapping[str, Any] = field(default_factory=dict)


def save(path: str | Path, weights: Weights, kind: FileKind = kinds.WEIGHTS) -> None:
    """Write weights atomically; the same weights give the same bytes.

    ``kind`` is the kind of file: weights, or a checkpoint. A file of another kind is not replaced.

    Raises:
        WeightsError: the file cannot be written, or the format cannot store these weights.
    """
    header, tensors = _content(weights, kind)
    try:
        kinds.check_kind(Path(path), kind)
        write_whole(Path(path), header, tensors)
    except (OSError, FileFault) as error:
        raise WeightsError(f"cannot write the weights {displayed(path)!r}: {why(error)}") from None


def load(path: str | Path, kind: FileKind = kinds.WEIGHTS) -> Weights:
    """Read weights or a checkpoint; the arrays are C-contiguous and writable.

    Raises:
        WeightsError: the file cannot be read, is of another kind, or is damaged.
    """
    name = displayed(path)
    try:
        # Read only the start first, because a file of another kind may be large.
        head = read_head(path, kinds.HEAD)
        _check_start(name, Path(path), head, kind)
        _check_bytes(name, Path(path), read_pieces(path, MAX_WEIGHTS, kind.name))
    except FileFault as error:
        raise WeightsError(f"cannot read the weights {name!r}: {error.reason}; {GIVE}") from None
    try:
        return _weights(Path(path), int.from_bytes(head[:8], "little"), FORMATS[kind])
    except MALFORMED as error:
        reason = reason_of(error)
        raise WeightsError(f"{name!r} is not a valid weights file: {reason}; {GIVE}") from None


def read_digest(path: str | Path) -> str:
    """Return the checksum in the header of a file of weights, by which files can be compared:
    different weights have different checksums.

    Raises:
        FileFault: the file cannot be read.
    """
    return read_head(path, DIGEST.stop)[DIGEST].decode("ascii", "replace")


def check(weights: Weights, spec: Spec) -> None:
    """Check that weights fit a spec (at the sizes of the weights) and are finite.

    Raises:
        WeightsError: the weights belong to another model or another version of this model (the
            message lists all differences), or are not finite.
    """
    if weights.spec != spec.name:
        raise WeightsError(
            f"these are weights of {weights.spec!r}, not of {spec.name!r}; "
            f"name the right model, or create weights with 'harness train {spec.name}'"
        )
    problems = list(_differences(weights, spec))
    now = fingerprint(spec)
    if weights.fingerprint != now:
        problems.insert(
            0,
            f"its equations, layers, loss or optimizer have changed since (the fingerprint was "
            f"{weights.fingerprint[:12]}, now it is {now[:12]})",
        )
    if problems:
        raise WeightsError(
            f"the weights do not fit {spec.name}: {'; '.join(problems)}. Use the spec of these "
            f"weights, or create new weights with 'harness train {spec.name}'"
        )
    bad_array = not_finite({**weights.parameters, **weights.statistics})
    if bad_array is not None:
        array = {**weights.parameters, **weights.statistics}[bad_array]
        count = int(np.count_nonzero(~np.isfinite(array)))
        verb = "is" if count == 1 else "are"
        raise WeightsError(
            f"{count:,} of the {array.size:,} numbers of {bad_array} {verb} NaN or infinite, so "
            f"these weights of {spec.name} cannot be used; use weights from before the training "
            "diverged"
        )


def not_finite(arrays: Mapping[str, Array]) -> str | None:
    """Return the name of the first array that contains NaN or infinity, or None."""
    return next((name for name, a in arrays.items() if not np.isfinite(a).all()), None)


def _differences(weights: Weights, spec: Spec) -> Iterator[str]:
    sizes = spec.programs["training"].sizes
    missing = [name for name in sizes if name not in weights.sizes]
    if missing:
        yield f"they do not have the size {', '.join(missing)}"
        return
    try:
        program = spec.program("training", **weights.sizes)
    except SpecError as error:
        yield error.message
        return
    for kind, ports, arrays in (
        ("parameter", program.parameters, weights.parameters),
        ("statistic", program.statistics, weights.statistics),
    ):
        shapes = {port.name: program.shape(port) for port in ports}
        for name, shape in shapes.items():
            if name not in arrays:
                yield f"{kind} {name!r} is missing"
            elif arrays[name].shape != shape:
                yield (
                    f"{kind} {name!r} has shape {list(arrays[name].shape)}, expected "
                    f"{list(shape)} at {', '.join(f'{n}={v}' for n, v in weights.sizes.items())}"
                )
        for name in arrays:
            if name not in shapes:
                yield f"{kind} {name!r} is unknown{did_you_mean(name, shapes)}"


def _content(weights: Weights, kind: FileKind) -> tuple[bytes, memoryview]:
    """Return the two sections of a file of weights: the header (preceded by its length), and the
    bytes of the tensors."""
    duplicates = sorted(set(weights.parameters) & set(weights.statistics))
    if duplicates:
        raise WeightsError(f"{duplicates[0]!r} is both a parameter and a statistic")
    arrays = {**weights.parameters, **weights.statistics}
    try:
        metadata = {
            "sha256": ZEROS,
            "format": FORMATS[kind],
            "spec": weights.spec,
            "fingerprint": weights.fingerprint,
            "sizes": json.dumps(dict(sorted(weights.sizes.items()))),
            "statistics": json.dumps(sorted(weights.statistics)),
            "vocabulary": json.dumps(weights.vocabulary),
            "history": json.dumps(dict(weights.history)),
        }
        data = memoryview(
            to_safetensors({n: _plain(n, a, n in weights.statistics) for n, a in arrays.items()})
        )
        tensors, end = split(data)
        # safetensors writes metadata in random order, so the bytes would differ each time.
        text = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        # Check that the harness can read the header again.
        parse(text)
        if len(text) + len(data) > MAX_WEIGHTS:
            raise ValueError(f"{len(data):,} bytes are too many; at most {MAX_WEIGHTS:,} are read")
    except MALFORMED as error:
        raise WeightsError(
            f"weights of {weights.spec!r} cannot be written: {reason_of(error)}"
        ) from None
    header = bytearray(len(text).to_bytes(8, "little") + text)
    header[DIGEST] = digest((header, data[end:])).encode()
    return bytes(header), data[end:]


def _plain(name: str, array: Array, constant: bool) -> Array:
    """Return the array in C order, because safetensors stores other orders wrongly. A constant (an
    array that is not trained) may also hold integers."""
    values = np.asarray(array)
    kinds = ("f4", "f8", "i8") if constant else ("f4", "f8")
    if values.dtype.str[1:] not in kinds:
        raise WeightsError(f"{name!r} is {values.dtype}; weights are float32 or float64")
    if name == "__metadata__":
        raise WeightsError(f"no array can be named {name!r} in a safetensors file")
    # ``ascontiguousarray`` would change the shape [] to [1].
    return np.asarray(values, order="C")


def _check_start(name: str, path: Path, head: bytes, kind: FileKind) -> None:
    if head[8 : DIGEST.start] != OPENING:
        problem = "it is empty" if not head else "its first bytes are wrong"
        raise WeightsError(f"{name!r} is not a file of weights, or is damaged: {problem}; {GIVE}")
    other_kind = next((k for k in FORMATS if k is not kind and k.matches(path, head)), None)
    if other_kind is not None:
        raise WeightsError(f"{name!r} is {other_kind.name}, not {kind.name}; {GIVE}")


def _check_bytes(name: str, path: Path, pieces: Iterator[bytes]) -> None:
    first = next(pieces)
    stated = first[DIGEST].decode("ascii", "replace")
    actual = digest(chain((first[: DIGEST.start], ZEROS.encode(), first[DIGEST.stop :]), pieces))
    if stated != actual:
        raise WeightsError(
            f"the weights {name!r} are damaged or cut off: {path.stat().st_size:,} bytes with "
            f"sha256 {actual}, but the header says {stated}; use another copy, or {GIVE}"
        )


def _arrays(path: Path) -> ArrayDict:
    """Read all tensors of a file. The file is mapped into memory, so its bytes are not there twice.

    Raises:
        WeightsError: numpy does not have the dtype of a tensor.
        Exception: of a type in :data:`MALFORMED`; the content is malformed.
    """
    arrays: ArrayDict = {}
    with safe_open(path, "numpy") as file:
        for name in file.keys():  # noqa: SIM118 (a file has no iterator)
            dtype = str(file.get_slice(name).get_dtype())
            if dtype.startswith(EXTENSIONS):
                raise _wrong_dtype(displayed(path), name, dtype)
            arrays[name] = file.get_tensor(name)
    return arrays


def _weights(path: Path, size: int, wanted: str) -> Weights:
    """Make the weights from a file whose checksum is right. ``size`` is the number of bytes of its
    header, and ``wanted`` the expected format. If the content is malformed, raise an error of a
    type in :data:`MALFORMED`."""
    check_length(size)
    metadata = parse(read_head(path, 8 + size)[8:]).metadata
    if metadata.format != wanted:
        raise ValueError(f"the format is {metadata.format!r}, but only {wanted!r} is supported")
    arrays, statistic_names = _arrays(path), set(metadata.statistics)
    return Weights(
        metadata.spec,
        metadata.fingerprint,
        dict(metadata.sizes),
        {name: array for name, array in arrays.items() if name not in statistic_names},
        {name: arrays[name] for name in metadata.statistics},
        metadata.vocabulary,
        dict(metadata.history),
    )


# Parameters in a safetensors file of any other program: arrays by the names of the spec.
#
# Such a file has no checksum, and does not contain the name or the sizes of the model. So the
# arrays are compared with the spec by name and shape.

# The start of a header without metadata: the name of an array, or the end of an empty header.
STARTS = (b'{"', b"{}")


def is_plain(path: str | Path) -> bool:
    """Return whether a file looks like a safetensors file that was not written by the harness."""
    try:
        head = read_head(path, 8 + len(OPENING))
    except FileFault:
        return False  # the reader reports why
    return head[8:10] in STARTS and head[8:] != OPENING


def load_plain(path: str | Path, integers: Container[str] | None = ()) -> ArrayDict:
    """Read a safetensors file that was not written by the harness. Return a dictionary from name to
    array. Arrays with names in ``integers`` hold integers; all others are float32 or float64. With
    None, arrays may have any dtype of numpy.

    Raises:
        WeightsError: the file cannot be read, is damaged, or has other content.
    """
    name = displayed(path)
    try:
        check_regular(path, MAX_WEIGHTS, "weights")
        header = int.from_bytes(read_head(path, 8), "little")
    except FileFault as error:
        raise WeightsError(f"cannot read the weights {name!r}: {error.reason}") from None
    if header > MAX_HEADER:
        raise WeightsError(
            f"{name!r}: a header of {header:,} bytes; at most {MAX_HEADER:,} are read"
        )
    try:
        arrays = _arrays(Path(path))
    except MALFORMED as error:
        raise WeightsError(f"{name!r} contains no weights: {shorten(reason_of(error))}") from None
    for tensor, array in arrays.items():
        allowed = INTEGERS if integers and tensor in integers else FLOATS
        if integers is not None and str(array.dtype) not in allowed:
            raise _wrong_dtype(name, tensor, str(array.dtype))
    return arrays


def _wrong_dtype(name: str, tensor: str, dtype: str) -> WeightsError:
    return WeightsError(
        f"{name!r}: {shorten(tensor)} is {dtype}; allowed are {' and '.join(FLOATS)}"
    )
