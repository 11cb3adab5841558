"""Inputs and outputs of a program by name, and checks of the arrays for its inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.program.dims import Dim, bind
from harness.program.ir import Node, Port, Program, needed_nodes, walk_nodes

# Search for batch sizes and lengths with which the slices and windows of a model fit.

# The search tries batch sizes and lengths that differ from the requested ones by less than REACH.
REACH = 1024


def first_negative(program: Program, sizes: Mapping[str, int]) -> Dim | None:
    """Return the first dimension in ``program.room`` that is negative at these sizes, or None. Such
    a dimension is negative if a slice or a window does not fit into its axis."""
    all_sizes = {**program.sizes, **sizes}
    for dim in program.room:
        if set(dim.names) <= all_sizes.keys() and dim.resolve(all_sizes) < 0:
            return dim
    return None


# Attributes of operations whose numbers frameworks fix when they build a layer.
_FIXED = ("size", "stride", "dilation", "padding", "after", "classes")


def input_sizes(program: Program) -> set[str]:
    """Return the sizes with a number that code can read from its inputs instead, because only the
    inputs depend on them: no parameter, statistic, constant, state, window or count of layers."""
    axes = {dim for port in program.inputs for dim in program.type_of(port).shape}
    stored = (*program.parameters, *program.statistics, *program.state)
    fixed = {dim for port in stored for dim in program.type_of(port).shape}
    for node in walk_nodes(program.nodes):
        for name in _FIXED:
            dims = node.attributes.get(name, ())
            fixed.update(map(Dim.of, dims if isinstance(dims, tuple) else (dims,)))
    names = {name for dim in fixed for name in dim.names}.union(program.structural)
    return {name for name in program.sizes if Dim.of(name) in axes} - names


def fits(program: Program, batch: int, time: int) -> bool:
    """Return whether all slices and windows of a model fit into arrays with this batch size and
    number of steps."""
    return first_negative(program, {"batch": batch, "time": time}) is None


def nearest_sizes(program: Program, batch: int, time: int) -> tuple[int, int]:
    """Return the batch size and number of steps that a model allows and that are nearest to
    ``batch`` and ``time``. Of two equally near sizes, the smaller one is chosen.

    Raises:
        UsageError: the model allows no sizes that differ by less than :data:`REACH`.
    """
    negative = None
    for length in _around(time):
        negative = first_negative(program, {"time": length})
        if negative is not None:
            continue
        for rows in _around(batch):
            negative = first_negative(program, {"batch": rows, "time": length})
            if negative is None:
                return rows, length
        if negative is not None and "time" not in negative.names:
            break
    raise UsageError(
        f"{program.name}: a slice or a window needs {negative} >= 0, but no batch and time within "
        f"{REACH} of {batch} and {time} allow that: give the spec other sizes"
    )


def _around(center: int) -> Iterable[int]:
    """Yield positive numbers in order of their distance from ``center``; the greatest distance is
    :data:`REACH`."""
    yield center
    for distance in range(1, REACH):
        if center - distance >= 1:
            yield center - distance
        yield center + distance


# Selections of a program's results, see `result_ports`. The last two are for timing: the results of
# a training step, and of a forward pass.
Mode = Literal["forward", "loss", "cotangents", "step", "ends"]


T = TypeVar("T")


def call_key(node: Node) -> str:
    """Return the name by which a call node is identified: the layer's name in the model, or the
    name of the loss."""
    return str(node.attributes.get("instance", node.attributes["label"]))


def owner_of(name: str) -> str:
    """Return the layer of a parameter or statistic: ``blocks.0.up`` for ``blocks.0.up.W``."""
    return name.rpartition(".")[0]


def local_of(name: str) -> str:
    """Return a parameter's or statistic's name in its layer: ``W`` for ``blocks.0.up.W``."""
    return name.rpartition(".")[2]


# The largest number of variables that are checked one by one. One pass for each variable takes time
# quadratic in the depth of a model.
ONE_BY_ONE = 64


def by_kind(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ only in numbers, e.g. ``blocks.0.W`` and ``blocks.1.W`` in
    one group."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return [*kinds.values()]


def local_shapes(program: Program, node: Node) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters and statistics that a call node reads. The keys are names
    within the layer, e.g. ``W``."""
    ports = {p.value: p for p in (*program.parameters, *program.statistics)}
    roles = zip(node.attributes["roles"], node.inputs, strict=True)
    return {role: program.shape(ports[i]) for role, i in roles if i in ports}


def crossing_ports(program: Program) -> Iterable[tuple[str, Port]]:
    """Yield pairs (prefix, port) for all input ports of a program. The prefix begins the name of
    the port's array in a batch, e.g. ``("input.", port)``."""
    for prefix, ports in (
        ("", program.parameters),
        ("input.", program.inputs),
        ("target.", program.targets),
        ("state.", program.state),
        ("statistics.", program.statistics),
    ):
        for port in ports:
            yield prefix, port


def noise_ports(program: Program) -> tuple[Port, ...]:
    """Return the inputs that are random noise, e.g. for dropout. The harness draws new noise for
    every step from the distribution in ``init``."""
    return tuple(port for port in program.inputs if "noise" in (port.init or {}))


def noise_in_order(program: Program) -> list[str]:
    """Return the names of the inputs that are random noise, in the order in which the program uses
    them."""
    names = {port.value: port.name for port in noise_ports(program)}
    used = (value for node in program.nodes for value in node.inputs)
    return [names[value] for value in dict.fromkeys(used) if value in names]


def is_constant(port: Port) -> bool:
    """Return whether a port in ``program.statistics`` is a constant, which training does not
    change, and not a moving statistic."""
    return "constant" in (port.init or {})


def is_listed(port: Port) -> bool:
    """Return whether a port is a constant whose entries the spec states."""
    return "value" in (port.init or {})


def index_names(program: Program) -> set[str]:
    """Return the names of a program's constants whose entries are indices."""
    return {port.name for port in program.statistics if program.type_of(port).kind == "index"}


def float_inputs(program: Program) -> tuple[Port, ...]:
    """Return the inputs that are floats and not noise."""
    noise = noise_ports(program)
    return tuple(
        port
        for port in program.inputs
        if program.type_of(port).kind == "float" and port not in noise
    )


def length_ports(program: Program) -> tuple[Port, ...]:
    """Return the inputs and targets that hold the length of each sequence, e.g. of a padded
    sentence. The lengths are integers from 0 to a size."""
    ports = (*program.inputs, *program.targets)
    return tuple(port for port in ports if "lengths" in (port.init or {}))


def without_noise(program: Program, inputs: Mapping[str, T]) -> dict[str, T]:
    """Return a copy of ``inputs`` (input name -> array) without the inputs that are random noise in
    ``program``."""
    noise = {port.name for port in noise_ports(program)}
    return {name: array for name, array in inputs.items() if name not in noise}


def variable_ports(program: Program) -> dict[str, Port]:
    """Return a dictionary of all ports that have gradients: parameters (key ``rnn.W``), float
    inputs (key ``input.x``) and float states (key ``state.h``)."""
    return {
        f"{prefix}{port.name}": port
        for prefix, port in crossing_ports(program)
        if prefix in ("", "input.", "state.") and program.type_of(port).kind == "float"
    }


def result_ports(program: Program, mode: Mode) -> dict[str, int]:
    """Return a dictionary from name, e.g. ``output.logits``, to value number, for the values that a
    program returns in a mode.

    All modes return the new state and statistics. The modes differ in the other results:

    - ``forward`` and ``cotangents``: all outputs
    - ``loss``: all outputs, the loss and the metrics
    - ``step``: only the loss
    - ``ends``: only the outputs that no node of the program reads
    """
    results = {f"output.{p.name}": p.value for p in program.outputs if mode != "step"}
    if mode == "ends":
        nodes = needed_nodes(program.nodes, results.values())
        used = {value for node in nodes for value in node.inputs}
        results = {n: v for n, v in results.items() if v not in used}
    results.update({f"state.{p.name}": p.value for p in program.new_state})
    results.update({f"statistics.{p.name}": p.value for p in program.new_statistics})
    if mode in ("loss", "step") and program.loss is not None:
        results["loss"] = program.loss
    if mode == "loss":
        results.update({f"metric.{p.name}": p.value for p in program.metrics})
    return results


def group_of(tensors: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return the items of ``tensors`` whose names start with ``prefix``, without the prefix:
    ``input.x`` becomes ``x``."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def check_names(group: str, expected: Iterable[str], arrays: Mapping[str, object]) -> None:
    """Check that the names of ``arrays`` are exactly the ``expected`` names. ``group`` (e.g.
    ``input``) says in the error message what the arrays are.

    Raises:
        UsageError: a name is missing or unknown.
    """
    expected = list(expected)
    for name in expected:
        if name not in arrays:
            raise UsageError(f"{group} {name!r} is missing (needed: {', '.join(expected)})")
    for name in arrays:
        if name not in expected:
            raise UsageError(f"unknown {group} {name!r} (known: {', '.join(expected) or 'none'})")


def port_shapes(
    program: Program, ports: Iterable[Port], sizes: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return a mapping from the name of each port to its shape in numbers. ``sizes`` has the sizes
    that the arrays decide, e.g. batch and time."""
    return {port.name: program.shape(port, sizes) for port in ports}


def check_arrays(group: str, shapes: Mapping[str, tuple[int, ...]], arrays: Arrays) -> None:
    """Check the names and shapes of arrays. ``group`` (e.g. ``parameter``) says in the error
    message what the arrays are.

    Raises:
        UsageError: an array is missing, is unknown or has a wrong shape.
    """
    check_names(group, shapes, arrays)
    for name, shape in shapes.items():
        found_shape = np.shape(arrays[name])
        if found_shape != shape:
            raise UsageError(
                f"{group} {name}: expected shape {list(shape)}, found {list(found_shape)}"
            )


def check_batch(program: Program, groups: Mapping[str, Arrays]) -> dict[str, int]:
    """Check the arrays of a batch. Return the sizes that the arrays decide, e.g. ``{"batch": 8,
    "time": 20}``.

    ``groups`` maps each of ``input``, ``state`` and ``target`` to a mapping from name to array.
    Indices are checked because frameworks do not report an index that is out of range.

    Raises:
        UsageError: an array is missing, is unknown or has a wrong shape, or an index is out of
            range.
    """
    bound: dict[str, int] = {}
    for group, arrays in groups.items():
        ports = batch_ports(program)[group]
        check_names(group, [p.name for p in ports], arrays)
        for port in ports:
            name, shape = f"{group}.{port.name}", np.shape(arrays[port.name])
            bind(name, program.type_of(port).shape, shape, program.sizes, bound)
        for port in ports:
            check_entries(program, port, f"{group}.{port.name}", arrays[port.name], bound)
    check_room(program, bound)
    return bound


def check_entries(
    program: Program, port: Port, name: str, values: Any, sizes: Mapping[str, int]
) -> None:
    """Check the entries of the array ``values`` if the port holds indices or booleans. ``sizes``
    has the sizes that the arrays decide (batch, time).

    Raises:
        UsageError: an index is not an integer or out of range, or a condition is not a boolean.
    """
    type_, array = program.type_of(port), np.asarray(values)
    if type_.bound is not None:
        check_index(name, array, type_.bound.resolve({**program.sizes, **sizes}))
    elif type_.kind == "bool" and array.dtype.kind != "b":
        raise UsageError(f"{name}: expected booleans (true, false), found {array.dtype}")


def check_room(program: Program, array_sizes: Mapping[str, int]) -> None:
    """Check that all slices and windows of a program fit into arrays with these sizes (batch,
    time).

    Raises:
        UsageError: a slice or a window does not fit.
    """
    negative = first_negative(program, array_sizes)
    if negative is not None:
        all_sizes = {**program.sizes, **array_sizes}
        sizes = ", ".join(f"{name} {all_sizes[name]}" for name in negative.names)
        raise UsageError(
            f"{program.name}: a slice or a window needs {negative} >= 0, found {sizes}"
        )


def batch_ports(program: Program) -> dict[str, tuple[Port, ...]]:
    """Return the ports that get new arrays for each batch: a mapping from ``input``, ``state`` and
    ``target`` to ports."""
    return {"input": program.inputs, "state": program.state, "target": program.targets}


def check_index(name: str, array: Array, bound: int) -> None:
    """Check that all entries of an array are integers from 0 to ``bound - 1``.

    Raises:
        UsageError: an entry is not an integer in this range; the message names the first wrong
            entry.
    """
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name}: expected integers, found {array.dtype}")
    outside = (array < 0) | (array >= bound)
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UsageError(f"{name}{list(where)} is {array[where]}; allowed are 0 to {bound - 1}")
