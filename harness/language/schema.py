"""Pydantic models of the data of spec files, which the harness validates first.

They also give the JSON Schema for editors (:func:`json_schema`). Names, shapes and equations are
plain text in these models; ``harness.language.model`` reads and checks them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from harness.command.outcome import CommandResult
from harness.errors import check_known
from harness.language.base_models import Axes, Documented, Strict, key
from harness.language.names import FreeName, ModelName, Name
from harness.language.optimizer_schema import Optimizer, OptimizerUse

Positive = Annotated[int, Field(ge=1)]
# The name of an initial distribution, or a mapping of the name to arguments. An argument is a
# number or, in a definition, the name of an attribute with a number.
Initializer = str | dict[str, dict[str, float | str]]
# An attribute with one value per axis, or per axis and side, has a list as its default.
Sides = Annotated[list[int], Field(min_length=2, max_length=2)]
PerAxis = list[Literal["size"]] | list[int] | list[Sides]
Attributes = dict[Name, bool | float | str]
LayerAttributes = dict[Name, bool | float | str | PerAxis]


class Input(Strict):
    """An input or target of a model, or an input of a layer or loss.

    With ``index``, the entries are integers from 0 to a size minus 1; with ``at_most``, integers
    from 0 to a size; with ``boolean``, booleans. Without these keys, the entries are floats.
    """

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
    """A group of consecutive rows of a parameter. The group has its own initial distribution."""

    rows: str | int = key("the number of rows", "units")
    init: Initializer = key("the initial distribution of these rows", "identity")


class Parameter(Strict):
    """A trained array or a moving statistic. Parameters with the same ``block`` are drawn as one
    matrix, in which they lie side by side."""

    shape: Axes = key("the length of each axis", ["features", "units"])
    init: Initializer | list[Rows] = key(
        "the initial distribution, or one distribution per group of rows",
        "glorot_uniform",
    )
    block: Name | None = key(
        "parameters with the same block are initialised as one matrix", "W", None
    )


class LayerParameter(Parameter):
    """A parameter of a layer. If the attribute ``when`` is false, the layer does not have it."""

    when: Name | None = key("the attribute that is true if the layer has it", "bias", None)


class ConstantArray(Strict):
    """An array that equations read and training does not change.

    With ``index``, its entries are integers from 0 to a size minus 1, otherwise floats. ``value``
    sets the entries. Without it, the entries come from a weights file or, if no file is used, from
    the distribution ``init``. Indices are then drawn uniformly.
    """

    shape: Axes = key("the length of each axis", ["heads", 4])
    index: int | str | None = key("entries are integers from 0 to this size minus 1", 4, None)
    value: float | list[Any] | None = key(
        "the entries: one number for all, or nested lists", [0.5, 0.25], None
    )
    init: Initializer = key(
        "the distribution of entries that neither `value` nor a weights file sets",
        {"uniform": {"low": 0, "high": 1}},
        {"normal": {"std": 1.0}},
    )


class Noise(Strict):
    """Random numbers, which the harness draws in every training step from the distribution ``law``.

    In inference, the mean of the distribution replaces them. An argument of the distribution is a
    number or the name of an attribute.
    """

    shape: Axes = key("the length of each axis", ["...", "features"])
    law: str | dict[str, dict[str, float | str]] = key(
        "the distribution of the random numbers", {"bernoulli": {"keep": 0.9}}
    )


def initial_state_value(init: str | float) -> float:
    """Return the number for the ``init`` of a state, which is ``zeros``, ``ones`` or a number."""
    return {"zeros": 0.0, "ones": 1.0}[init] if isinstance(init, str) else float(init)


class State(Strict):
    """An array that is passed from step to step or from batch to batch. ``init`` is its value at
    the start and after a reset."""

    shape: Axes = key("the length of each axis", ["batch", "units"])
    init: Literal["zeros", "ones"] | float = key("the initial value of every entry", -1e30, "zeros")

    @property
    def start(self) -> float:
        """The initial value of every entry."""
        return initial_state_value(self.init)


class Scan(Strict):
    """A loop over an axis of inputs, by default over time.

    ``over`` maps a name in the equations to an input; the name stands for the input's slice at the
    current step. ``reverse`` is a boolean, or the name of a boolean attribute.
    """

    over: dict[Name, Name] = key("a name for the current step of each input", {"x_t": "x"})
    step: str = key("equations of one step, which assign the states", "h = tanh(x_t @ W + h @ U)")
    output: Name = key("the name in `step` whose values at all steps form the output", "h")
    axis: Annotated[int, Field(ge=0)] = key("the axis of the inputs over which the loop runs", 2, 1)
    reverse: bool | Name = key("with `true`, run from the last step to the first", True, False)


class NamedScan(Scan):
    """A loop of a layer that has several loops. ``carries`` lists the states that the loop
    updates.

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
    """A loop over axis 1 of a loss's inputs.

    ``over`` maps a name in the equations to an input; the name stands for the input's slice at the
    current step.
    """

    over: Annotated[dict[Name, Name], Field(min_length=1)] = key(
        "a name for the current step of each input",
        {"p": "prediction"},
    )
    step: str = key("equations of one step, which assign the states", "error = error + p ** 2")


class Loss(Documented):
    """A loss function, which returns a value for every example. The model reduces these values,
    e.g. with ``mean``.

    With a ``scan``, the equations can read the states after the last step.
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
    """A layer in a model: the name of its definition, its attributes and initial distributions.

    With ``repeat``, it is a chain of copies with separate parameters. With ``shares``, it uses the
    parameters of another layer.
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
    """A range of attribute values that are allowed but probably a mistake, and the warning about
    them."""

    below: float = key("values below this number cause the warning", 0.5)
    note: str = key("the text of the warning", "torch's momentum 0.1 is 0.9 here")


class Layer(Documented):
    """A layer: equations, or a loop over an input's steps. Training and inference may have
    different equations.

    The default of an attribute is ``size`` (each use must set a size), a boolean, a number, the
    name of a function, or a list with a value for each axis. ``layers`` declares nested layers,
    which the equations call.
    """

    layer: FreeName = key("the name of the layer and its file", "leaky")
    inputs: dict[Name, Axes | Input] = key(
        "the axes of each input; a new name, such as `features`, takes its length from "
        "the argument",
        {"x": ["...", "features"]},
    )
    attributes: LayerAttributes = key(
        "the default of each attribute, or `size` for a size that each use must set",
        {"units": "size", "activation": "tanh"},
        {},
    )
    unusual: dict[Name, Unusual] = key(
        "attribute values that cause a warning",
        {"momentum": {"below": 0.5, "note": "..."}},
        {},
    )
    parameters: dict[Name, LayerParameter] = key(
        "trained arrays", {"b": {"shape": ["units"], "init": "zeros"}}, {}
    )
    constants: dict[Name, ConstantArray] = key(
        "arrays that are not trained", {"scale": {"shape": [2], "value": [0.5, 0.25]}}, {}
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
    output: Name | Annotated[list[Name], Field(min_length=1)] | None = key(
        "the name of the returned value, or the names of several", ["y", "log_det"], None
    )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the returned values."""
        output = self.output if self.scan is None else self.scan.output
        return (output,) if isinstance(output, str) else tuple(output or ())


class Phase(Strict):
    """Consecutive epochs with the same learning rate."""

    epochs: Positive = key("the number of epochs", 3)
    learning_rate: Annotated[float, Field(ge=0)] = key("the learning rate of these epochs", 0.001)


class Training(Strict):
    """Batch size, order of rows, and epochs of training."""

    batch: Positive = key("rows in a batch", 32)
    shuffle: bool = key("with `true`, each epoch draws a new row order", True)
    whole_batches: bool = key("with `true`, skip the last batch if it is smaller", True, False)
    examples: Positive | None = key("train on this many rows, starting at the first", 1000, None)
    phases: Annotated[list[Phase], Field(min_length=1)] = key(
        "consecutive phases, each with epochs and a learning rate",
        [{"epochs": 2, "learning_rate": 0.01}],
    )


class Windows(Strict):
    """Windows of a text. Window r starts at character ``r * stride``. The last ``drop_last``
    windows are skipped."""

    length: Positive = key("characters per window, equal to the length of axis `time`", 64)
    stride: Positive = key("characters between the starts of neighbouring windows", 8)
    drop_last: Annotated[int, Field(ge=0)] = key("windows to skip at the end of the text", 2, 0)


class Source(Strict):
    """The content of an input or target: zeros, or characters of each window of the text.
    ``offset`` is the position of the first character within the window."""

    offset: Annotated[int, Field(ge=0)] | None = key(
        "characters from the window's start to the array's start", 1, None
    )
    zeros: bool | None = key("with `true`, all entries are 0", True, None)


class Data(Strict):
    """Conversion of a text to arrays of character indices; index 0 stands for no character.

    The declared shape of an array decides its content: ``[batch]`` has one character of each
    window, ``[batch, time]`` has the window, and ``[batch, time, classes]`` has its one-hot
    encoding.
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
    """An npz file in the spec's folder. Its arrays have one row for each example.

    If an array in the file has a different name than the input or target, ``arrays`` maps the name
    of the input or target to it.
    """

    npz: str = key("a file in the spec's folder, written by `numpy.savez`", "digits.npz")
    arrays: dict[Name, str] = key(
        "maps input names to array names in the file", {"x": "pixels"}, {}
    )


class DataSet(Strict):
    """A data set that the harness knows by name. ``arrays`` maps names as in :class:`ArrayFile`."""

    set: Literal["digits"] = key("the name of the data set", "digits")
    arrays: dict[Name, str] = key(
        "maps input names to array names in the data set",
        {"target": "label"},
        {},
    )


def _definition_class(entry: Any) -> str | None:
    """Return the name of the pydantic class for an entry of a model's ``definitions``, e.g.
    ``Layer`` for an entry with the key ``layer``. Return None if no key names a kind of definition.
    """
    if not isinstance(entry, dict):
        return None if not isinstance(entry, BaseModel) else type(entry).__name__
    return next((kind.title() for kind in entry if kind in LOCAL_KINDS), None)


LOCAL_KINDS = ("layer", "function", "loss", "optimizer")
LocalDefinition = Annotated[
    Annotated[Layer, Tag("Layer")]
    | Annotated[Function, Tag("Function")]
    | Annotated[Loss, Tag("Loss")]
    | Annotated[Optimizer, Tag("Optimizer")],
    Discriminator(
        _definition_class,
        custom_error_type="kind",
        custom_error_message=f"Input should have one of the keys {', '.join(LOCAL_KINDS)}",
    ),
]


class Model(Documented):
    """A complete model: sizes, inputs, layers, equations, loss, optimizer, training and data."""

    model: ModelName = key("the name of the model in results", "my_gru")
    parameters: Positive | dict[Name, Parameter] | None = key(
        "the model's own parameters, or the expected count of parameters and statistics",
        {"scale": {"shape": [], "init": "ones"}},
        None,
    )
    constants: dict[Name, ConstantArray] = key(
        "arrays that are not trained", {"places": {"shape": [9, 9], "index": "offsets"}}, {}
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
    definitions: list[LocalDefinition] = key(
        "the contents of files that define layers, functions, losses and optimizers for this model",
        [{"function": "double", "inputs": {"x": ["..."]}, "equations": "y = 2 * x"}],
        [],
    )
    equations: str = key("one assignment per line", "y = out(x)")
    outputs: Annotated[list[Name], Field(min_length=1)] | None = key(
        "the assigned names that are outputs; by default all of them", ["logits"], None
    )
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
    """Return the JSON Schema of a kind of spec file (e.g. ``layer``), for editors."""
    return KINDS[kind].model_json_schema()


def run_schema(options: Any) -> CommandResult:
    """Return the JSON Schema of spec files of the kind ``options.kind``, e.g. ``layer``.

    Raises:
        UsageError: the kind is unknown.
    """
    check_known("kind", options.kind, KINDS)
    schema = json_schema(options.kind)
    return CommandResult(schema, json.dumps(schema, indent=2), wrap=False)
