"""A run in the middle: weights, what the optimizer keeps, the state, and how far it has come.

A checkpoint is a file of weights (:mod:`harness.convert.weights`), whole or not there, with its
checksum; what is not a weight is among its statistics under names with slashes: ``slot/m/rnn.W``,
``state/h``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from harness.arrays import Array
from harness.convert import weights
from harness.convert.weights import Weights, WeightsError
from harness.convert.weights_header import HeaderPart, told
from harness.files import kinds
from harness.language.added_slots import AVERAGED
from harness.runtime.paths import ExecutionPath

SLOT, STATE, SCALING = "slot/", "state/", "scaling/"
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]


class Position(HeaderPart):
    """Where in the run: ``epoch``, ``step`` in the epoch, ``steps`` in all, and ``sums``: of the
    losses, and the rows, of each stretch of the epoch so far."""

    epoch: Count
    step: Count
    steps: Count
    sums: list[tuple[FiniteFloat, Positive]]


class Epoch(HeaderPart):
    """The figures of an epoch that is done."""

    epoch: Positive
    learning_rate: FiniteFloat
    loss: FiniteFloat
    curve: list[FiniteFloat]
    held_out_loss: float | None
    held_out_metrics: dict[str, float] = Field(default_factory=dict)
    seconds: FiniteFloat
    characters_per_second: FiniteFloat
    memory: dict[str, JsonValue]


class History(HeaderPart):
    """The run in a checkpoint; more than this is kept as it is.

    ``run`` tells it from other runs. ``replaces`` is the checksum of the weights of another run
    that this one was told to replace, and may not yet have.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    run: str
    replaces: str = ""
    text: dict[str, str]
    seed: int
    dtype: str
    sizes: dict[str, int]
    recipe: dict[str, JsonValue]
    backend: str
    path: ExecutionPath
    steps: Count
    epochs: list[Epoch]
    position: Position


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """``slots`` are by slot and parameter. ``position`` is a :class:`Position` as plain data.
    ``scaling`` is what float16 keeps of its scale, see :mod:`harness.program.updates`."""

    weights: Weights
    slots: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)
    position: Mapping[str, Any] = field(default_factory=dict)
    scaling: Mapping[str, Array] = field(default_factory=dict)

    @property
    def to_use(self) -> Weights:
        """The weights that are used after the training: the means of the parameters over the
        updates, where the model asks for them."""
        averaged = self.slots.get(AVERAGED)
        return replace(self.weights, parameters=averaged) if averaged else self.weights

    @property
    def arrays(self) -> dict[str, Array]:
        """All that a run goes on from, by the names that they have in the file."""
        given = self.weights
        return {**given.parameters, **given.statistics, **self.more}

    @property
    def more(self) -> dict[str, Array]:
        """The arrays that are not weights, by the names that they have in the file."""
        slots = {
            f"{SLOT}{slot}/{name}": array
            for slot, arrays in self.slots.items()
            for name, array in arrays.items()
        }
        state = {f"{STATE}{name}": array for name, array in self.state.items()}
        return slots | state | {f"{SCALING}{name}": array for name, array in self.scaling.items()}


def place(path: Path) -> Path:
    """Where the checkpoint of a file of weights is."""
    return path.parent / f"{path.name}.checkpoint"


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole; :class:`WeightsError` if that cannot be."""
    given = checkpoint.weights
    history = {**given.history, "position": dict(checkpoint.position)}
    statistics = {**given.statistics, **checkpoint.more}
    whole = replace(given, statistics=statistics, history=history)
    weights.save(path, whole, kinds.CHECKPOINT)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; :class:`WeightsError` for a file that is none, or is damaged."""
    found = weights.load(path, kinds.CHECKPOINT)
    _check_history(path, found)
    slots: dict[str, dict[str, Array]] = {}
    state: dict[str, Array] = {}
    scaling: dict[str, Array] = {}
    statistics: dict[str, Array] = {}
    for name, array in found.statistics.items():
        if name.startswith(SLOT):
            slot, _, parameter = name.removeprefix(SLOT).partition("/")
            slots.setdefault(slot, {})[parameter] = array
        elif name.startswith(STATE):
            state[name.removeprefix(STATE)] = array
        elif name.startswith(SCALING):
            scaling[name.removeprefix(SCALING)] = array
        else:
            statistics[name] = array
    history = {n: value for n, value in found.history.items() if n != "position"}
    bare = replace(found, statistics=statistics, history=history)
    position: Any = found.history["position"]
    return Checkpoint(bare, slots, state, position, scaling)


def _check_history(path: Path, found: Weights) -> None:
    """:class:`WeightsError` for a history that is not of the form that a training writes."""
    try:
        # As JSON, in which a list may be a tuple.
        history = History.model_validate_json(json.dumps(dict(found.history)))
    except ValidationError as error:
        reason = told(error)
    else:
        done, begun = len(history.epochs), history.position.epoch
        if done == begun:
            return
        reason = f"it has {done} epochs that are done, and continues with number {begun + 1}"
    raise WeightsError(
        f"{str(path)!r} was not written as checkpoints are: {reason}; start over with --force, or "
        "take another copy"
    )
