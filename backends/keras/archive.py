"""The variables of a ``.keras`` file, read as data: no layer of the file is made.

The archive's configuration is read for the names of layers and nothing else. Keras would make what
it names, which has been a way to run code in many of its versions. The variables are in an HDF5
file inside, under the classes of the layers in their order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.extend import Array, Program, UsageError, shorten
from harness.extend.formats import DESCRIBED, FLOATS, Archive, Damaged, Declared
from harness.extend.program import owner_of

PARTS = ("config.json", "model.weights.h5")
# Numbers of HDF5's own filters, and of that which h5py brings along: others are code from a disk.
FILTERS = frozenset({1, 2, 3, 32000})
# Bytes of a chunk, which is unpacked as a whole.
CHUNK = 1 << 24
# What says of a configuration's entry that it is an operation, which has no variables.
OPERATIONS = "keras.src.ops."


def text(archive: Archive, name: str, limit: int = DESCRIBED) -> str:
    """A part as text."""
    return archive.part(name, limit).decode("utf-8", "replace")


def layers(config: str) -> dict[str, tuple[str, str]]:
    """The layers of a model's configuration by name: the class of each, and its group of
    variables."""
    try:
        entries = json.loads(config)["config"]["layers"]
        classes = [(e["config"]["name"], e["class_name"], e.get("module")) for e in entries]
        kept = [(n, c) for n, c, m in classes if not str(m).startswith(OPERATIONS)]
        if not all(isinstance(n, str) and isinstance(c, str) for n, c in kept):
            raise TypeError("a name is not text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"its config.json is not that of a model: {error!r}") from None
    found, used = {}, dict[str, int]()
    for name, kind in kept:
        group = _snake(kind)
        used[group] = number = used.get(group, -1) + 1
        found[name] = kind, f"{group}_{number}" if number else group
    return found


def _snake(name: str) -> str:
    """``SimpleRNN`` as ``simple_rnn``, as Keras names groups."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


@contextmanager
def variables(archive: Archive, wanted: int) -> Iterator[Any]:
    """The HDF5 file inside; ``wanted`` is how many bytes the model's variables have."""
    import h5py

    # An optimizer keeps some numbers for each of the model's.
    part = archive.stream("model.weights.h5", 4 * wanted + DESCRIBED)
    try:
        file = h5py.File(part, "r")
    except Exception as error:
        raise Damaged(f"its model.weights.h5 is not an HDF5 file: {error}") from None
    with file:
        yield file


def declared(file: Any, group: str, layer: str, inner: Sequence[str], index: int) -> Declared:
    """One variable: number ``index`` of a layer, or of what ``inner`` names inside of it."""
    import h5py

    place = file
    for step in ("layers", group):
        place = _child(place, step, h5py.Group)
    if "vars" in place:
        # Keras of this time notes the name, and the order of layers alone could mislead.
        name = _child(place, "vars", h5py.Group).attrs.get("name", layer)
        if name != layer:
            raise Damaged(f"its variables are of {shorten(str(name))!r}, not of {layer!r}")
    for step in (*inner, "vars"):
        place = _child(place, step, h5py.Group)
    dataset = _child(place, str(index), h5py.Dataset)
    _check(dataset)
    dtype = dataset.dtype.newbyteorder("=")
    return Declared(tuple(dataset.shape), str(dtype), _loader(dataset))


def _loader(dataset: Any) -> Callable[[], Array]:
    def load() -> Array:
        try:
            return np.asarray(dataset[()]).astype(dataset.dtype.newbyteorder("="))
        except Exception as error:
            raise Damaged(f"{dataset.name} is damaged: {error}") from None

    return load


def _child(place: Any, name: str, kind: Any) -> Any:
    """What lies in a group itself: a link could lead to any file."""
    import h5py

    try:
        link = place.get(name, getlink=True)
        found = place[name] if isinstance(link, h5py.HardLink) else None
    except Exception as error:
        raise Damaged(f"it has no {name} in {place.name}: {error}") from None
    if not isinstance(found, kind):
        raise Damaged(f"{place.name} has no {kind.__name__.lower()} {name!r} of its own")
    return found


def _check(dataset: Any) -> None:
    """:class:`Damaged` for a dataset whose numbers lie elsewhere, or unpack to more than it has."""
    name = dataset.name
    if dataset.shape is None or dataset.external or dataset.is_virtual:
        raise Damaged(f"the numbers of {name} are not in the file")
    created = dataset.id.get_create_plist()
    used = {created.get_filter(number)[0] for number in range(created.get_nfilters())}
    if used - FILTERS:
        raise Damaged(f"{name} is packed by filters of somebody else")
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > CHUNK:
        raise Damaged(f"the chunks of {name} are too large")


def spec_of(archive: Archive, notes: str) -> str | None:
    """The model that a file says it is of, if it says so."""
    if notes not in archive.names:
        return None
    try:
        found = json.loads(text(archive, notes, 4 * DESCRIBED))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its {notes} is damaged: {error}") from None
    if not isinstance(found, Mapping) or not isinstance(found.get("spec"), str):
        raise Damaged(f"its {notes} names no spec")
    return str(found["spec"])


def instances(program: Program) -> list[str]:
    """The layers that have weights."""
    ports = (*program.parameters, *program.statistics)
    return list(dict.fromkeys(owner_of(port.name) for port in ports))


def declared_of(
    path: Path,
    program: Program,
    built: Any,
    there: Mapping[str, tuple[str, str]],
    file: Any,
) -> dict[str, Declared]:
    """What a file has of each variable of each layer, which is to be as in the model's own."""
    found = {}
    for key in instances(program):
        wanted = built.layers[key]
        kind, group = there.get(wanted.name, ("", ""))
        if not kind:
            names = ", ".join(map(shorten, there))
            raise UsageError(
                f"{path} has no layer {wanted.name!r}, which holds {key} of {program.name}; "
                f"it has {names}"
            )
        if kind != type(wanted).__name__:
            raise UsageError(
                f"{path}: layer {wanted.name!r} is to be a {type(wanted).__name__}; "
                f"found a {shorten(kind)}"
            )
        inner = ("cell",) if hasattr(wanted, "cell") else ()
        owner = wanted.cell if inner else wanted
        for index, variable in enumerate(owner.weights):
            if str(variable.dtype) not in FLOATS:
                continue
            one = declared(file, group, wanted.name, inner, index)
            if one.shape != tuple(variable.shape) or one.dtype not in FLOATS:
                raise UsageError(
                    f"{path}: layer {wanted.name!r} is to have {variable.name} of shape "
                    f"{list(variable.shape)}, float32 or float64, as a {kind} has; found "
                    f"{shorten(str(list(one.shape)))} of {shorten(one.dtype)} (other sizes than "
                    "the spec's are given by --size)"
                )
            found[f"{key}/{variable.name}"] = one
    return found
