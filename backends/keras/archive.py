"""A reader for the variables of a ``.keras`` file. It does not create the layers.

From the file's configuration, only the names of layers are read. Keras would create the objects in
the configuration, and in many versions code in a file could run. The variables are in an HDF5 file
in the archive, grouped by layer class and order.
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
from harness.extend.formats import DESCRIBED, FLOATS, INTEGERS, Archive, Damaged, Declared
from harness.extend.program import index_names, owner_of

PARTS = ("config.json", "model.weights.h5")
# The numbers of the compression filters that HDF5 and h5py contain. For other filters, HDF5 would
# load code from disk.
FILTERS = frozenset({1, 2, 3, 32000})
# The largest size of a chunk in bytes. HDF5 decompresses whole chunks.
CHUNK = 1 << 24
# The module of operations in a configuration. Operations have no variables.
OPERATIONS = "keras.src.ops."


def text(archive: Archive, name: str, limit: int = DESCRIBED) -> str:
    """Return the text of the file ``name`` in the archive. A file of more than ``limit`` bytes is
    an error."""
    return archive.part(name, limit).decode("utf-8", "replace")


def layers(config: str) -> dict[str, tuple[str, str]]:
    """Return a dictionary from the name of each layer in a configuration to two texts: the layer's
    class, and the group in the HDF5 file that has its variables.

    Raises:
        Damaged: the configuration does not describe a model.
    """
    try:
        entries = json.loads(config)["config"]["layers"]
        classes = [(e["config"]["name"], e["class_name"], e.get("module")) for e in entries]
        own_layers = [(n, c) for n, c, m in classes if not str(m).startswith(OPERATIONS)]
        if not all(isinstance(n, str) and isinstance(c, str) for n, c in own_layers):
            raise TypeError("a name is not text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"its config.json does not describe a model: {error!r}") from None
    by_name, used = {}, dict[str, int]()
    for name, kind in own_layers:
        group = _snake_case(kind)
        used[group] = number = used.get(group, -1) + 1
        by_name[name] = kind, f"{group}_{number}" if number else group
    return by_name


def _snake_case(name: str) -> str:
    """Convert a class name to a group name as Keras does: ``SimpleRNN`` to ``simple_rnn``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


@contextmanager
def variables(archive: Archive, model_bytes: int) -> Iterator[Any]:
    """Open the HDF5 file in the archive, as a context manager. ``model_bytes`` is the size of the
    model's variables, which limits what is read.

    Raises:
        Damaged: the file is not an HDF5 file.
    """
    import h5py

    # The file may also contain optimizer state, with a few numbers for each number of the model.
    part = archive.stream("model.weights.h5", 4 * model_bytes + DESCRIBED)
    try:
        file = h5py.File(part, "r")
    except Exception as error:
        raise Damaged(f"its model.weights.h5 is not an HDF5 file: {error}") from None
    with file:
        yield file


def declared(file: Any, group: str, layer: str, inner: Sequence[str], index: int) -> Declared:
    """Return the description of a variable in ``file``: number ``index`` of the object at the path
    ``inner`` (e.g. a cell) inside a layer. ``group`` is the layer's group in the HDF5 file.

    Raises:
        Damaged: the variables belong to another layer.
    """
    import h5py

    place = file
    for step in ("layers", group):
        place = _child(place, step, h5py.Group)
    if "vars" in place:
        # Current Keras stores the layer's name. Compare the name, because the order of layers may
        # differ.
        name = _child(place, "vars", h5py.Group).attrs.get("name", layer)
        if name != layer:
            raise Damaged(f"its variables belong to {shorten(str(name))!r}, not to {layer!r}")
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
    """Return the direct member ``name`` of an HDF5 group, which must be of the class ``kind``. A
    link is an error, because it could lead to any file.

    Raises:
        Damaged: there is no such member, or it is a link.
    """
    import h5py

    try:
        link = place.get(name, getlink=True)
        member = place[name] if isinstance(link, h5py.HardLink) else None
    except Exception as error:
        raise Damaged(f"it has no {name} in {place.name}: {error}") from None
    if not isinstance(member, kind):
        raise Damaged(f"{place.name} has no {kind.__name__.lower()} {name!r} in this file")
    return member


def _check(dataset: Any) -> None:
    """Check that a dataset of an HDF5 file has no external data, no unknown filters and no large
    chunks.

    Raises:
        Damaged: the dataset has one of them.
    """
    name = dataset.name
    if dataset.shape is None or dataset.external or dataset.is_virtual:
        raise Damaged(f"the values of {name} are stored outside of the file")
    created = dataset.id.get_create_plist()
    used = {created.get_filter(number)[0] for number in range(created.get_nfilters())}
    if used - FILTERS:
        raise Damaged(f"{name} is compressed with an unknown filter")
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > CHUNK:
        raise Damaged(f"the chunks of {name} are too large")


def spec_of(archive: Archive, notes: str) -> str | None:
    """Return the model's name from the file that the harness adds to an archive, whose name is
    ``notes``; return None if this file is missing.

    Raises:
        Damaged: the file is damaged.
    """
    if notes not in archive.names:
        return None
    try:
        notes_content = json.loads(text(archive, notes, 4 * DESCRIBED))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its {notes} is damaged: {error}") from None
    if not isinstance(notes_content, Mapping) or not isinstance(notes_content.get("spec"), str):
        raise Damaged(f"its {notes} names no spec")
    return str(notes_content["spec"])


def instances(program: Program) -> list[str]:
    """Return the names of the layers that have parameters or statistics."""
    ports = (*program.parameters, *program.statistics)
    return list(dict.fromkeys(owner_of(port.name) for port in ports))


def is_stored(variable: Any, key: str, program: Program) -> bool:
    """Return whether a file holds a variable of the layer ``key``: a float, or the indices of a
    constant. The random seed of a recurrent layer is not used."""
    return str(variable.dtype) in FLOATS or f"{key}.{variable.name}" in index_names(program)


def declare_variables(
    path: Path,
    program: Program,
    built: Any,
    groups: Mapping[str, tuple[str, str]],
    file: Any,
) -> dict[str, Declared]:
    """Return a dictionary of the descriptions of all variables in a file, after checking them
    against ``built``, the model's Keras layers.

    Raises:
        UsageError: a layer is missing or has another class, or a variable has another shape.
    """
    by_path = {}
    for key in instances(program):
        keras_layer = built.layers[key]
        kind, group = groups.get(keras_layer.name, ("", ""))
        if not kind:
            names = ", ".join(map(shorten, groups))
            raise UsageError(
                f"{path} has no layer {keras_layer.name!r}, which should have {key} of "
                f"{program.name}; it has {names}"
            )
        if kind != type(keras_layer).__name__:
            raise UsageError(
                f"{path}: layer {keras_layer.name!r} must be a {type(keras_layer).__name__}; "
                f"found a {shorten(kind)}"
            )
        inner = ("cell",) if hasattr(keras_layer, "cell") else ()
        owner = keras_layer.cell if inner else keras_layer
        for index, variable in enumerate(owner.weights):
            if not is_stored(variable, key, program):
                continue
            kinds = FLOATS if str(variable.dtype) in FLOATS else INTEGERS
            stored = declared(file, group, keras_layer.name, inner, index)
            if stored.shape != tuple(variable.shape) or stored.dtype not in kinds:
                raise UsageError(
                    f"{path}: layer {keras_layer.name!r} must have {variable.name} of shape "
                    f"{list(variable.shape)}, {' or '.join(kinds)}, as in a {kind}; found "
                    f"{shorten(str(list(stored.shape)))} of {shorten(stored.dtype)} (if the "
                    "sizes differ from the spec's, use --size)"
                )
            by_path[f"{key}/{variable.name}"] = stored
    return by_path
