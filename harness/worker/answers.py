"""The answers of workers, in the forms that the parent relies on: the border of the parent.

A worker holds foreign code, so that nothing of what it sends is taken on trust. Each verb has a
form; an answer of another form is an error of that call, never an exception of the parent. A result
that is no array of numbers is a :class:`~harness.runtime.tensors.Misfit`: it alone differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic brings it, and takes no other before Python 3.12

from harness.arrays import Array
from harness.errors import shorten
from harness.runtime.tensors import IllFormed, Misfit, tensor


def _strict(value: Any) -> Array:
    found = tensor(value)
    if isinstance(found, Misfit):
        raise ValueError(found.reason)
    return found


def _entry(value: Any) -> tuple[str, int | None, Array | Misfit]:
    """One value of a trace: its name, its time step in a loop, and what it is."""
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"expected a name, a time step and a value, found {_shown(value)}")
    name, step, found = value
    if not isinstance(name, str) or not (step is None or type(step) is int):
        raise ValueError(f"expected a name and a time step, found {_shown(value[:2])}")
    return name, step, tensor(found)


def _shown(value: Any) -> str:
    return shorten(repr(value), 80)


Tensors = dict[str, Annotated[Any, PlainValidator(tensor)]]
Arrays = dict[str, Annotated[Any, PlainValidator(_strict)]]
Texts = dict[str, str]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=0)]
# Fields beyond these are left out: another version may have more to say.
FORM = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True)


@with_config(FORM)
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


@with_config(FORM)
class Paths(TypedDict):
    paths: Texts


@with_config(FORM)
class Opened(Paths):
    denormals: NotRequired[bool]
    repeats: NotRequired[bool]
    automatic: NotRequired[bool]


@with_config(FORM)
class Kept(TypedDict):
    parameters: Tensors
    statistics: Tensors
    slots: dict[str, Tensors]


@with_config(FORM)
class Stepped(Kept):
    results: Tensors


@with_config(FORM)
class Gradients(TypedDict):
    results: Tensors
    gradients: Tensors


@with_config(FORM)
class Probed(TypedDict):
    tried: int
    faults: list[str]
    traceback: str


@with_config(FORM)
class Prepared(Paths):
    seconds: Seconds
    many: NotRequired[Count]
    settings: NotRequired[Texts]


@with_config(FORM)
class Changed(TypedDict):
    parameters: Arrays
    statistics: Arrays
    slots: dict[str, Arrays]


@with_config(FORM)
class Descended(Kept):
    total: float
    later: list[Kept]


@with_config(FORM)
class Carried(Changed):
    others: Arrays


@with_config(FORM)
class MemoryAnswer(TypedDict):
    resident: Bytes | None
    device: Bytes | None


@with_config(FORM)
class Peaks(TypedDict):
    products: list[Seconds]
    bandwidth: Seconds


@with_config(FORM)
class Beginning(Paths):
    settings: Texts


@with_config(FORM)
class Snapshot(Changed):
    state: Arrays
    scaling: Arrays
    steps: Bytes


@with_config(FORM)
class ReadWeights(TypedDict):
    parameters: Arrays
    statistics: Arrays


@with_config(FORM)
class Scripted(TypedDict):
    module: str
    source: str
    gradients: Arrays
    layers: list[str]


@with_config(FORM)
class MeasuredAnswer(TypedDict):
    value: NotRequired[bool | int | float | str]
    error: NotRequired[str]


class Forms(Mapping[str, "TypeAdapter[Any]"]):
    """The form of each verb's answer, made when it is first wanted: all of them take 30 ms."""

    def __init__(self, **types: Any) -> None:
        self._types = types
        self._made: dict[str, TypeAdapter[Any]] = {}

    def __getitem__(self, verb: str) -> TypeAdapter[Any]:
        if verb not in self._made:
            self._made[verb] = TypeAdapter(self._types[verb])
        return self._made[verb]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


# The verbs of a backend: of checks, of the clock, of training.
BACKEND = Forms(
    open=Opened,
    use_rule=Paths,
    load=None,
    read=Kept,
    forward=Tensors,
    gradients=Gradients,
    train=list[Stepped],
    trace=list[Annotated[Any, PlainValidator(_entry)]],
    aliasing=list[str],
    strided=Annotated[list[Tensors], Field(min_length=3, max_length=3)],
    primitives=Probed,
    prepare=Prepared,
    select=None,
    together=Count,
    feed=None,
    turn=None,
    restart=None,
    latency=list[Seconds],
    stages=list[Annotated[list[Seconds], Field(min_length=3, max_length=3)]],
    throughput=Seconds,
    values=list[Arrays],
    last=Arrays,
    parameters=Carried,
    descend=Descended,
    copying=Seconds,
    overhead=Seconds,
    memory=MemoryAnswer,
    peaks=Peaks,
    train_begin=Beginning,
    train_load=None,
    train_run=list[float],
    train_snapshot=Snapshot,
    train_evaluate=dict[str, float] | None,
    train_memory=MemoryAnswer,
)
# The verbs of a format.
FORMAT = Forms(
    suffix=str, write=list[str], read=ReadWeights, outputs=Arrays, script=Scripted, doubt=str
)
# The verb of a framework whose defaults are measured.
DEFAULTS = Forms(measure=dict[str, MeasuredAnswer])
_GREETING: TypeAdapter[Any] = TypeAdapter(Greeting)
# Verbs whose lists have as many entries as their payload says.
COUNTED = {
    **dict.fromkeys(("latency", "stages", "values"), "count"),
    "train": "batches",
    "peaks": "sizes",
    "descend": "starts",
}
# Of a verb whose answer is more than a list, the field that holds the list.
LISTS = {"peaks": "products", "descend": "later"}


def formed(form: TypeAdapter[Any], value: Any) -> Any:
    """A value of a form.

    Raises:
        IllFormed: it has another; the message says where, and what was found there.
    """
    try:
        return form.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part!r}]" for part in first["loc"] if part != "[key]")
        if "ctx" in first and "error" in first["ctx"]:
            raise IllFormed(f"answer{where}: {first['ctx']['error']}") from None
        raise IllFormed(f"answer{where}: {first['msg']}, found {_shown(first['input'])}") from None


def answer(forms: Forms, verb: str, payload: Mapping[str, Any], value: Any) -> Any:
    """The answer of a worker to a verb, in the form that the verb has.

    Raises:
        IllFormed: it has another.
    """
    found = formed(forms[verb], value)
    if verb in COUNTED:
        wanted = payload[COUNTED[verb]]
        count = wanted if isinstance(wanted, int) else len(wanted)
        entries = found[LISTS[verb]] if verb in LISTS else found
        if len(entries) != count:
            raise IllFormed(f"answer: {count} entries are wanted, found {len(entries)}")
    return found


def greeted(value: Any, backend: str) -> Mapping[str, Any]:
    """The greeting of a backend's worker.

    Raises:
        IllFormed: it is not of the form of a greeting, or another's.
    """
    try:
        found: Mapping[str, Any] = formed(_GREETING, value)
    except IllFormed as error:
        raise IllFormed(f"its greeting is not a greeting: {error}") from None
    if found["backend"] != backend:
        raise IllFormed(f"backend {backend!r} was asked for, and {found['backend']!r} answered")
    return found


def is_answer(message: Any, number: int) -> bool:
    """Whether a message is an answer at all, and to the call of this number."""
    if not isinstance(message, dict) or message.get("id") != number:
        return False
    seconds, status = message.get("seconds"), message.get("status")
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        return False
    told = (message.get(name) for name in ("kind", "message", "traceback"))
    failed = status in ("error", "out-of-memory") and all(isinstance(t, str) for t in told)
    return status == "ok" or failed
