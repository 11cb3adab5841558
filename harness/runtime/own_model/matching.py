"""The parameters of a spec in the arrays of a user's model, by name, there and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError, did_you_mean, shorten
from harness.runtime.layout import Layout
from harness.runtime.own_model.contract import OwnModel
from harness.runtime.own_model.mismatches import misfit, unmatched
from harness.runtime.own_model.renames import ArrayPart, Rename, fits, hint, renamed, view_of
from harness.runtime.own_model.sides import Sides, dotted


@dataclass(frozen=True)
class Placement:
    """Where an array of the spec is: its own shape there, and the part of the model's array."""

    shape: tuple[int, ...]
    view: ArrayPart


@dataclass(frozen=True)
class ModelWeights:
    """The arrays of a spec in those of a model. ``kept`` stay as the model has them."""

    layout: Layout
    places: Mapping[str, Placement]
    statistics: Mapping[str, Placement]
    kept: Sequence[str] = field(default=())

    def put(self, model: OwnModel, parameters: Arrays, statistics: Arrays) -> None:
        """Give the model the spec's parameters and statistics."""
        packed = self.layout.pack(parameters)
        changed: ArrayDict = {}
        for name, place in (*self.places.items(), *self.statistics.items()):
            key = place.view.key
            if key not in changed:
                changed[key] = np.array(model.read(key))
            part = place.view.of(changed[key])
            array = statistics[name] if name in statistics else packed[name]
            part[...] = array.reshape(part.shape)
        model.put(changed)

    def take(self, arrays: Arrays) -> ArrayDict:
        """Gradients of the model's arrays as those of the spec's parameters."""
        return self.layout.unpack(
            {
                name: place.view.of(arrays[place.view.key]).reshape(place.shape)
                for name, place in self.places.items()
                if place.view.key in arrays
            }
        )

    def moved(self, model: OwnModel) -> ArrayDict:
        """The model's statistics as they are now, by ``statistics.NAME``."""
        return {
            f"statistics.{name}": place.view.of(model.read(place.view.key)).reshape(place.shape)
            for name, place in self.statistics.items()
        }

    def described(self) -> dict[str, str]:
        """By name of the spec, where each array is."""
        both = {**self.places, **self.statistics}
        return {dotted(name): str(place.view) for name, place in both.items()}


class Matching:
    """Finds the weights of a program in a model, by rules and by name."""

    def __init__(self, sides: Sides) -> None:
        self.sides, self.entries = sides, sides.entries

    def weights(self) -> ModelWeights:
        """All of them.

        Raises:
            UsageError: one is missing, left over, of another shape or in two places; or a rule
                is about nothing.
        """
        self._check_rules()
        frozen = self.sides.layout.frozen
        places, missing = {}, []
        for name, shape in self.sides.shapes.items():
            view = self.sides.view(dotted(name))
            if view is not None:
                places[name] = self._place(name, shape, view)
            elif name not in frozen:
                missing.append(name)
        statistics = {}
        for port in self.sides.program.statistics:
            view = self.sides.view(port.name)
            if view is None:
                missing.append(port.name)
            else:
                shape = self.sides.program.shape(port)
                statistics[port.name] = self._place(port.name, shape, view)
        left = self._left_over([*places.items(), *statistics.items()])
        touched = {p.view.key for p in (*places.values(), *statistics.values())}
        kept = [key for key in self.entries if key not in touched]
        if missing or left:
            raise UsageError(unmatched(self.sides, missing, left, kept))
        return ModelWeights(self.sides.layout, places, statistics, kept)

    def _place(self, name: str, shape: tuple[int, ...], view: ArrayPart) -> Placement:
        whole = self.entries[view.key].shape
        try:
            found = view.shape(whole)
        except (IndexError, ValueError) as error:
            raise UsageError(
                f"--map: {view} cannot be taken of {view.key} {list(whole)}: {error}"
            ) from None
        if not fits(found, shape):
            raise UsageError(misfit(self.sides, dotted(name), shape, view))
        return Placement(shape, view)

    def _left_over(self, places: Iterable[tuple[str, Placement]]) -> list[str]:
        """What the model has and the spec does not give, with slices where it gives a part.

        Raises:
            UsageError: two arrays of the spec are in one place.
        """
        owners: dict[str, Array] = {}
        names: dict[str, list[str]] = {}
        for name, place in places:
            key = place.view.key
            if key not in owners:
                owners[key] = np.zeros(self.entries[key].shape, np.bool_)
            part = place.view.of(owners[key])
            if part.any():
                raise UsageError(
                    f"{' and '.join([*names[key], name])} are all in {key} of the model, where "
                    "one would write over the other: if they are one parameter, have the spec "
                    "share it (shares:), else give each its part by --map, such as "
                    f"{dotted(name)}={key}[0:4]"
                )
            part[...] = True
            names.setdefault(key, []).append(name)
        trained = [key for key, entry in self.entries.items() if entry.trained]
        return [key for key in trained if key not in owners or not owners[key].all()]

    def _check_rules(self) -> None:
        """:class:`UsageError` for a rule about nothing, and for one that leads nowhere."""
        used: set[Rename] = set()
        known = self.sides.names()
        for name in known:
            text, rule = renamed(name, self.sides.rules)
            if rule is None:
                continue
            used.add(rule)
            whole = len(rule.ours) == len(name.split("."))
            if whole and view_of(text, self.entries) is None:
                raise UsageError(
                    f"--map {name}={text}: the model has no {text!r}{hint(text, self.entries)}"
                )
        for rule in self.sides.rules:
            if rule not in used:
                ours = ".".join(rule.ours)
                raise UsageError(
                    f"--map {ours}={rule.theirs}: the spec has no {ours!r}"
                    f"{did_you_mean(ours, known)} (it has: {shorten(', '.join(known), 200)})"
                )
