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
        "declare integers with 'index: SIZE' and booleans with 'boolean: true'; the dtype of "
        "floats is chosen when the model runs",
    )

    shape: Axes = key("the length of each axis", ["batch", "time"])
    index: int | str | None = key("entries are integers from 0 to this size minus 1", "vocab", None)
    at_most: int | str | None = key("entries are integers from 0 to this size", "time", None)
    boolean: bool | None = key("with `true`, entries are booleans", True, None)


class Rows(Strict):
    """A group of consecutive rows of a parameter, with its own initial distribution."""

    rows: str | int = key("the number of rows", "units")
    init: Initializer = key("the initial distribution of these rows", "identity")


class Parameter(Strict):
    """``block``: parameters of one block are drawn together, side by side, as one matrix."""

    shape: Axes = key("the length of each axis", ["features", "units"])
    init: Initializer | list[Rows] = key(
        "the initial distribution, or one distribution per group of rows",
        "glorot_uniform",
    )
    block: Name | None = key(
        "parameters with the same block are initialised as one matrix", "W", None
    )


class Noise(Strict):
    """Random numbers of every training step, drawn by the harness by this law; in inference they
    are its mean. An argument of the law is a number or names an attribute."""

    shape: Axes = key("the length of each axis", ["...", "features"])
    law: str | dict[str, dict[str, float | str]] = key(
        "the distribution of the random numbers", {"bernoulli": {"keep": 0.9}}
    )


def start_of(init: str | float) -> float:
    """Return the initial value of every entry of a state, from its ``init``."""
    return {"zeros": 0.0, "ones": 1.0}[init] if isinstance(init, str) else float(init)


class State(Strict):
    """A carried value; it starts, and is reset to, what ``init`` says: zeros, ones or a number."""

    shape: Axes = key("the length of each axis", ["batch", "units"])
    init: Literal["zeros", "ones"] | float = key("the initial value of every entry", -1e30, "zeros")

    @property
    def start(self) -> float:
        """Every entry starts with this value."""
        return start_of(self.init)


class Scan(Strict):
    """A loop over an axis of inputs, time by default: ``over`` names each step's slice of an input.

    ``reverse`` runs from the last step to the first; it may name an attribute that says so.
    """

    over: dict[Name, Name] = key("a name for the current step of each input", {"x_t": "x"})
    step: str = key("equations of one step, which assign the states", "h = tanh(x_t @ W + h @ U)")
    output: Name = key("the name in `step` whose values at all steps form the output", "h")
    axis: Annotated[int, Field(ge=0)] = key("the axis of the inputs over which the loop runs", 2, 1)
    reverse: bool | Name = key("with `true`, run from the last step to the first", True, False)


class NamedScan(Scan):
    """A named loop of a layer with several loops, and the states that this loop carries.

    In the equations, the name of the loop stands for its output at all steps.
    """

    carries: list[Name] = key("the states that this loop updates", ["left"], [])


class Function(Documented):
    """An activation or another function without parameters."""

    function: Name = key("the name of the function and its file", "softsign")
    inputs: dict[Name, Axes | Literal["any"]] = key("the axes of each input", {"x": ["..."]})
    attributes: Attributes = key("the default of each attribute", {"axis": -1}, {})
    equations: str = key("one assignment per line", "y = x / (1 + abs(x))")
    output: Name = key("the name of the returned value", "y")


class LossScan(Strict):
    """A loop over axis 1 of inputs: ``over`` names each step's slice of an input."""

    over: Annotated[dict[Name, Name], Field(min_length=1)] = key(
        "a name for the current step of each input",
        {"p": "prediction"},
    )
    step: str = key("equations of one step, which assign the states", "error = error + p ** 2")


class Loss(Documented):
    """A loss of every example (``[...]``); the model says how they are reduced.

    With a ``scan`` the equations read what its states are after the last step.
    """

    loss: Name = key("the name of the loss and its file", "absolute_error")
    inputs: dict[Name, Axes | Input] = key("the axes of each input", {"prediction": ["..."]})
    attributes: Attributes = key("the default of each attribute", {"slope": 1.0}, {})
    state: dict[Name, State] = key(
        "arrays passed from each loop step to the next", {"error": {"shape": ["batch"]}}, {}
    )
    scan: LossScan | None = key(
        "a loop over axis 1 of the inputs",
        {"over": {"p": "prediction"}, "step": "e = e + p"},
        None,
    )
    equations: str = key("one assignment per line", "y = abs(prediction - target)")
    output: Name = key("the name of the returned array, with one value per example", "y")


class LayerUse(BaseModel):
    """A layer instance: the definition's name, laws of its parameters, and its attributes.

    ``repeat`` makes a chain of as many, each with parameters of its own. ``shares`` names another
    layer, whose parameters it takes in place of its own.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)
    layer: str = key("the name of the layer's definition", "dense")
    init: dict[Name, Initializer | list[Rows]] = key(
        "initial distributions that replace those in the definition", {"U": "identity"}, {}
    )
    repeat: int | str | None = key(
        "chain this many copies, each with its own parameters",
        "depth",
        None,
    )
    shares: Name | None = key("the layer whose parameters this layer uses", "embed", None)


class Unusual(Strict):
    """Values of an attribute that are allowed, but hardly what was meant, and what to know."""

    below: float = key("values below this number cause the warning", 0.5)
    note: str = key("the text of the warning", "torch's momentum 0.1 is 0.9 here")


class Layer(Documented):
    """A layer: equations once, or a step that is scanned; one form in training, one in inference.

    An attribute is ``size`` (a dimension, to be given), true or false, a number or the name of a
    function (defaults). ``layers`` are others that the equations call, beside own parameters.
    """

    layer: FreeName = key("the name of the layer and its file", "leaky")
    inputs: dict[Name, Axes | Input] = key(
        "the axes of each input; a new name, such as `features`, takes its length from "
        "the argument",
        {"x": ["...", "features"]},
    )
    attributes: Attributes = key(
        "the default of each attribute, or `size` for a size that each use must set",
        {"units": "size", "activation": "tanh"},
        {},
    )
    unusual: dict[Name, Unusual] = key(
        "attribute values that cause a warning",
        {"momentum": {"below": 0.5, "note": "..."}},
        {},
    )
    parameters: dict[Name, Parameter] = key(
        "trained arrays", {"b": {"shape": ["units"], "init": "zeros"}}, {}
    )
    layers: dict[Name, LayerUse] = key(
        "layers that the equations call", {"up": {"layer": "dense", "units": "wide"}}, {}
    )
    state: dict[Name, State] = key(
        "arrays passed from each loop step to the next",
        {"h": {"shape": ["batch", "units"]}},
        {},
    )
    noise: dict[Name, Noise] = key(
        "random numbers, redrawn in each training step",
        {"kept": {"shape": ["..."], "law": {"bernoulli": {"keep": 0.9}}}},
        {},
    )
    statistics: dict[Name, Parameter] = key(
        "moving statistics, which the `training` equations update",
        {"mean": {"shape": ["features"], "init": "zeros"}},
        {},
    )
    equations: str | None = key("one assignment per line", "y = activation(x @ W + b)", None)
    training: str | None = key(
        "equations for training, if different from inference",
        "y = x * (kept / keep)",
        None,
    )
    inference: str | None = key(
        "equations for inference, if different from training", "y = x", None
    )
    scan: Scan | None = key(
        "a loop over one axis of the inputs",
        {"over": {"x_t": "x"}, "step": "h = h + x_t", "output": "h"},
        None,
    )
    scans: dict[Name, NamedScan] = key(
        "loops that run before the `equations`",
        {"back": {"over": {"x_t": "x"}, "carries": ["h"], "step": "h = h + x_t", "output": "h"}},
        {},
    )
    output: Name | None = key("the name of the returned value", "y", None)


class Phase(Strict):
    """Some epochs at one learning rate."""

    epochs: Positive = key("the number of epochs", 3)
    learning_rate: Annotated[float, Field(ge=0)] = key("the learning rate of these epochs", 0.001)


class Training(Strict):
    """How a run goes through the data."""

    batch: Positive = key("rows in a batch", 32)
    shuffle: bool = key("with `true`, each epoch draws a new row order", True)
    whole_batches: bool = key("with `true`, skip the last batch if it is smaller", True, False)
    examples: Positive | None = key("train on this many rows, starting at the first", 1000, None)
    phases: Annotated[list[Phase], Field(min_length=1)] = key(
        "consecutive phases, each with epochs and a learning rate",
        [{"epochs": 2, "learning_rate": 0.01}],
    )


class Windows(Strict):
    """Window r covers characters ``r * stride`` and on; the last ``drop_last`` are left out."""

    length: Positive = key("characters per window, equal to the length of axis `time`", 64)
    stride: Positive = key("characters between the starts of neighbouring windows", 8)
    drop_last: Annotated[int, Field(ge=0)] = key("windows to skip at the end of the text", 2, 0)


class Source(Strict):
    """An array of the model: characters ``offset`` from the window's start, or zeros."""

    offset: Annotated[int, Field(ge=0)] | None = key(
        "characters from the window's start to the array's start", 1, None
    )
    zeros: bool | None = key("with `true`, all entries are 0", True, None)


class Data(Strict):
    """From text to arrays; index 0 stands for no character.

    An array's declared shape says the rest: ``[batch]`` takes one character, ``[batch, time]`` the
    window, floats ``[batch, time, classes]`` its one-hot form.
    """

    encoding: Literal["utf-8"] = key("the encoding of the text", "utf-8")
    padding_index: Literal[0] = key("the index of padding", 0)
    windows: Windows = key(
        "the length and stride of the windows of text", {"length": 64, "stride": 64}
    )
    arrays: dict[Name, Source] = key(
        "the characters of a window that each input or target contains", {"target": {"offset": 1}}
    )


class ArrayFile(Strict):
    """Arrays of an npz file beside the spec, one row an example; ``arrays`` says which one is for
    an input or target that is called otherwise."""

    npz: str = key("a file in the spec's folder, written by `numpy.savez`", "digits.npz")
    arrays: dict[Name, str] = key(
        "maps input names to array names in the file", {"x": "pixels"}, {}
    )


class DataSet(Strict):
    """A data set with a name, of which ``arrays`` says the same."""

    set: Literal["digits"] = key("the name of the data set", "digits")
    arrays: dict[Name, str] = key(
        "maps input names to array names in the data set",
        {"target": "label"},
        {},
    )


class Model(Documented):
    """A whole model: sizes, inputs, layers, equations, loss, optimizer, phases and data."""

    model: ModelName = key("the name of the model in results", "my_gru")
    parameters: Positive | dict[Name, Parameter] | None = key(
        "the model's own parameters, or the expected count of parameters and statistics",
        {"scale": {"shape": [], "init": "ones"}},
        None,
    )
    sizes: dict[Name, Positive] = key(
        "the lengths of named axes, which `--size` can change", {"hidden": 16}, {}
    )
    inputs: dict[Name, Input] = key(
        "the input arrays of the model", {"chars": {"shape": ["batch", "time"], "index": "vocab"}}
    )
    noise: dict[Name, Noise] = key(
        "random numbers, redrawn in each training step",
        {"u": {"shape": ["batch"], "law": "uniform"}},
        {},
    )
    state: dict[Name, State] = key(
        "arrays passed from each batch to the next", {"h": {"shape": ["batch", "hidden"]}}, {}
    )
    layers: dict[Name, LayerUse] = key(
        "the layers of the model", {"out": {"layer": "dense", "units": "vocab"}}, {}
    )
    equations: str = key("one assignment per line; each assigned name is an output", "y = out(x)")
    targets: dict[Name, Input] = key(
        "the target arrays of the loss", {"target": {"shape": ["batch"]}}, {}
    )
    loss: str | None = key("the loss, a scalar expression", "mean(squared_error(y, target))", None)
    metrics: dict[FreeName, str] = key(
        "other scalars to report, e.g. accuracy",
        {"accuracy": "mean(accuracy(logits, label))"},
        {},
    )
    optimizer: OptimizerUse | None = key(
        "the optimizer and its attributes", {"optimizer": "adam", "learning_rate": 0.01}, None
    )
    training: Training | None = key(
        "batch size, row order and epochs",
        {"batch": 32, "shuffle": True, "phases": [{"epochs": 2, "learning_rate": 0.01}]},
        None,
    )
    data: Data | ArrayFile | DataSet | None = key("the training data", {"npz": "digits.npz"}, None)


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


def run_schema(options: Any) -> CommandResult:
    """Return the JSON Schema of the ``kind`` of spec file.

    Raises:
        UsageError: the kind is unknown.
    """
    check_known("kind", options.kind, KINDS)
    schema = json_schema(options.kind)
    return CommandResult(schema, json.dumps(schema, indent=2), wrap=False)
