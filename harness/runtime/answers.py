"""The types of what a worker answers: the return annotations of the services that it runs.

The parent validates each answer against the annotation of the verb's method
(:mod:`harness.worker.answers`). Workers import this module too, so it does not import pydantic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict  # before Python 3.12 pydantic accepts no other

from harness.arrays import Array
from harness.errors import shorten
from harness.runtime.tensors import Misfit, tensor


@dataclass(frozen=True)
class Converted:
    """Convert a value with ``convert``, which raises ValueError for a value that is not allowed."""

    convert: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import PlainValidator

        return PlainValidator(self.convert).__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True)
class Length:
    """A list of ``count`` entries."""

    count: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import AfterValidator

        def check(entries: list[Any]) -> list[Any]:
            if len(entries) != self.count:
                raise ValueError(f"expected {self.count} entries, found {len(entries)}")
            return entries

        return AfterValidator(check).__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True)
class Counted:
    """An answer has a list, in its field ``within`` or by itself, with as many entries as the
    argument named ``argument`` says, or has."""

    argument: str
    within: str = ""


def shown(value: Any) -> str:
    """Return a short text of a value for an error."""
    return shorten(repr(value), 80)


def _array(value: Any) -> Array:
    found = tensor(value)
    if isinstance(found, Misfit):
        raise ValueError(found.reason)
    return found


def _entry(value: Any) -> tuple[str, int | None, Array | Misfit]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"expected a name, a time step and a value, found {shown(value)}")
    name, step, found = value
    if not isinstance(name, str) or not (step is None or type(step) is int):
        raise ValueError(f"expected a name and a time step, found {shown(value[:2])}")
    return name, step, tensor(found)


def _seconds(value: Any) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"expected a finite number of at least 0, found {shown(value)}")
    return float(value)


def _at_least(least: int) -> Converted:
    def whole_number(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError(f"expected a whole number of at least {least}, found {shown(value)}")
        return value

    return Converted(whole_number)


Tensors = dict[str, Annotated[Any, Converted(tensor)]]
"""Arrays, each of which may be a :class:`.Misfit` instead: it alone differs."""
Arrays = dict[str, Annotated[Any, Converted(_array)]]
Traced = Annotated[Any, Converted(_entry)]
Texts = dict[str, str]
Seconds = Annotated[float, Converted(_seconds)]
Count = Annotated[int, _at_least(1)]
Bytes = Annotated[int, _at_least(0)]


class Greeting(TypedDict):
    backend: str
    pid: int
    python: str
    code: NotRequired[str]
    harness: NotRequired[str]
    versions: Texts
    devices: list[str]
    dtypes: list[str]
    primitives: NotRequired[list[str]]
    lacks: NotRequired[dict[str, list[str]]]
    compiles: NotRequired[list[str]]
    environment: Texts
    doubts: NotRequired[list[str]]


class Paths(TypedDict):
    paths: Texts


class Opened(Paths):
    denormals: NotRequired[bool]
    repeats: NotRequired[bool]
    automatic: NotRequired[bool]


class Kept(TypedDict):
    parameters: Tensors
    statistics: Tensors
    slots: dict[str, Tensors]


class Stepped(Kept):
    results: Tensors


class Gradients(TypedDict):
    results: Tensors
    gradients: Tensors


class Probed(TypedDict):
    tried: int
    faults: list[str]
    traceback: str


class Prepared(Paths):
    seconds: Seconds
    many: NotRequired[Count]
    settings: NotRequired[Texts]


class Changed(TypedDict):
    parameters: Arrays
    statistics: Arrays
    slots: dict[str, Arrays]


class Descended(Kept):
    total: float
    later: list[Kept]


class Carried(Changed):
    others: Arrays


class MemoryAnswer(TypedDict):
    resident: Bytes | None
    device: Bytes | None


class Peaks(TypedDict):
    products: list[Seconds]
    bandwidth: Seconds


class Beginning(Paths):
    settings: Texts


class Snapshot(Changed):
    state: Arrays
    scaling: Arrays
    steps: Bytes


class ReadWeights(TypedDict):
    parameters: Arrays
    statistics: Arrays


class Scripted(TypedDict):
    module: str
    source: str
    gradients: Arrays
    layers: list[str]


class MeasuredAnswer(TypedDict):
    value: NotRequired[bool | int | float | str]
    error: NotRequired[str]


class DescribedModel(TypedDict):
    sizes: list[str]


class AttachedModel(TypedDict):
    label: str
    weights: Texts
    kept: list[str]
    takes: list[str]
    differentiates: bool
    trains: bool
