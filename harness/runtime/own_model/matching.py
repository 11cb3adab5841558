"""The parameters of a spec in the arrays of a user's model, by name, there and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError, shorten
from harness.program.dims import bind
from harness.program.ir import Program
from harness.program.signature import local_of, owner_of
from harness.runtime.layout import Layout
from harness.runtime.native import Native
from harness.runtime.own_model.contract import Entry, OwnModel
from harness.runtime.own_model.renames import Rename, View, fits, hint, renamed, view_of
from harness.runtime.packing import Part

SHOWN = 8


@dataclass(frozen=True)
class Place:
    """Where an array of the spec is: its own shape there, and the part of the model's array."""

    shape: tuple[int, ...]
    view: View


@dataclass(frozen=True)
class Weights:
    """The arrays of a spec in those of a model. ``kept`` stay as the model has them."""

    layout: Layout
    places: Mapping[str, Place]
    statistics: Mapping[str, Place]
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

    def described(self) -> dict[str, str]:
        """By name of the spec, where each array is."""
        both = {**self.places, **self.statistics}
        return {name.replace("/", "."): str(place.view) for name, place in both.items()}


class Matching:
    """Finds the weights of a program in a model, by rules and by name.

    ``natives`` are the framework's own layers of the program: a model has either their tensors
    (``rnn.weight_ih_l0``) or the spec's parameters (``rnn.W_z``).
    """

    def __init__(
        self,
        program: Program,
        natives: Mapping[str, Native],
        entries: Mapping[str, Entry],
        rules: Sequence[Rename],
    ) -> None:
        self.program, self.entries, self.rules = program, entries, rules
        self._used: set[Rename] = set()
        owners = {owner_of(port.name) for port in program.parameters}
        own = {k: n for k, n in natives.items() if k in owners and self._has_pieces(k, n)}
        self.layout = Layout(program, own)
        zeros = {p.name: np.zeros(program.shape(p)) for p in program.parameters}
        self.shapes = {n: a.shape for n, a in self.layout.pack(zeros).items()}
        self._every = Layout(program, natives)

    def _has_pieces(self, owner: str, native: Native) -> bool:
        """Whether the model has a layer's tensors, and not its parameters one by one."""
        pieces = [n for n in native.packing.pieces if n not in native.packing.frozen]
        return bool(pieces) and all(self._view(f"{owner}.{n}") is not None for n in pieces)

    def _view(self, name: str) -> View | None:
        return view_of(renamed(name, self.rules)[0], self.entries)

    def weights(self) -> Weights:
        """All of them.

        Raises:
            UsageError: one is missing, left over, of another shape or in two places; or a rule
                is about nothing.
        """
        frozen = self.layout.frozen
        places, missing = {}, []
        for name, shape in self.shapes.items():
            view = self._found(name.replace("/", "."))
            if view is not None:
                places[name] = self._place(name, shape, view)
            elif name not in frozen:
                missing.append(name)
        statistics = {}
        for port in self.program.statistics:
            view = self._found(port.name)
            if view is None:
                missing.append(port.name)
            else:
                shape = self.program.shape(port)
                statistics[port.name] = self._place(port.name, shape, view)
        left = self._left_over([*places.items(), *statistics.items()])
        if missing or left:
            raise UsageError(self._told(missing, left))
        self._check_rules()
        touched = {p.view.key for p in (*places.values(), *statistics.values())}
        kept = [key for key in self.entries if key not in touched]
        return Weights(self.layout, places, statistics, kept)

    def _found(self, name: str) -> View | None:
        text, rule = renamed(name, self.rules)
        view = view_of(text, self.entries)
        if rule is not None:
            self._used.add(rule)
            if view is None and len(rule.ours) == len(name.split(".")):
                raise UsageError(
                    f"--map {name}={text}: the model has no {text!r}{hint(text, self.entries)}"
                )
        return view

    def _place(self, name: str, shape: tuple[int, ...], view: View) -> Place:
        whole = self.entries[view.key].shape
        try:
            part = view.of(np.empty(whole, np.bool_))
        except (IndexError, ValueError) as error:
            raise UsageError(
                f"--map: {view} cannot be taken of {view.key} {list(whole)}: {error}"
            ) from None
        if not fits(part.shape, shape):
            raise UsageError(self._misfit(name.replace("/", "."), shape, view, part))
        return Place(shape, view)

    def _misfit(self, name: str, shape: tuple[int, ...], view: View, part: Array) -> str:
        sizes = ", ".join(f"{n}={v}" for n, v in self.program.sizes.items())
        words = (
            f"{name} is {list(shape)} in the spec (at {sizes}), and {view} of the model is "
            f"{list(part.shape)}"
        )
        if view.axes is None and part.ndim == 2 and part.shape[::-1] == shape:
            return f"{words}: it is transposed; say --map {name}={view}.T"
        if sorted(part.shape) == sorted(shape):
            return (
                f"{words}: its axes stand in another order; say "
                f"--map '{name}={view.key}.transpose(...)' with the axes as numpy counts them"
            )
        such = self._sizes()
        asked = f"say --size {such}" if such else "give the sizes that the model has by --size"
        return f"{words}: {asked}, or name another part of it by --map"

    def _sizes(self) -> str:
        """The sizes that the model seems to have, where they are others."""
        bound: dict[str, int] = {}
        for port in self.program.parameters:
            view, turned = self._alone(port.name)
            if view is None:
                continue
            shape = view.of(np.empty(self.entries[view.key].shape, np.bool_)).shape
            with suppress(UsageError):
                dims = self.program.type_of(port).shape
                bind(port.name, dims, shape[::-1] if turned else shape, {}, bound)
        own = self.program.sizes
        return ",".join(f"{n}={v}" for n, v in bound.items() if own.get(n, v) != v)

    def _alone(self, name: str) -> tuple[View | None, bool]:
        """The part of the model that is one parameter of the spec, and whether transposed."""
        packing = self.layout.claimed.get(owner_of(name))
        if packing is None:
            return self._view(name), False
        for local, piece in packing.pieces.items():
            if isinstance(piece, Part) and piece.name == local_of(name):
                return self._view(f"{owner_of(name)}.{local}"), piece.transpose
        return None, False

    def _left_over(self, places: Iterable[tuple[str, Place]]) -> list[str]:
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
                    f"{name.replace('/', '.')}={key}[0:4]"
                )
            part[...] = True
            names.setdefault(key, []).append(name)
        trained = [key for key, entry in self.entries.items() if entry.trained]
        return [key for key in trained if key not in owners or not owners[key].all()]

    def _told(self, missing: Sequence[str], left: Sequence[str]) -> str:
        parts = []
        if missing:
            parts.append(f"the model lacks {_some(self._by_layer(missing))}")
        if left:
            listed = [f"{key} {list(self.entries[key].shape)}" for key in left]
            parts.append(f"the spec has nothing for {_some(listed)}")
        guesses = list(dict.fromkeys(self._guesses(missing, left)))
        such = " ".join(f"--map {g}" for g in guesses) or "--map OURS=THEIRS"
        if not missing:
            return (
                f"{parts[0]}: declare it in the spec, or keep it from training (a buffer, a "
                "constant), and it stays as it is"
            )
        return f"{'; '.join(parts)}. Say which is which: {such}"

    def _by_layer(self, missing: Sequence[str]) -> list[str]:
        """What is missing with its shapes, the parameters of a layer together."""
        moving = {p.name: self.program.shape(p) for p in self.program.statistics}
        shapes, layers = {**self.shapes, **moving}, dict[str, list[str]]()
        for name in missing:
            full = name.replace("/", ".")
            layers.setdefault(owner_of(full), []).append(f"{local_of(full)} {list(shapes[name])}")
        return [f"{layer}'s {_some(names, 3)}" for layer, names in layers.items()]

    def _guesses(self, missing: Sequence[str], left: Sequence[str]) -> Iterator[str]:
        """Rules that may be meant: layers whose tensors have the same names and shapes, then single
        arrays of a shape that only one has."""
        free = {key: self.entries[key].shape for key in left}
        open_names = []
        for owner in dict.fromkeys(owner_of(n.replace("/", ".")) for n in missing):
            pieces = self._pieces(owner)
            found = [
                prefix
                for prefix in dict.fromkeys(map(owner_of, free))
                if pieces and all(free.get(f"{prefix}.{n}") == s for n, s in pieces.items())
            ]
            if len(found) == 1 and found[0] != owner:
                yield f"{owner}={found[0]}"
                free = {k: s for k, s in free.items() if owner_of(k) != found[0]}
            else:
                open_names += [n for n in missing if owner_of(n.replace("/", ".")) == owner]
        for name in open_names:
            shape = self.shapes.get(name)
            same = [key for key, s in free.items() if s == shape]
            turned = [key for key, s in free.items() if shape is not None and s == shape[::-1]]
            if len({*same, *turned}) == 1:
                text = same[0] if same else f"{turned[0]}.T"
                yield f"{name.replace('/', '.')}={text}"

    def _pieces(self, owner: str) -> dict[str, tuple[int, ...]]:
        """The tensors of a layer in the framework's own form, or else in the spec's."""
        packing = self._every.claimed.get(owner)
        shapes = {n: s for n, s in self._every.shapes.items() if owner_of(n) == owner}
        local = {local_of(n): np.zeros(s) for n, s in shapes.items()}
        if packing is None:
            return {n: a.shape for n, a in local.items()}
        packed = packing.pack(local)
        return {n: a.shape for n, a in packed.items() if n not in packing.frozen}

    def _check_rules(self) -> None:
        for rule in self.rules:
            if rule not in self._used:
                ours = ".".join(rule.ours)
                known = [n.replace("/", ".") for n in self.shapes]
                raise UsageError(
                    f"--map {ours}={rule.theirs}: nothing of the spec was looked for under "
                    f"{ours!r}{hint(ours, known).replace('the model', 'the spec')}"
                )


def _some(names: Sequence[str], most: int = SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shorten(name, 120) for name in names[:most]) + more
