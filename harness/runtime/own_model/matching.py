"""Match the parameters of a spec with the arrays of a user's model, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import MOST_ERRORS, UsageError, did_you_mean, shorten
from harness.output.shell import quoted
from harness.program.dims import bind
from harness.program.ir import Program
from harness.program.signature import call_key, is_constant, is_listed, local_of, owner_of
from harness.runtime.native import Layout, Native
from harness.runtime.own_model.contract import ModelArray, OwnModel
from harness.runtime.own_model.renames import (
    PLUS,
    ArrayPart,
    Rename,
    fits,
    hint,
    list_some,
    renamed,
    split_sum,
    view_of,
    views_of,
)
from harness.runtime.packing import Part


class Sides:
    """The two sides of a match: a program of the spec, and the ``entries`` of a user's model.

    Names and ``rules`` connect the two sides. ``natives`` are the framework's own layers for the
    program. If the model has the packed tensors of such a layer, ``layout`` has these tensors
    (``rnn.weight_ih_l0``). Otherwise ``layout`` has the spec's parameters (``rnn.W_z``). ``shapes``
    are the shapes in ``layout``. ``every`` is the layout with the packed tensors of all native
    layers. ``spelled`` is :attr:`.contract.OwnModel.spelled`. ``left_out``: the spec lacks them.
    """

    def __init__(
        self,
        program: Program,
        natives: Mapping[str, Native],
        entries: Mapping[str, ModelArray],
        rules: Sequence[Rename],
        spelled: Mapping[str, str],
    ) -> None:
        self.spelled = spelled
        self.program, self.entries = program, entries
        self.rules = tuple(rule for rule in rules if not rule.leaves_out)
        self.left_out = [rule.theirs for rule in rules if rule.leaves_out]
        owners = {owner_of(port.name) for port in program.parameters}
        own = {k: n for k, n in natives.items() if k in owners and self._has_pieces(k, n)}
        self.layout, self.every = Layout(program, own), Layout(program, natives)
        zeros = {p.name: np.zeros(program.shape(p)) for p in program.parameters}
        self.shapes = {n: a.shape for n, a in self.layout.pack(zeros).items()}

    def _has_pieces(self, owner: str, native: Native) -> bool:
        """Return whether the model has the packed tensors of the framework's own layer."""
        pieces = [f"{owner}.{n}" for n in native.packing.pieces if n not in native.packing.frozen]
        owned = [p.name for p in self.program.parameters if owner_of(p.name) == owner]
        # If rules name only ``norm.gamma``, the model's ``norm.weight`` is in a different layer.
        ruled = any(renamed(name, self.rules)[1] for name in owned)
        return bool(pieces) and all(
            self.views(n) and (renamed(n, self.rules)[1] or not ruled) for n in pieces
        )

    def views(self, name: str) -> tuple[ArrayPart, ...]:
        """Return the model's parts whose sum is an array of the spec or a layer's tensor; empty if
        there are none."""
        text = renamed(name, self.rules)[0]
        other = self.spelled.get(local_of(text))
        with suppress(UsageError):  # :func:`_find_wrong_rules` reports the error
            views = views_of(text, self.entries, self.program.sizes)
            if views is None and other is not None:
                views = views_of(f"{owner_of(text)}.{other}", self.entries, {})
            return views or ()
        return ()

    def names(self) -> list[str]:
        """Return all names that rules may contain: parameters, layers' tensors, statistics."""
        pieces = [f"{k}.{n}" for k, packing in self.every.claimed.items() for n in packing.pieces]
        ports = (*self.program.parameters, *self.program.statistics)
        return list(dict.fromkeys([*(port.name for port in ports), *pieces]))


def dotted(name: str) -> str:
    """Return a tensor's name as rules write it: ``rnn.kernel`` for ``rnn/kernel``."""
    return name.replace("/", ".")


# The most names of one layer in a message.
OF_A_LAYER = 3
# The name of a tensor with a number in the name: ``weight_ih_l0_reverse``.
NUMBERED = re.compile(r".*?(?P<word>_[a-z]*)(?P<number>\d+)(?P<rest>\D*)")


def shape_message(
    sides: Sides, name: str, shape: tuple[int, ...], view: ArrayPart
) -> tuple[str, str]:
    """Return the message for an array that has another shape in the model, and a suggestion."""
    found_shape = view.shape(sides.entries[view.key].shape)
    sizes = ", ".join(f"{n}={v}" for n, v in sides.program.sizes.items())
    words = (
        f"{name} is {list(shape)} in the spec (with {sizes}), but {view} of the model is "
        f"{list(found_shape)}"
    )
    full_shape = sides.entries[view.key].shape
    if view.is_cut(full_shape):
        return (
            words,
            f"its slice exceeds {view.key}, which has shape {list(full_shape)}; set the "
            "sizes for which the rule holds with --size, or write them by name ([:units])",
        )
    if view.axes is None and (turn := _suffix(found_shape, shape)):
        order = "it is transposed" if turn == ".T" else "its channels come first"
        return words, f"{order}; use --map {quoted(f'{name}={view}{turn}')}"
    if sorted(found_shape) == sorted(shape):
        return (
            words,
            "its axes have another order; use "
            f"--map '{name}={view.key}.transpose(...)' with axis numbers as in numpy",
        )
    sizes_text = _guess_sizes(sides)
    advice = f"use --size {sizes_text}" if sizes_text else "set the sizes of the model with --size"
    return words, f"{advice}, or select another part with --map"


def _suffix(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Return the ``--map`` suffix that converts shape ``found`` to ``wanted``; empty if there is
    none.

    The suffix transposes a matrix, or turns a kernel ``[units, channels, ...]`` into ``[...,
    channels, units]``.
    """
    axes = (*range(2, len(found)), 1, 0)
    if len(found) < 2 or tuple(found[axis] for axis in axes) != wanted:
        return ""
    return f".transpose({', '.join(map(str, axes))})" if len(found) > 3 else ".T"


def _guess_sizes(sides: Sides) -> str:
    """Return the sizes that the model seems to have, as the value of ``--size``.

    Only sizes that differ from the program's are included.
    """
    bound: dict[str, int] = {}
    for port in sides.program.parameters:
        views, part = _sole_part(sides, port.name)
        if not views or views[0].is_cut(sides.entries[views[0].key].shape):
            continue
        view = views[0]
        shape = part.neutral(view.shape(sides.entries[view.key].shape))
        with suppress(UsageError):
            if shape is not None:
                bind(port.name, sides.program.type_of(port).shape, shape, {}, bound)
    own = sides.program.sizes
    return ",".join(f"{n}={v}" for n, v in bound.items() if own.get(n, v) != v)


def _sole_part(sides: Sides, name: str) -> tuple[tuple[ArrayPart, ...], Part]:
    """Return the model's parts that hold only this parameter of the spec, and its packing."""
    packing, plain = sides.layout.claimed.get(owner_of(name)), Part(local_of(name))
    if packing is None:
        return sides.views(name), plain
    for local, piece in packing.pieces.items():
        if isinstance(piece, Part) and piece.name == local_of(name):
            return sides.views(f"{owner_of(name)}.{local}"), piece
    return (), plain


def unmatched_message(
    sides: Sides, missing: Sequence[str], unset: Sequence[str], unused: Sequence[str]
) -> str:
    """Return the message for arrays that only one side has, with suggested rules.

    ``missing`` are arrays of the spec. ``unused`` are the model's arrays without a counterpart, and
    ``unset`` are the trained arrays among them.
    """
    unset_texts = [f"{key} {list(sides.entries[key].shape)}" for key in unset]
    without = f"the spec has no counterpart for {list_some(unset_texts)}"
    if not missing:
        return (
            f"{without}: declare it in the spec, or exclude it from training (as a buffer or a "
            f"constant), so that it keeps its values{_describe_untied(sides, unset)}"
        )
    parts = [f"the model lacks {list_some(_list_by_layer(sides, missing))}"]
    if unset:
        parts.append(without)
    else:
        others = [f"{key} {list(sides.entries[key].shape)}" for key in unused]
        parts.append(f"its unmatched arrays: {list_some(others) or 'none'}")
    guesses = list(dict.fromkeys(_guess_rules(sides, missing, unset or unused)))
    rules_text = " ".join(f"--map {quoted(g)}" for g in guesses) or "--map OURS=THEIRS"
    return f"{'; '.join(parts)}. Match the names with: {rules_text}"


def _describe_untied(sides: Sides, unset: Sequence[str]) -> str:
    """Return a hint if arrays have the shape of a weight that several layers of the spec share."""
    calls = Counter(node.attributes.get("instance") for node in sides.program.calls)
    tied = [name for name in sides.shapes if calls[owner_of(dotted(name))] > 1]
    for key in unset:
        shape = sides.entries[key].shape
        for name in tied:
            views = sides.views(dotted(name))
            if views and sides.entries[views[0].key].shape in (shape, shape[::-1]):
                return (
                    f". {key} is not tied to {views[0].key}: the spec uses {dotted(name)} in "
                    f"{calls[owner_of(dotted(name))]} places (shares:)"
                )
    return ""


def _list_by_layer(sides: Sides, missing: Sequence[str]) -> list[str]:
    moving = {p.name: sides.program.shape(p) for p in sides.program.statistics}
    shapes, layers = {**sides.shapes, **moving}, dict[str, list[str]]()
    for name in missing:
        full = dotted(name)
        layers.setdefault(owner_of(full), []).append(f"{local_of(full)} {list(shapes[name])}")
    return [f"{layer}'s {list_some(names, OF_A_LAYER)}" for layer, names in layers.items()]


def _guess_rules(sides: Sides, missing: Sequence[str], unset: Sequence[str]) -> Iterator[str]:
    """Yield rules that the user may need.

    First come layers whose tensors have the same names and shapes in the model, then single arrays
    whose shape occurs only once.
    """
    free = {key: sides.entries[key].shape for key in unset}
    single = []
    for owner in dict.fromkeys(owner_of(dotted(n)) for n in missing):
        pieces = _piece_shapes(sides, owner)
        prefixes = dict.fromkeys(map(owner_of, free))
        matching = [p for p in prefixes if _has_shapes(free, p, pieces)]
        among = [rule for p in prefixes for rule in _guess_numbered_rules(free, owner, p, pieces)]
        if len(matching) == 1 and matching[0] != owner:
            yield f"{owner}={matching[0]}"
            free = {k: s for k, s in free.items() if k not in _piece_names(matching[0], pieces)}
        elif among and not matching:
            rule, renamed_pieces = among[0]
            yield rule
            free = {k: s for k, s in free.items() if k not in renamed_pieces}
        else:
            single += [n for n in missing if owner_of(dotted(n)) == owner]
    shapes = {n: sides.shapes[n] for n in single if n in sides.shapes}
    for name, shape in shapes.items():
        fitting = [key for key, s in free.items() if s == shape or _suffix(s, shape)]
        rivals = [
            n for n, s in shapes.items() if s == shape or _suffix(s, shape) or _suffix(shape, s)
        ]
        # A square array fits with and without a transposition, so no rule can be guessed.
        if len(fitting) == len(rivals) == 1 and not (len(shape) > 1 and _suffix(shape, shape)):
            key = fitting[0]
            yield f"{dotted(name)}={key}{'' if free[key] == shape else _suffix(free[key], shape)}"


def _piece_names(prefix: str, pieces: Iterable[str]) -> set[str]:
    return {f"{prefix}.{name}" for name in pieces}


def _guess_numbered_rules(
    free: dict[str, tuple[int, ...]], owner: str, prefix: str, pieces: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, set[str]]]:
    """Yield rules for a layer that is one of several inside a layer of the model, with its tensors.

    An example is the second layer of ``torch.nn.LSTM``: its tensors have another number in their
    names.
    """
    parts = [NUMBERED.fullmatch(name) for name in pieces]
    ends = {(m["word"], m["number"]) for m in parts if m is not None}
    if not pieces or None in parts or len(ends) > 1:
        return
    ((word, own),) = ends
    more = "*" * any(m is not None and bool(m["rest"]) for m in parts)
    numbers = (m["number"] for key in free if (m := NUMBERED.fullmatch(local_of(key))))
    for number in sorted(set(numbers) - {own}, key=int):
        others = {n.replace(f"{word}{own}", f"{word}{number}"): s for n, s in pieces.items()}
        if _has_shapes(free, prefix, others):
            rule = f"{owner}.*{word}{own}{more}={prefix}.*{word}{number}{more}"
            yield rule, _piece_names(prefix, others)


def _has_shapes(
    free: dict[str, tuple[int, ...]], prefix: str, pieces: dict[str, tuple[int, ...]]
) -> bool:
    return bool(pieces) and all(free.get(f"{prefix}.{n}") == s for n, s in pieces.items())


def _piece_shapes(sides: Sides, owner: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's tensors, packed if the framework has such a layer."""
    packing = sides.every.claimed.get(owner)
    shapes = {n: s for n, s in sides.every.shapes.items() if owner_of(n) == owner}
    local = {local_of(n): np.zeros(s) for n, s in shapes.items()}
    packed = local if packing is None else packing.pack(local)
    frozen = frozenset() if packing is None else packing.frozen
    return {n: a.shape for n, a in packed.items() if n not in frozen}


@dataclass(frozen=True)
class Placement:
    """The shape of an array of the spec, and the parts of the model whose sum is the array."""

    shape: tuple[int, ...]
    views: tuple[ArrayPart, ...]

    def parts(self, read: Callable[[str], Any]) -> Array:
        """Return the parts of the arrays that ``read`` returns; each has the shape of the spec's
        array."""
        return np.stack(
            [view.of(np.asarray(read(view.key))).reshape(self.shape) for view in self.views]
        )

    def total(self, read: Callable[[str], Any]) -> Array:
        """Return the spec's array: the sum of its parts in the arrays that ``read`` returns."""
        return np.asarray(self.parts(read).sum(0))

    def __str__(self) -> str:
        return " + ".join(map(str, self.views))


@dataclass(frozen=True)
class ModelWeights:
    """The places of a spec's arrays in a model. The model's arrays in ``kept`` stay unchanged."""

    layout: Layout
    places: Mapping[str, Placement]
    statistics: Mapping[str, Placement]
    constants: Mapping[str, Placement] = field(default_factory=dict)
    kept: Sequence[str] = field(default=())

    def put(self, model: OwnModel, parameters: Arrays, statistics: Arrays) -> None:
        """Copy the spec's parameters, statistics and constants into the model."""
        packed = self.layout.pack(parameters)
        changed: ArrayDict = {}
        for name, place in self._all_places.items():
            array = statistics[name] if name in statistics else packed[name]
            for view, share in zip(place.views, split_sum(array, len(place.views)), strict=True):
                if view.key not in changed:
                    changed[view.key] = np.array(model.read(view.key))
                part = view.of(changed[view.key])
                part[...] = share.reshape(part.shape)
        model.put(changed)

    def take(self, arrays: Arrays) -> ArrayDict:
        """Convert gradients of the model's arrays to gradients of the spec's parameters.

        The gradient of a sum is the gradient of each summand; a wrong gradient of one summand
        changes the mean that is returned.
        """
        return self.layout.unpack(
            {
                name: np.asarray(place.parts(arrays.__getitem__).mean(0))
                for name, place in self.places.items()
                if all(view.key in arrays for view in place.views)
            }
        )

    def values(self, model: OwnModel) -> ArrayDict:
        """Return the model's current values of the spec's parameters."""
        return self.layout.unpack({n: p.total(model.read) for n, p in self.places.items()})

    def moved(self, model: OwnModel) -> ArrayDict:
        """Return the model's current values of the spec's statistics."""
        return {name: place.total(model.read) for name, place in self.statistics.items()}

    def keys(self) -> dict[str, list[str]]:
        """Return the model's arrays that hold each array, by the spec's name."""
        places = self._all_places.items()
        return {dotted(name): [v.key for v in place.views] for name, place in places}

    def described(self) -> dict[str, str]:
        """Return the place of each array as text, by the spec's name."""
        return {dotted(name): str(place) for name, place in self._all_places.items()}

    @property
    def _all_places(self) -> dict[str, Placement]:
        return {**self.places, **self.statistics, **self.constants}


def find_weights(sides: Sides) -> ModelWeights:
    """Search for a program's weights in a user's model, by rules and by name; return their places.

    Raises:
        UsageError: arrays are missing, left over or of another shape; two arrays are in one place;
            or rules match no name. The message has all of these errors.
    """
    wrong_rules = _find_wrong_rules(sides)
    misfits, missing, found = dict[str, str](), list[str](), dict[str, Placement]()
    moving = {port.name: sides.program.shape(port) for port in sides.program.statistics}
    constants = {port.name for port in sides.program.statistics if is_constant(port)}
    # The model can compute a constant that the spec lists.
    optional = {port.name for port in sides.program.statistics if is_listed(port)}
    optional.update(sides.layout.frozen)
    touched = set[str]()
    for name, shape in {**sides.shapes, **moving}.items():
        views = sides.views(dotted(name))
        touched |= {view.key for view in views}
        wrong = [m for view in views if (m := _find_misfit(sides, name, shape, view))]
        for words, advice in wrong:  # one wrong size makes many weights wrong
            misfits.setdefault(advice, f"{words}: {advice}")
        if views and not wrong:
            found[name] = Placement(shape, views)
        elif not views and name not in optional and dotted(name) not in wrong_rules:
            missing.append(name)
    overlaps, unset = _find_overlaps(sides, found)
    errors = [*dict.fromkeys(wrong_rules.values()), *misfits.values(), *overlaps]
    left = [key for key in unset if not errors or key not in touched]
    kept = [key for key in sides.entries if key not in touched]
    if missing or (left and not errors):
        errors.append(unmatched_message(sides, missing, left, kept))
    if errors:
        more = [f"and {len(errors) - MOST_ERRORS} more errors"] * (len(errors) > MOST_ERRORS)
        raise UsageError("\n".join([*errors[:MOST_ERRORS], *more]))
    statistics = {n: place for n, place in found.items() if n in moving and n not in constants}
    fixed = {n: place for n, place in found.items() if n in constants}
    places = {name: place for name, place in found.items() if name not in moving}
    return ModelWeights(sides.layout, places, statistics, fixed, kept)


def _find_misfit(
    sides: Sides, name: str, shape: tuple[int, ...], view: ArrayPart
) -> tuple[str, str] | None:
    """Return the problem of a part that cannot hold an array of the spec, and the advice."""
    full_shape = sides.entries[view.key].shape
    try:
        if fits(view.shape(full_shape), shape):
            return None
    except (IndexError, ValueError) as error:
        return f"--map: {view} is not a part of {view.key} {list(full_shape)}", str(error)
    return shape_message(sides, dotted(name), shape, view)


def _find_overlaps(sides: Sides, places: Mapping[str, Placement]) -> tuple[list[str], list[str]]:
    """Return a message for each array of the model that two arrays of the spec use in the same
    place, and the trained arrays of the model that have entries which the spec does not set."""
    masks: dict[str, Array] = {}
    names: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    for name, view in ((name, view) for name, place in places.items() for view in place.views):
        key = view.key
        mask = masks.setdefault(key, np.zeros(sides.entries[key].shape, np.bool_))
        part = view.of(mask)
        if part.any():
            errors[key] = (
                f"{' and '.join([*names[key], name])} use the same entries of {key} in the "
                "model: if they are one parameter, share it in the spec (shares:); otherwise "
                "give each of them a different part with --map, such as "
                f"{dotted(name)}={key}[0:4]"
            )
        part[...] = True
        names.setdefault(key, []).append(name)
    trained = [k for k, e in sides.entries.items() if e.trained and k not in sides.left_out]
    return [*errors.values()], [k for k in trained if k not in masks or not masks[k].all()]


def _find_wrong_rules(sides: Sides) -> dict[str, str]:
    """Return a message for each rule that matches no name of the spec or leads to no array of the
    model, by the spec's name or by the rule."""
    errors: dict[str, str] = {}
    reported: dict[Rename, str] = {}
    used: set[Rename] = set()
    known, sizes = sides.names(), sides.program.sizes
    for name in known:
        text, rule = renamed(name, sides.rules)
        if rule is None:
            continue
        used.add(rule)
        try:
            views = views_of(text, sides.entries, sizes)
        except UsageError as error:
            message = str(error)
        else:
            if views is not None or len(rule.ours) != len(name.split(".")):
                continue
            lacking = (t for t in PLUS.split(text) if view_of(t, sides.entries, sizes) is None)
            message = f"--map {name}={text}: the model has no " + "; no ".join(
                f"{t!r}{hint(t, sides.entries)}" for t in lacking
            )
        # A rule for many blocks is reported once.
        errors[name] = reported.setdefault(rule, message)
    # A rule for a layer without weights, e.g. pool=maxpool, only matches modules.
    keys = map(call_key, sides.program.calls)
    used.update(rule for key in keys if (rule := renamed(key, sides.rules)[1]))
    for rule in sides.rules:
        if rule not in used:
            ours = ".".join(rule.ours)
            errors[str(rule)] = (
                f"--map {rule}: the spec has no {ours!r}"
                f"{did_you_mean(ours, known)} (it has: {shorten(', '.join(known), 200)})"
            )
    for theirs in [name for name in sides.left_out if name not in sides.entries]:
        errors[theirs] = f"--map -={theirs}: the model lacks it{hint(theirs, sides.entries)}"
    return errors
