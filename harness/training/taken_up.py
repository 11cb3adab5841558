"""Taking up a run that was cut off: whether a checkpoint is of this very run, in every part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.convert import weights
from harness.convert.weights import WeightsError
from harness.errors import HarnessError, UsageError
from harness.files import kinds
from harness.language.initial_values import initial_state
from harness.program.updates import GOOD, SCALE, UPDATES, slot_shapes
from harness.runtime.precision import narrow
from harness.training import checkpoint
from harness.training.checkpoint import Checkpoint
from harness.training.request import Setup

FORCE = "--force starts over in its place"


def find(path: Path | None, setup: Setup) -> Checkpoint | None:
    """The checkpoint to go on from; None where there is neither one nor weights.

    Raises:
        UsageError: it is of another run, or the weights beside it are.
        WeightsError: it is damaged, or not of this model.
        FileFault: something else is in its place.
    """
    if path is None:
        raise UsageError("--resume needs --weights: the checkpoint lies beside that file")
    place = checkpoint.place(path)
    there = kinds.check_kind(path, kinds.WEIGHTS)
    if not kinds.check_kind(place, kinds.CHECKPOINT):
        if there:
            raise UsageError(
                f"{path} is there, but no checkpoint {place.name} beside it to continue "
                f"from; {FORCE}"
            )
        return None
    found = checkpoint.load(place)
    weights.check(found.weights, setup.spec)
    _check_facts(place, found, setup)
    wrong = next(_faults(found, setup), None)
    if wrong is not None:
        raise WeightsError(f"{place} is not a checkpoint of this run: {wrong}; {FORCE}")
    if there:
        _check_beside(path, found)
    return found


def has_weights(path: Path, found: Checkpoint) -> bool:
    """Whether the weights at a path are those of a checkpoint's run, and not of one before it."""
    return kinds.check_kind(path, kinds.WEIGHTS) and _run_of(path) == found.weights.history["run"]


def _run_of(path: Path) -> Any:
    """Which run weights are of; None for those that no training has made."""
    return weights.load(path).history.get("run")


def _check_beside(path: Path, found: Checkpoint) -> None:
    """That weights are of the run, or those that it was told to replace."""
    made_with = found.weights.history
    if weights.stated_digest(path) == made_with.get("replaces"):
        return
    try:
        same = _run_of(path) == made_with["run"]
    except HarnessError as error:
        raise WeightsError(
            f"{error}. The checkpoint beside it is whole: --resume continues from that, once this "
            "file is moved away"
        ) from None
    if not same:
        raise UsageError(
            f"{path} holds other weights than the run of {checkpoint.place(path).name}: --resume "
            f"would replace them. Move them away, and it continues from the checkpoint; {FORCE}"
        )


def _check_facts(place: Path, found: Checkpoint, setup: Setup) -> None:
    made_with = found.weights.history
    for name, wanted in setup.facts.items():
        if not _alike(made_with[name], wanted):
            what = setup.data.other if name == "text" else f"another {name}"
            raise UsageError(
                f"{place} was made with {what}: "
                f"{_difference(made_with[name], wanted)}; ask for that, or start over with "
                "another --weights"
            )


def _alike(found: Any, wanted: Any) -> bool:
    """A text is the same wherever it lies: its checksum says so."""
    if isinstance(wanted, Mapping) and "sha256" in wanted:
        named = isinstance(found, Mapping) and isinstance(found.get("name"), str)
        return named and {**found, "name": wanted["name"]} == wanted
    return bool(found == wanted)


def _faults(found: Checkpoint, setup: Setup) -> Iterator[str]:
    """In words, what a run like this one cannot have left."""
    position, recipe = found.position, setup.recipe
    step, epoch = position["step"], position["epoch"]
    batches = len(setup.feed.epoch(0))
    if step >= batches:
        yield f"an epoch has {batches:,} steps, and it continues after {step:,}"
    elif position["steps"] != epoch * batches + step:
        yield f"it is after {position['steps']:,} steps, at step {step + 1:,} of epoch {epoch + 1}"
    elif sum(rows for _, rows in position["sums"]) != step * recipe.batch:
        yield "its losses are not of as many rows as were read"
    shapes = {p.name: setup.training.shape(p) for p in setup.training.parameters}
    slots = slot_shapes(setup.spec.update, shapes) if setup.spec.update else {}
    states = {n: a.shape for n, a in initial_state(setup.training, recipe.batch).items()}
    if found.slots.keys() != slots.keys():
        yield f"it keeps {_listed(found.slots)} of the optimizer, expected {_listed(slots)}"
        return
    for kind, arrays, wanted in (
        *((f"the optimizer's {name}", found.slots[name], slots[name]) for name in slots),
        ("the state", found.state, states),
    ):
        if {n: a.shape for n, a in arrays.items()} != wanted:
            yield f"{kind} is not of the names and shapes that the model has"
    odd = weights.not_finite(found.more)
    if odd is not None:
        yield f"{odd!r} has numbers that are not finite"
    names = {SCALE, GOOD, UPDATES} if narrow(setup.request.dtype) == "float16" else set()
    if found.scaling.keys() != names or any(a.shape for a in found.scaling.values()):
        yield f"it keeps {_listed(found.scaling)} of the scale, expected {sorted(names)}"
    elif names and not (found.scaling[SCALE] > 0 and found.scaling[UPDATES] >= 0):
        yield f"its scale is {found.scaling[SCALE]} after {found.scaling[UPDATES]} updates"


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _difference(found: Any, wanted: Any) -> str:
    """The difference of two values, briefly."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        names = [n for n in {**found, **wanted} if found.get(n) != wanted.get(n)]
        return ", ".join(f"{n} {found.get(n)!r}, now {wanted.get(n)!r}" for n in names)
    return f"{found!r}, now {wanted!r}"
