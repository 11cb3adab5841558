"""A run in the middle: weights, what the optimizer keeps, the state, and how far it has come.

A checkpoint is a file of weights (:mod:`harness.weights`), whole or not there, with its checksum;
what is no weight is among its statistics under names with slashes: ``slot/m/rnn.W``, ``state/h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import weights
from harness.weights import Array, Weights

SLOT, STATE = "slot/", "state/"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """``slots`` are by slot and parameter. ``position`` says where in the run: ``epoch``, ``step``
    in the epoch, ``steps`` in all, and ``sums``: of the losses, and the rows, of each stretch of
    the epoch so far."""

    weights: Weights
    slots: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)
    position: Mapping[str, Any] = field(default_factory=dict)


def place(path: Path) -> Path:
    """Where the checkpoint of a file of weights is."""
    return path.with_name(f"{path.name}.checkpoint")


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole; :class:`WeightsError` if that cannot be."""
    given = checkpoint.weights
    more = {
        f"{SLOT}{slot}/{name}": array
        for slot, arrays in checkpoint.slots.items()
        for name, array in arrays.items()
    }
    more |= {f"{STATE}{name}": array for name, array in checkpoint.state.items()}
    history = {**given.history, "position": dict(checkpoint.position)}
    weights.save(path, replace(given, statistics={**given.statistics, **more}, history=history))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; :class:`WeightsError` for a file that is none, or is damaged."""
    found = weights.load(path)
    if "position" not in found.history:
        raise weights.WeightsError(
            f"{str(path)!r} is no checkpoint, but a file of weights: a run cannot be taken up "
            "from it"
        )
    slots: dict[str, dict[str, Array]] = {}
    state: dict[str, Array] = {}
    statistics: dict[str, Array] = {}
    for name, array in found.statistics.items():
        if name.startswith(SLOT):
            slot, _, parameter = name.removeprefix(SLOT).partition("/")
            slots.setdefault(slot, {})[parameter] = array
        elif name.startswith(STATE):
            state[name.removeprefix(STATE)] = array
        else:
            statistics[name] = array
    history = {n: value for n, value in found.history.items() if n != "position"}
    bare = replace(found, statistics=statistics, history=history)
    return Checkpoint(bare, slots, state, found.history["position"])
