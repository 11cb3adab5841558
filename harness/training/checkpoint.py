"""Checkpoints of a training: weights, optimizer slots, the model's state, and the epoch and step
reached.

A checkpoint is a file of weights with a checksum (:mod:`harness.convert.weights`). It is written
completely or not at all. Arrays that are not weights are stored as statistics, with slashes in
their names: ``slot/m/rnn.W``, ``state/h``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from harness.arrays import Array
from harness.convert import weights
from harness.convert.weights import HeaderPart, Weights, WeightsError, describe_error
from harness.errors import HarnessError, UsageError, several
from harness.files import kinds
from harness.language.added_slots import AVERAGED
from harness.language.initial_values import initial_state
from harness.program.updates import GOOD, SCALE, UPDATES, slot_shapes
from harness.runtime.paths import ExecutionPath
from harness.runtime.precision import narrow
from harness.training.request import Setup

SLOT, STATE, SCALING = "slot/", "state/", "scaling/"
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]


class Position(HeaderPart):
    """The point that a training has reached: ``epoch`` is the number of finished epochs, ``step``
    the number of steps in the current epoch, and ``steps`` the number of all steps.

    The losses of the current epoch are added up in parts. ``sums`` has a pair for each part: the
    sum of its losses and its number of rows.
    """

    epoch: Count
    step: Count
    steps: Count
    sums: list[tuple[FiniteFloat, Positive]]


class Epoch(HeaderPart):
    """The results of a finished epoch: losses, metrics, speed and memory.

    ``curve`` has the mean losses of successive parts of the epoch. ``memory`` has the bytes in use
    on the host and the device.
    """

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
    """The settings and results of a training, as a checkpoint stores them. Unknown keys are kept
    unchanged.

    ``run`` is a random name of the training. A training with ``--force`` may replace the weights of
    a different training. Until it has written new weights, ``replaces`` is the checksum of the old
    weights.
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
    """The content of a checkpoint file.

    - ``slots`` maps the name of an optimizer slot, e.g. ``m``, to a dictionary from parameter name
      to array.
    - ``state`` has the arrays of the model's state, by name.
    - ``position`` has the fields of :class:`Position`.
    - ``scaling`` has the loss scale of a float16 training; see :mod:`harness.program.updates`.
    """

    weights: Weights
    slots: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)
    position: Mapping[str, Any] = field(default_factory=dict)
    scaling: Mapping[str, Array] = field(default_factory=dict)

    @property
    def to_use(self) -> Weights:
        """The weights to use after the training. If the optimizer stores averages of the
        parameters, these are the averages, otherwise the last parameters."""
        averaged = self.slots.get(AVERAGED)
        return replace(self.weights, parameters=averaged) if averaged else self.weights

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays that a resumed training needs: parameters, statistics, slots, state and loss
        scale. The keys are their names in the file."""
        weights_ = self.weights
        return {**weights_.parameters, **weights_.statistics, **self.more}

    @property
    def more(self) -> dict[str, Array]:
        """The arrays of a checkpoint that are not weights: slots, state and loss scale. The keys
        are their names in the file, e.g. ``slot/m/rnn.W``."""
        slots = {
            f"{SLOT}{slot}/{name}": array
            for slot, arrays in self.slots.items()
            for name, array in arrays.items()
        }
        state = {f"{STATE}{name}": array for name, array in self.state.items()}
        return slots | state | {f"{SCALING}{name}": array for name, array in self.scaling.items()}


def place_of(path: Path) -> Path:
    """Return the path of the checkpoint for the weights file ``path``. It is ``path`` followed by
    ``.checkpoint``."""
    return path.parent / f"{path.name}.checkpoint"


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint completely, or raise :class:`WeightsError` and write nothing."""
    weights_ = checkpoint.weights
    history = {**weights_.history, "position": dict(checkpoint.position)}
    statistics = {**weights_.statistics, **checkpoint.more}
    stored = replace(weights_, statistics=statistics, history=history)
    weights.save(path, stored, kinds.CHECKPOINT)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; raise :class:`WeightsError` if it is damaged or not a checkpoint."""
    stored = weights.load(path, kinds.CHECKPOINT)
    _check_history(path, stored)
    parts: dict[str, dict[str, Array]] = {SLOT: {}, STATE: {}, SCALING: {}, "": {}}
    for name, array in stored.statistics.items():
        prefix = next((p for p in (SLOT, STATE, SCALING) if name.startswith(p)), "")
        parts[prefix][name.removeprefix(prefix)] = array
    slots: dict[str, dict[str, Array]] = {}
    for name, array in parts[SLOT].items():
        slot, _, parameter = name.partition("/")
        slots.setdefault(slot, {})[parameter] = array
    history = {n: value for n, value in stored.history.items() if n != "position"}
    weights_ = replace(stored, statistics=parts[""], history=history)
    position: Any = stored.history["position"]
    return Checkpoint(weights_, slots, parts[STATE], position, parts[SCALING])


def _check_history(path: Path, stored: Weights) -> None:
    try:
        # Validate as JSON, because a JSON list is a valid tuple.
        history = History.model_validate_json(json.dumps(dict(stored.history)))
    except ValidationError as error:
        reason = describe_error(error)
    else:
        done, current = len(history.epochs), history.position.epoch
        if done == current:
            return
        reason = f"it has {several(done, 'finished epoch')}, but continues with epoch {current + 1}"
    raise WeightsError(
        f"{str(path)!r} is not a valid checkpoint: {reason}; start over with --force, or "
        "use another copy"
    )


# Resume an interrupted training, after checking that the checkpoint belongs to it.

FORCE = "--force starts over and replaces the files"


def find(path: Path | None, setup: Setup) -> Checkpoint | None:
    """Return the checkpoint from which the training ``setup`` resumes. ``path`` is the weights
    file. Return None if there is neither a checkpoint nor a weights file.

    Raises:
        UsageError: there are weights but no checkpoint, or the checkpoint or the weights belong to
            another training.
        WeightsError: the checkpoint is damaged, or belongs to another model.
        FileFault: a file of another kind is at the path.
    """
    if path is None:
        raise UsageError("--resume needs --weights: the checkpoint is in the folder of that file")
    place = place_of(path)
    has_weights_file = kinds.check_kind(path, kinds.WEIGHTS)
    if not kinds.check_kind(place, kinds.CHECKPOINT):
        if has_weights_file:
            raise UsageError(
                f"{path} exists, but the checkpoint {place.name} in its folder is missing, so the "
                f"training cannot continue; {FORCE}"
            )
        return None
    checkpoint = load(place)
    weights.check(checkpoint.weights, setup.spec)
    _check_facts(place, checkpoint, setup)
    problem = next(_faults(checkpoint, setup), None)
    if problem is not None:
        raise WeightsError(f"{place} is not a checkpoint of this training: {problem}; {FORCE}")
    if has_weights_file:
        _check_weights(path, checkpoint)
    return checkpoint


def has_weights(path: Path, checkpoint: Checkpoint) -> bool:
    """Return whether the file ``path`` has weights from the same training as the checkpoint."""
    return (
        kinds.check_kind(path, kinds.WEIGHTS) and _run_of(path) == checkpoint.weights.history["run"]
    )


def _run_of(path: Path) -> Any:
    return weights.load(path).history.get("run")


def _check_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Check that a resumed training may replace the weights file ``path``.

    Two files may be replaced: weights from the checkpoint's own training, and the older file that
    this training was started to replace (with ``--force``).
    """
    history = checkpoint.weights.history
    if weights.read_digest(path) == history.get("replaces"):
        return
    try:
        same = _run_of(path) == history["run"]
    except HarnessError as error:
        raise WeightsError(
            f"{error}. The checkpoint in its folder is undamaged: move this file away, and "
            "--resume continues from the checkpoint"
        ) from None
    if not same:
        raise UsageError(
            f"{path} has weights of another training than {place_of(path).name}: --resume would "
            f"replace them. Move the weights away, and --resume continues the training; {FORCE}"
        )


def _check_facts(place: Path, checkpoint: Checkpoint, setup: Setup) -> None:
    history = checkpoint.weights.history
    for name, expected in setup.facts.items():
        if not _is_same(history[name], expected):
            difference = setup.data.other if name == "text" else f"another {name}"
            raise UsageError(
                f"{place} was made with {difference}: "
                f"{_difference(history[name], expected)}; use the earlier setting, or start over "
                "with another --weights"
            )


def _is_same(found: Any, wanted: Any) -> bool:
    """Return whether a setting in a checkpoint (``found``, e.g. the seed) equals the same setting
    of the training that resumes (``wanted``). Texts are compared by checksum, not by name."""
    if isinstance(wanted, Mapping) and "sha256" in wanted:
        has_name = isinstance(found, Mapping) and isinstance(found.get("name"), str)
        return has_name and {**found, "name": wanted["name"]} == wanted
    return bool(found == wanted)


def _faults(checkpoint: Checkpoint, setup: Setup) -> Iterator[str]:
    """Yield a description of each value in a checkpoint that the training ``setup`` cannot have
    written, e.g. a wrong number of steps."""
    position, recipe = checkpoint.position, setup.recipe
    step, epoch = position["step"], position["epoch"]
    batches = len(setup.feed.epoch(0))
    if step >= batches:
        yield f"an epoch has {batches:,} steps, but it continues after step {step:,}"
    elif position["steps"] != epoch * batches + step:
        yield (
            f"it has done {position['steps']:,} steps, but is at step {step + 1:,} of epoch "
            f"{epoch + 1}"
        )
    elif (rows := sum(rows for _, rows in position["sums"])) != step * recipe.batch:
        yield f"its losses cover {rows:,} rows, but {step * recipe.batch:,} rows were read"
    shapes = {p.name: setup.training.shape(p) for p in setup.training.parameters}
    slots = slot_shapes(setup.spec.update, shapes) if setup.spec.update else {}
    states = {n: a.shape for n, a in initial_state(setup.training, recipe.batch).items()}
    if checkpoint.slots.keys() != slots.keys():
        yield f"its optimizer has {_list_names(checkpoint.slots)}, expected {_list_names(slots)}"
        return
    for kind, arrays, wanted in (
        *((f"the optimizer's {name}", checkpoint.slots[name], slots[name]) for name in slots),
        ("the state", checkpoint.state, states),
    ):
        if {n: a.shape for n, a in arrays.items()} != wanted:
            yield f"{kind} does not have the names and shapes of the model"
    bad_array = weights.not_finite(checkpoint.more)
    if bad_array is not None:
        yield f"{bad_array!r} has numbers that are NaN or infinite"
    names = {SCALE, GOOD, UPDATES} if narrow(setup.request.dtype) == "float16" else set()
    if checkpoint.scaling.keys() != names or any(a.shape for a in checkpoint.scaling.values()):
        yield f"its loss scale has {_list_names(checkpoint.scaling)}, expected {sorted(names)}"
    elif names and not (checkpoint.scaling[SCALE] > 0 and checkpoint.scaling[UPDATES] >= 0):
        yield (
            f"its loss scale is {checkpoint.scaling[SCALE]} after "
            f"{checkpoint.scaling[UPDATES]} updates"
        )


def _list_names(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        names = [n for n in {**found, **wanted} if found.get(n) != wanted.get(n)]
        return ", ".join(f"{n} {found.get(n)!r}, now {wanted.get(n)!r}" for n in names)
    return f"{found!r}, now {wanted!r}"
