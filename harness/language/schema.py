"""Form of a spec file: the structure of its data, before names and equations are read.

The same models give the JSON Schema for editors (:func:`json_schema`). Names, shapes and equations
are plain text here; ``harness.language.model`` reads and checks them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.command.outcome import CommandResult
from harness.errors import check_known
from harness.language.names import FreeName, ModelName, Name
from harness.language.optimizer_schema import Optimizer, OptimizerUse
from harness.language.strict import Axes, Documented, Strict, key

Positive = Annotated[int, Field(ge=1)]
# A law with its arguments: numbers or, in a definition, names of attributes with numbers.
Initializer = str | dict[str, dict[str, float | str]]
Attributes = dict[Name, bool | float | str]


class Input(Strict):
    """``shape`` in axes. ``index`` names the size that integer values stay below, ``at_most`` one
    that they may be as large as; ``boolean`` values are true or false. Others are floats."""

    # What to write instead of keys from the frameworks.
    INSTEAD: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("dtype", "type"),
        "whole numbers are declared by 'index: SIZE', truth values by 'boolean: true'; floats have "
        "the dtype of the run",
    )

    shape: Axes = key("The lengths of the axes.", ["batch", "time"])
    index: int | str | None = key("Integers from 0 to below this size.", "vocab", None)
    at_most: int | str | None = key("Integers from 0 to this size, inclusive.", "time", None)
    boolean: bool | None = key("`true`: the entries are true or false (a condition).", True, None)


class Rows(Strict):
    """A group of consecutive rows of a parameter, with its own initial distribution."""

    rows: str | int = key("The number of rows.", "units")
    init: Initializer = key("The distribution of these rows.", "identity")


class Parameter(Strict):
    """``block``: parameters of one block are drawn together, side by side, as one matrix."""

    shape: Axes = key("The lengths of the axes.", ["features", "units"])
    init: Initializer | list[Rows] = key(
        "The distribution of the initial values, or a list with one per group of rows.",
        "glorot_uniform",
    )
    block: Name | None = key(
        "Parameters of one block are drawn as one matrix, side by side.", "W", None
    )


class Noise(Strict):
    """Random numbers of every training step, drawn by the harness by this law; in inference they
    are its mean. An argument of the law is a number or names an attribute."""

    shape: Axes = key("The lengths of the axes.", ["...", "features"])
    law: str | dict[str, dict[str, float | str]] = key(
        "The distribution of the noise.", {"bernoulli": {"keep": 0.9}}
    )


def start_of(init: str | float) -> float:
    """Return the initial value of every entry of a state, from its ``init``."""
    return {"zeros": 0.0, "ones": 1.0}[init] if isinstance(init, str) else float(init)


class State(Strict):
    """A carried value; it starts, and is reset to, what ``init`` says: zeros, ones or a number."""

    shape: Axes = key("The lengths of the axes.", ["batch", "units"])
    init: Literal["zeros", "ones"] | float = key(
        "The initial value of every entry.", -1e30, "zeros"
    )

    @property
    def start(self) -> float:
        """The initial value of every entry."""
        return start_of(self.init)


class Scan(Strict):
    """A loop over an axis of inputs, time by default: ``over`` names each step's slice of an input.

    ``reverse`` runs from the last step to the first; it may name an attribute that says so.
    """

    over: dict[Name, Name] = key("The name of one step of each input or noise.", {"x_t": "x"})
    step: str = key("Equations of one step, which assign the states.", "h = tanh(x_t @ W + h @ U)")
    output: Name = key("The value that each step contributes to the output.", "h")
    axis: Annotated[int, Field(ge=0)] = key("The axis of the loop.", 2, 1)
    reverse: bool | Name = key("Run from the last step to the first.", True, False)


class NamedScan(Scan):
    """A named loop of a layer with several loops, and the states that this loop carries.

    In the equations, the name of the loop stands for its output at all steps.
    """

    carries: list[Name] = key("The states of this loop.", ["left"], [])


class Function(Documented):
    """An activation or another function without parameters."""

    function: Name = key("The name, which is also the name of the file.", "softsign")
    inputs: dict[Name, Axes | Literal["any"]] = key("Inputs with their axes.", {"x": ["..."]})
    attributes: Attributes = key("Attributes with their defaults.", {"axis": -1}, {})
    equations: str = key("One assignment per line.", "y = x / (1 + abs(x))")
    output: Name = key("The result.", "y")


class LossScan(Strict):
    """A loop over axis 1 of inputs: ``over`` names each step's slice of an input."""

    over: Annotated[dict[Name, Name], Field(min_length=1)] = key(
        "The name of one step of each input.", {"p": "prediction"}
    )
    step: str = key("Equations of one step, which assign the states.", "error = error + p ** 2")


class Loss(Documented):
    """A loss of every example (``[...]``); the model says how they are reduced.

    With a ``scan`` the equations read what its states are after the last step.
    """

    loss: Name = key("The name, which is also the name of the file.", "absolute_error")
    inputs: dict[Name, Axes | Input] = key("Inputs with their axes.", {"prediction": ["..."]})
    attributes: Attributes = key("Attributes with their defaults.", {"slope": 1.0}, {})
    state: dict[Name, State] = key(
        "Values carried from step to step.", {"error": {"shape": ["batch"]}}, {}
    )
    scan: LossScan | None = key(
        "A loop over axis 1 of the inputs.",
        {"over": {"p": "prediction"}, "step": "e = e + p"},
        None,
    )
    equations: str = key("One assignment per line.", "y = abs(prediction - target)")
    output: Name = key("The result: one value for each example.", "y")


class LayerUse(BaseModel):
    """A layer instance: the definition's name, laws of its parameters, and its attributes.

    ``repeat`` makes a chain of as many, each with parameters of its own. ``shares`` names another
    layer, whose parameters it takes in place of its own.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    layer: str = key("The definition's name.", "dense")
    init: dict[Name, Initializer | list[Rows]] = key(
        "Other distributions for parameters of this layer.", {"U": "identity"}, {}
    )
    repeat: int | str | None = key("A chain of this many layers.", "depth", None)
    shares: Name | None = key("The layer whose parameters this layer uses.", "embed", None)


class Unusual(Strict):
    """Values of an attribute that are allowed, but hardly what was meant, and what to know."""

    below: float = key("Values below this number cause the note.", 0.5)
    note: str = key("The text of the note.", "torch's momentum 0.1 is 0.9 here")


class Layer(Documented):
    """A layer: equations once, or a step that is scanned; one form in training, one in inference.

    An attribute is ``size`` (a dimension, to be given), true or false, a number or the name of a
    function (defaults). ``layers`` are others that the equations call, beside own parameters.
    """

    layer: FreeName = key("The name, which is also the name of the file.", "leaky")
    inputs: dict[Name, Axes | Input] = key(
        "Inputs with their axes; new names take the lengths of the argument.",
        {"x": ["...", "features"]},
    )
    attributes: Attributes = key(
        "Attributes with their defaults; `size` must be given by the user of the layer.",
        {"units": "size", "activation": "tanh"},
        {},
    )
    unusual: dict[Name, Unusual] = key(
        "Values of an attribute that are probably a mistake.",
        {"momentum": {"below": 0.5, "note": "..."}},
        {},
    )
    parameters: dict[Name, Parameter] = key(
        "Trained values.", {"b": {"shape": ["units"], "init": "zeros"}}, {}
    )
    layers: dict[Name, LayerUse] = key(
        "Layers that the equations call.", {"up": {"layer": "dense", "units": "wide"}}, {}
    )
    state: dict[Name, State] = key(
        "Values carried from step to step.", {"h": {"shape": ["batch", "units"]}}, {}
    )
    noise: dict[Name, Noise] = key(
        "Random numbers of each training step.",
        {"kept": {"shape": ["..."], "law": {"bernoulli": {"keep": 0.9}}}},
        {},
    )
    statistics: dict[Name, Parameter] = key(
        "Moving statistics, assigned in `training`.",
        {"mean": {"shape": ["features"], "init": "zeros"}},
        {},
    )
    equations: str | None = key("One assignment per line.", "y = activation(x @ W + b)", None)
    training: str | None = key("The equations in training.", "y = x * (kept / keep)", None)
    inference: str | None = key("The equations in inference.", "y = x", None)
    scan: Scan | None = key(
        "One loop over an axis of the inputs.",
        {"over": {"x_t": "x"}, "step": "h = h + x_t", "output": "h"},
        None,
    )
    scans: dict[Name, NamedScan] = key(
        "Several loops, before the `equations`.",
        {"back": {"over": {"x_t": "x"}, "carries": ["h"], "step": "h = h + x_t", "output": "h"}},
        {},
    )
    output: Name | None = key("The result.", "y", None)


class Phase(Strict):
    """Some epochs at one learning rate."""

    epochs: Positive = key("The number of epochs.", 3)
    learning_rate: Annotated[float, Field(ge=0)] = key("The learning rate.", 0.001)


class Training(Strict):
    """How a run goes through the data."""

    batch: Positive = key("Rows in a batch.", 32)
    shuffle: bool = key("Draw the rows in a new order in each epoch.", True)
    whole_batches: bool = key("Skip a smaller last batch.", True, False)
    examples: Positive | None = key("Train on the first rows only.", 1000, None)
    phases: Annotated[list[Phase], Field(min_length=1)] = key(
        "Epochs and their learning rate, in order.", [{"epochs": 2, "learning_rate": 0.01}]
    )


class Windows(Strict):
    """Window r covers characters ``r * stride`` and on; the last ``drop_last`` are left out."""

    length: Positive = key("Characters in a window: the axis `time`.", 64)
    stride: Positive = key("Characters from one start of a window to the next.", 8)
    drop_last: Annotated[int, Field(ge=0)] = key("Windows left out at the end.", 2, 0)


class Source(Strict):
    """An array of the model: characters ``offset`` from the window's start, or zeros."""

    offset: Annotated[int, Field(ge=0)] | None = key(
        "Characters from the start of the window to the start of the array.", 1, None
    )
    zeros: bool | None = key("`true`: the array is all zeros.", True, None)


class Data(Strict):
    """From text to arrays; index 0 stands for no character.

    An array's declared shape says the rest: ``[batch]`` takes one character, ``[batch, time]`` the
    window, floats ``[batch, time, classes]`` its one-hot form.
    """

    encoding: Literal["utf-8"] = key("Always `utf-8`.", "utf-8")
    padding_index: Literal[0] = key("Always 0: the index of no character.", 0)
    windows: Windows = key("How the text is cut.", {"length": 64, "stride": 64})
    arrays: dict[Name, Source] = key(
        "The source of each input and target.", {"target": {"offset": 1}}
    )


class ArrayFile(Strict):
    """Arrays of an npz file beside the spec, one row an example; ``arrays`` says which one is for
    an input or target that is called otherwise."""

    npz: str = key("A file of numpy.savez beside the spec.", "digits.npz")
    arrays: dict[Name, str] = key("Other names in the file.", {"x": "pixels"}, {})


class DataSet(Strict):
    """A data set with a name, of which ``arrays`` says the same."""

    set: Literal["digits"] = key("The name of the data set.", "digits")
    arrays: dict[Name, str] = key("The array of each input and target.", {"target": "label"}, {})


class Model(Documented):
    """A whole model: sizes, inputs, layers, equations, loss, optimizer, phases and data."""

    model: ModelName = key("The name under which results are filed.", "my_gru")
    parameters: Positive | dict[Name, Parameter] | None = key(
        "Parameters of the model itself; or the expected number of parameters and statistics.",
        {"scale": {"shape": [], "init": "ones"}},
        None,
    )
    sizes: dict[Name, Positive] = key(
        "The lengths of axes; a run can change them (`--size`).", {"hidden": 16}, {}
    )
    inputs: dict[Name, Input] = key(
        "The arrays that go in.", {"chars": {"shape": ["batch", "time"], "index": "vocab"}}
    )
    noise: dict[Name, Noise] = key(
        "Random numbers of each training step.", {"u": {"shape": ["batch"], "law": "uniform"}}, {}
    )
    state: dict[Name, State] = key(
        "Values carried from batch to batch.", {"h": {"shape": ["batch", "hidden"]}}, {}
    )
    layers: dict[Name, LayerUse] = key(
        "Layers by name.", {"out": {"layer": "dense", "units": "vocab"}}, {}
    )
    equations: str = key("One assignment per line; each name is an output.", "y = out(x)")
    targets: dict[Name, Input] = key(
        "The arrays that the loss compares with.", {"target": {"shape": ["batch"]}}, {}
    )
    loss: str | None = key("One number.", "mean(squared_error(y, target))", None)
    metrics: dict[FreeName, str] = key(
        "Further numbers.", {"accuracy": "mean(accuracy(logits, label))"}, {}
    )
    optimizer: OptimizerUse | None = key(
        "The optimizer with its attributes.", {"optimizer": "adam", "learning_rate": 0.01}, None
    )
    training: Training | None = key(
        "Batches and epochs.",
        {"batch": 32, "shuffle": True, "phases": [{"epochs": 2, "learning_rate": 0.01}]},
        None,
    )
    data: Data | ArrayFile | DataSet | None = key(
        "The data to train on.", {"npz": "digits.npz"}, None
    )


KINDS: dict[str, type[Documented]] = {
    "model": Model,
    "layer": Layer,
    "function": Function,
    "loss": Loss,
    "optimizer": Optimizer,
}


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of one kind of spec file, for editors."""
    return KINDS[kind].model_json_schema()


def run_schema(asked: Any) -> CommandResult:
    """Return the JSON Schema of the ``kind`` of spec file.

    Raises:
        UsageError: the kind is unknown.
    """
    check_known("kind", asked.kind, KINDS)
    schema = json_schema(asked.kind)
    return CommandResult(schema, json.dumps(schema, indent=2), wrap=False)
