"""The header of a file of weights, every field of it: what a file says of itself is not believed.

A checksum tells that a file is as it was written, and nothing of who wrote it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, JsonValue, ValidationError
from safetensors import SafetensorError

from harness.errors import UsageError, shorten
from harness.files import kinds
from harness.files.user_file import MAX_HEADER
from harness.text.vocabulary import Vocabulary

# What the header calls a file of each kind.
FORMATS = {
    kinds.WEIGHTS: "backend-comparison-harness weights 1",
    kinds.CHECKPOINT: "backend-comparison-harness checkpoint 1",
}
# Where the checksum is, and what stands there while it is made.
DIGEST = slice(8 + len(kinds.OPENING), 8 + len(kinds.OPENING) + 64)
ZEROS = "0" * 64
# What writing or reading what makes no sense, or does not fit, can raise.
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
# Tensors have no more axes in numpy, and more numbers along one fit into no memory.
Axes = Annotated[tuple[Annotated[int, Field(ge=0, le=2**48)], ...], Field(max_length=64)]


class HeaderPart(BaseModel):
    """Unknown keys are errors, types are not converted, text is valid Unicode."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class TensorHeader(HeaderPart):
    """Where the numbers of a tensor are; whether they are there is for safetensors to check."""

    dtype: Literal["F32", "F64"]
    shape: Axes
    data_offsets: tuple[int, int]


class Metadata(HeaderPart):
    """The header in Python's types; see :class:`harness.convert.weights.Weights`."""

    sha256: str
    format: Name
    spec: Name
    fingerprint: Hex
    sizes: Json[dict[Name, Size]]
    statistics: Json[tuple[Name, ...]]
    vocabulary: Json[Characters]
    history: Json[dict[str, JsonValue]]


class Header(BaseModel):
    """All of it: the metadata, and the tensors by name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    __pydantic_extra__: dict[str, TensorHeader]

    metadata: Metadata = Field(alias="__metadata__")

    @property
    def tensors(self) -> dict[str, TensorHeader]:
        """By name."""
        return self.__pydantic_extra__


def parse(text: bytes | memoryview) -> Header:
    """The header that a text is.

    Raises:
        ValueError: it is too long or no header; pydantic's is one too.
    """
    if len(text) > MAX_HEADER:
        raise ValueError(f"its header has {len(text):,} bytes; at most {MAX_HEADER:,} are allowed")
    header = Header.model_validate_json(bytes(text))
    unknown = [n for n in header.metadata.statistics if n not in header.tensors]
    if unknown:
        raise ValueError(f"the statistic {unknown[0]!r} is not among its tensors")
    return header


def split(data: memoryview) -> tuple[dict[str, Any], int]:
    """The header of what safetensors has written, and where the bytes of the tensors begin."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(bytes(data[8:end])), end


def digest(*parts: bytes | bytearray | memoryview) -> str:
    """The sha256 (hex) of parts of a file, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def reason_of(error: Exception) -> str:
    """Why, of what :data:`MALFORMED` lists."""
    if isinstance(error, ValidationError):
        return told(error)
    return "there is not enough memory" if isinstance(error, MemoryError) else str(error)


def told(error: ValidationError) -> str:
    """The first thing that is wrong, on one line: where, what is wanted, and what was found."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part != "__metadata__")
    found, message = first.get("input"), first["msg"].removeprefix("Value error, ")
    if isinstance(found, str | int | float | None):
        message += f", found {shorten(repr(found)[:200])}"
    return f"{shorten(ascii(place)[1:-1], 100)}: {message}" if place else message
