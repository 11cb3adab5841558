"""The form of a spec file: the shape of the data, before any of it is given a meaning.

The same models give the JSON Schema for editors (:func:`json_schema`). Names, shapes and
equations are text here; ``harness.language.model`` reads them and says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.language.names import FreeName, ModelName, Name
from harness.language.optimizer_schema import Optimizer, OptimizerUse
from harness.language.strict import Axes, Documented, Strict

Positive = Annotated[int, Field(ge=1)]
# A law, and its arguments: numbers, or in a definition the names of attributes that are numbers.
Initializer = str | dict[str, dict[str, float | str]]
Attributes = dict[Name, bool | float | str]


class Input(Strict):
    """``shape`` in axes. ``index`` names the size that integer values stay below, ``at_most`` one
    that they may be as large as; ``boolean`` values are true or false. Others are floats."""

    # What to write for keys that people know from frameworks.
    INSTEAD: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("dtype", "type"),
        "whole numbers are declared by 'index: SIZE', truth values by 'boolean: true'; floats have "
        "the dtype of the run",
    )

    shape: Axes
    index: int | str | None = None
    at_most: int | str | None = None
    boolean: bool | None = None


class Rows(Strict):
    """One horizontal stripe of a parameter, with a law of its own."""

    rows: str | int
    init: Initializer


class Parameter(Strict):
    """``block``: parameters of one block are drawn together, side by side, as one matrix."""

    shape: Axes
    init: Initializer | list[Rows]
    block: Name | None = None


class Noise(Strict):
    """Random numbers of every training step, drawn by the harness by this law; in inference they
    are its mean. An argument of the law is a number or names an attribute."""

    shape: Axes
    law: str | dict[str, dict[str, float | str]]


def start_of(init: str | float) -> float:
    """The number that every entry of a state starts as, of what its ``init`` says."""
    return {"zeros": 0.0, "ones": 1.0}[init] if isinstance(init, str) else float(init)


class State(Strict):
    """A carried value; it starts, and is reset to, what ``init`` says: zeros, ones or a number."""

    shape: Axes
    init: Literal["zeros", "ones"] | float = "zeros"

    @property
    def start(self) -> float:
        """The number that every entry starts as."""
        return start_of(self.init)


class Scan(Strict):
    """A loop over an axis of inputs, time by default: ``over`` names each step's slice of an input.

    ``reverse`` runs from the last step to the first; it may name an attribute that says so.
    """

    over: dict[Name, Name]
    step: str
    output: Name
    axis: Annotated[int, Field(ge=0)] = 1
    reverse: bool | Name = False


class NamedScan(Scan):
    """One loop of several in a layer: which of its states it carries. Its output, of all steps,
    has its name in the equations."""

    carries: list[Name] = []


class Function(Documented):
    """An activation or another function without parameters."""

    function: Name
    inputs: dict[Name, Axes | Literal["any"]]
    attributes: Attributes = {}
    equations: str
    output: Name


class LossScan(Strict):
    """A loop over axis 1 of inputs: ``over`` names each step's slice of an input."""

    over: Annotated[dict[Name, Name], Field(min_length=1)]
    step: str


class Loss(Documented):
    """A loss of every example (``[...]``); the model says how they are reduced.

    With a ``scan`` the equations read what its states are after the last step.
    """

    loss: Name
    inputs: dict[Name, Axes | Input]
    attributes: Attributes = {}
    state: dict[Name, State] = {}
    scan: LossScan | None = None
    equations: str
    output: Name


class LayerUse(BaseModel):
    """A layer instance: the definition's name, laws of its parameters, and its attributes.

    ``repeat`` makes a chain of as many, each with parameters of its own. ``shares`` names another
    layer, whose parameters it takes in place of its own.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    layer: str
    init: dict[Name, Initializer | list[Rows]] = {}
    repeat: int | str | None = None
    shares: Name | None = None


class Unusual(Strict):
    """Values of an attribute that are allowed, but hardly what was meant, and what to know."""

    below: float
    note: str


class Layer(Documented):
    """A layer: equations once, or a step that is scanned; one form in training, one in inference.

    An attribute is ``size`` (a dimension, to be given), true or false, a number or the name of a
    function (defaults). ``layers`` are others that the equations call, beside own parameters.
    """

    layer: FreeName
    inputs: dict[Name, Axes | Input]
    attributes: Attributes = {}
    unusual: dict[Name, Unusual] = {}
    parameters: dict[Name, Parameter] = {}
    layers: dict[Name, LayerUse] = {}
    state: dict[Name, State] = {}
    noise: dict[Name, Noise] = {}
    statistics: dict[Name, Parameter] = {}
    equations: str | None = None
    training: str | None = None
    inference: str | None = None
    scan: Scan | None = None
    scans: dict[Name, NamedScan] = {}
    output: Name | None = None


class Phase(Strict):
    """Some epochs at one learning rate."""

    epochs: Positive
    learning_rate: Annotated[float, Field(ge=0)]


class Training(Strict):
    """How a run goes through the data."""

    batch: Positive
    shuffle: bool
    whole_batches: bool = False
    examples: Positive | None = None
    phases: Annotated[list[Phase], Field(min_length=1)]


class Windows(Strict):
    """Window r covers characters ``r * stride`` and on; the last ``drop_last`` are left out."""

    length: Positive
    stride: Positive
    drop_last: Annotated[int, Field(ge=0)] = 0


class Source(Strict):
    """An array of the model: characters ``offset`` from the window's start, or zeros."""

    offset: Annotated[int, Field(ge=0)] | None = None
    zeros: bool | None = None


class Data(Strict):
    """From text to arrays; index 0 stands for no character.

    An array's declared shape says the rest: ``[batch]`` takes one character, ``[batch, time]`` the
    window, floats ``[batch, time, classes]`` its one-hot form.
    """

    encoding: Literal["utf-8"]
    padding_index: Literal[0]
    windows: Windows
    arrays: dict[Name, Source]


class ArrayFile(Strict):
    """Arrays of an npz file beside the spec, one row an example; ``arrays`` says which one is for
    an input or target that is called otherwise."""

    npz: str
    arrays: dict[Name, str] = {}


class DataSet(Strict):
    """A data set with a name, of which ``arrays`` says the same."""

    set: Literal["digits"]
    arrays: dict[Name, str] = {}


class Model(Documented):
    """A whole model: sizes, inputs, layers, equations, loss, optimizer, phases and data."""

    model: ModelName
    # Of the model's own, by name; or how many numbers its layers hold at these sizes.
    parameters: Positive | dict[Name, Parameter] | None = None
    sizes: dict[Name, Positive] = {}
    inputs: dict[Name, Input]
    noise: dict[Name, Noise] = {}
    state: dict[Name, State] = {}
    layers: dict[Name, LayerUse] = {}
    equations: str
    targets: dict[Name, Input] = {}
    loss: str | None = None
    metrics: dict[FreeName, str] = {}
    optimizer: OptimizerUse | None = None
    training: Training | None = None
    data: Data | ArrayFile | DataSet | None = None


KINDS: dict[str, type[Documented]] = {
    "model": Model,
    "layer": Layer,
    "function": Function,
    "loss": Loss,
    "optimizer": Optimizer,
}


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of one kind of spec file, for editors."""
    return KINDS[kind].model_json_schema()
