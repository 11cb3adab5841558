"""Types of the arguments and answers of calls to a worker.

Arguments are arrays by name. The return annotations of a worker's methods are the types of its
answers, and the parent process validates each answer against them with pydantic
(:mod:`harness.worker.answers`). Workers import this module too, but do not validate, so it must not
import pydantic at the top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired

import numpy as np
from typing_extensions import TypedDict  # before Python 3.12 pydantic accepts no other

from harness.arrays import Array, ArrayDict
from harness.errors import shorten


@dataclass(frozen=True)
class Arguments:
    """The arrays with which a model runs: five dictionaries from name to array, e.g.
    ``parameters["rnn.W"]``.

    Floats are float64 numbers that float32 represents exactly. Indices are int64.
    """

    parameters: ArrayDict
    statistics: ArrayDict
    inputs: ArrayDict
    state: ArrayDict
    targets: ArrayDict

    def with_batch(self, other: Arguments) -> Arguments:
        """Return a copy with the parameters and statistics of this object and the inputs, state and
        targets of ``other``."""
        return replace(self, inputs=other.inputs, state=other.state, targets=other.targets)


# The dtype kinds that can be compared: bool, signed and unsigned integers, and floats.
NUMBERS = "biuf"
# The dtypes in which backends get indices and booleans.
WHOLE: Mapping[str, Any] = {"index": np.int64, "bool": np.bool_}


class IllFormed(Exception):
    """Error: a worker's answer has a wrong type or shape; the message says what is wrong."""


@dataclass(frozen=True)
class Misfit:
    """A value in a worker's answer that should be an array of numbers, but is not; ``reason`` says
    why."""

    reason: str


def tensor(value: Any) -> Array | Misfit:
    """Return ``value`` if it is an array of numbers, otherwise a :class:`Misfit`, which says why it
    is not."""
    if value is None:
        return Misfit("nothing was returned")
    if isinstance(value, Misfit):
        return value
    if not isinstance(value, np.ndarray | np.generic):
        return Misfit(f"expected an array, found {type(value).__name__}")
    if value.dtype.kind not in NUMBERS:
        return Misfit(f"expected an array of numbers, found dtype {value.dtype}")
    return np.asarray(value)


def check_all_arrays(tensors: Mapping[str, Array | Misfit]) -> dict[str, Array]:
    """Return a worker's results if all of them are arrays.

    Raises:
        IllFormed: a result is a :class:`Misfit`, i.e. not an array; the message names it.
    """
    arrays: dict[str, Array] = {}
    for name, value in tensors.items():
        if isinstance(value, Misfit):
            raise IllFormed(f"{name}: {value.reason}")
        arrays[name] = value
    return arrays


@dataclass(frozen=True)
class ConvertedBy:
    """A pydantic annotation for a field whose value is checked by the function ``convert``.

    ``convert`` returns the value, or raises ValueError if the value is not allowed.
    """

    convert: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import PlainValidator

        return PlainValidator(self.convert).__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True)
class Length:
    """A pydantic annotation for a list of exactly ``count`` entries."""

    count: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import AfterValidator

        def check(entries: list[Any]) -> list[Any]:
            if len(entries) != self.count:
                raise ValueError(f"expected {self.count} entries, found {len(entries)}")
            return entries

        return AfterValidator(check).__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True)
class EqualLength:
    """An annotation for an answer with a list that must be as long as an argument of the call says,
    e.g. one entry per step.

    ``argument`` names this argument: it is the length itself, or a list of the same length.
    ``within`` names the field of the answer that holds the list; if it is empty, the answer itself
    is the list.
    """

    argument: str
    within: str = ""


def short_text(value: Any) -> str:
    """Return ``value`` as text for an error message; a long text is cut."""
    return shorten(repr(value), 80)


def array_of_numbers(value: Any) -> Array:
    """Return an array of numbers unchanged; raise ValueError for any other value."""
    array = tensor(value)
    if isinstance(array, Misfit):
        raise ValueError(array.reason)
    return array


def _entry(value: Any) -> tuple[str, int | None, Array | Misfit]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"expected a name, a time step and a value, found {short_text(value)}")
    name, step, found = value
    if not isinstance(name, str) or not (step is None or type(step) is int):
        raise ValueError(f"expected a name and a time step, found {short_text(value[:2])}")
    return name, step, tensor(found)


def _seconds(value: Any) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"expected a finite number of at least 0, found {short_text(value)}")
    return float(value)


def _whole_number_from(least: int) -> ConvertedBy:
    def whole_number(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError(
                f"expected a whole number of at least {least}, found {short_text(value)}"
            )
        return value

    return ConvertedBy(whole_number)


Tensors = dict[str, Annotated[Any, ConvertedBy(tensor)]]
"""Arrays by name; an invalid array is a :class:`.Misfit`, so that only this entry is wrong."""
Arrays = dict[str, Annotated[Any, ConvertedBy(array_of_numbers)]]
Traced = Annotated[Any, ConvertedBy(_entry)]
Texts = dict[str, str]
Seconds = Annotated[float, ConvertedBy(_seconds)]
Count = Annotated[int, _whole_number_from(1)]
Bytes = Annotated[int, _whole_number_from(0)]


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
    refuses: NotRequired[dict[str, list[str]]]
    compiles: NotRequired[list[str]]
    environment: Texts
    doubts: NotRequired[list[str]]


class Paths(TypedDict):
    paths: Texts


class OpenAnswer(Paths):
    denormals: NotRequired[bool]
    repeats: NotRequired[bool]
    automatic: NotRequired[bool]


class ModelValues(TypedDict):
    parameters: Tensors
    statistics: Tensors
    slots: dict[str, Tensors]


class StepAnswer(ModelValues):
    results: Tensors


class Gradients(TypedDict):
    results: Tensors
    gradients: Tensors


class ProbeAnswer(TypedDict):
    tried: int
    faults: list[str]
    traceback: str


class Prepared(Paths):
    seconds: Seconds
    many: NotRequired[Count]
    settings: NotRequired[Texts]


class ModelArrays(TypedDict):
    parameters: Arrays
    statistics: Arrays
    slots: dict[str, Arrays]


class TrainingAnswer(ModelValues):
    total: float
    later: list[ModelValues]


class PipelineValues(ModelArrays):
    others: Arrays


class MemoryAnswer(TypedDict):
    resident: Bytes | None
    device: Bytes | None


class Peaks(TypedDict):
    products: list[Seconds]
    bandwidth: Seconds


class Beginning(Paths):
    settings: Texts


class Snapshot(ModelArrays):
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


class RecordedCall(TypedDict):
    """A call of a module (e.g. a torch.nn.Module) during a pass of a user's model.

    The starts and ends of all calls are numbered in the order in which they happen; ``start`` and
    ``end`` are the two numbers of this call. ``end`` is -1 if the call raised an exception.
    ``inputs`` and ``outputs`` are names of arrays.
    """

    module: str
    start: int
    end: int
    inputs: list[str]
    outputs: list[str]


class RecordedModules(TypedDict):
    arrays: Arrays
    calls: list[RecordedCall]
    weights: dict[str, list[str]]
    named: Texts
