"""Values at a program's border, by name, and the checks of arrays that come in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.program.dims import Dim, bind
from harness.program.ir import Node, Port, Program, needed_nodes

# Batch sizes and lengths that the slices and windows of a model allow.

# Largest distance from the wanted batch size and length in the search.
REACH = 1024


def lacking(program: Program, sizes: Mapping[str, int]) -> Dim | None:
    """Return the first of ``program.room`` that is below 0 at these sizes, or None."""
    known = {**program.sizes, **sizes}
    for dim in program.room:
        if set(dim.names) <= known.keys() and dim.resolve(known) < 0:
            return dim
    return None


def fits(program: Program, batch: int, time: int) -> bool:
    """Return whether the model allows this batch size and length."""
    return lacking(program, {"batch": batch, "time": time}) is None


def nearest_sizes(program: Program, batch: int, time: int) -> tuple[int, int]:
    """Return the allowed batch size and length that are nearest to those wanted.

    Between two as near, the smaller one is taken.

    Raises:
        UsageError: none is allowed within :data:`REACH` of them.
    """
    short = None
    for length in _around(time):
        short = lacking(program, {"time": length})
        if short is not None:
            continue
        for rows in _around(batch):
            short = lacking(program, {"batch": rows, "time": length})
            if short is None:
                return rows, length
        if short is not None and "time" not in short.names:
            break
    raise UsageError(
        f"{program.name}: a slice or a window needs {short} to be 0 or more, and no batch and time "
        f"within {REACH} of {batch} and {time} make it so: give the spec other sizes"
    )


def _around(wanted: int) -> Iterable[int]:
    """Yield the numbers from 1 on, the nearest to ``wanted`` first."""
    yield wanted
    for off in range(1, REACH):
        if wanted - off >= 1:
            yield wanted - off
        yield wanted + off


# Results of a program: its outputs; with the loss and metrics; along cotangents; or only those of a
# training step or of a forward pass, as they are timed.
Mode = Literal["forward", "loss", "cotangents", "step", "ends"]


T = TypeVar("T")


def call_key(node: Node) -> str:
    """Return a layer's instance, or a loss's name."""
    return str(node.attributes.get("instance", node.attributes["label"]))


def owner_of(name: str) -> str:
    """Return the layer of a parameter or statistic: ``blocks.0.up`` for ``blocks.0.up.W``."""
    return name.rpartition(".")[0]


def local_of(name: str) -> str:
    """Return a parameter's or statistic's name in its layer: ``W`` for ``blocks.0.up.W``."""
    return name.rpartition(".")[2]


# Most variables that are checked one by one. A pass for each of more would take time quadratic in a
# model's depth.
ONE_BY_ONE = 64


def by_kind(names: Iterable[str]) -> list[list[str]]:
    """Group names that differ only in numbers: a parameter of all blocks of a model."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return [*kinds.values()]


def local_shapes(program: Program, node: Node) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a call's parameters and statistics, by local name."""
    ports = {p.value: p for p in (*program.parameters, *program.statistics)}
    roles = zip(node.attributes["roles"], node.inputs, strict=True)
    return {role: program.shape(ports[i]) for role, i in roles if i in ports}


def crossing_ports(program: Program) -> Iterable[tuple[str, Port]]:
    """Yield every port that comes in, with the prefix of its name."""
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
    """Return the inputs that the harness draws for every step, by the law in their ``init``."""
    return tuple(port for port in program.inputs if "noise" in (port.init or {}))


def float_inputs(program: Program) -> tuple[Port, ...]:
    """Return the float inputs of a batch, without noise."""
    noise = noise_ports(program)
    return tuple(
        port
        for port in program.inputs
        if program.type_of(port).kind == "float" and port not in noise
    )


def length_ports(program: Program) -> tuple[Port, ...]:
    """Return the inputs and targets that are lengths of rows: integers up to a size."""
    ports = (*program.inputs, *program.targets)
    return tuple(port for port in ports if "lengths" in (port.init or {}))


def without_noise(program: Program, inputs: Mapping[str, T]) -> dict[str, T]:
    """Return the inputs that are not noise of ``program``."""
    noise = {port.name for port in noise_ports(program)}
    return {name: array for name, array in inputs.items() if name not in noise}


def variable_ports(program: Program) -> dict[str, Port]:
    """Return the ports to differentiate against: parameters, float inputs and float state."""
    return {
        f"{prefix}{port.name}": port
        for prefix, port in crossing_ports(program)
        if prefix in ("", "input.", "state.") and program.type_of(port).kind == "float"
    }


def result_ports(program: Program, mode: Mode) -> dict[str, int]:
    """Return the values that go out in a mode, by name.

    ``loss`` has the loss and metrics. ``step`` has the loss, but no outputs and no metrics.
    ``ends`` has only those outputs from which no other output is made.
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
    """Return the values whose names start with ``prefix``, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def check_names(group: str, wanted: Iterable[str], given: Mapping[str, object]) -> None:
    """Check that every wanted name is given, and no unknown one.

    Raises:
        UsageError: one is missing or unknown.
    """
    wanted = list(wanted)
    for name in wanted:
        if name not in given:
            raise UsageError(f"{group} {name!r} is missing (needed: {', '.join(wanted)})")
    for name in given:
        if name not in wanted:
            raise UsageError(f"unknown {group} {name!r} (known: {', '.join(wanted) or 'none'})")


def port_shapes(
    program: Program, ports: Iterable[Port], sizes: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of ports in numbers, by name."""
    return {port.name: program.shape(port, sizes) for port in ports}


def check_arrays(group: str, shapes: Mapping[str, tuple[int, ...]], given: Arrays) -> None:
    """Check the names and shapes of arrays.

    Raises:
        UsageError: one is missing, unknown or of the wrong shape.
    """
    check_names(group, shapes, given)
    for name, shape in shapes.items():
        found = np.shape(given[name])
        if found != shape:
            raise UsageError(f"{group} {name}: expected shape {list(shape)}, found {list(found)}")


def check_batch(program: Program, groups: Mapping[str, Arrays]) -> dict[str, int]:
    """Check the arrays of a batch, and return the sizes that they decide (batch, time).

    ``groups`` holds arrays by port name, under ``input``, ``state`` and ``target``. Frameworks
    clamp or wrap an index out of range, or read zeros.

    Raises:
        UsageError: an array is missing or unknown, has the wrong shape, or an index out of range.
    """
    bound: dict[str, int] = {}
    for group, given in groups.items():
        ports = batch_ports(program)[group]
        check_names(group, [p.name for p in ports], given)
        for port in ports:
            name, shape = f"{group}.{port.name}", np.shape(given[port.name])
            bind(name, program.type_of(port).shape, shape, program.sizes, bound)
        for port in ports:
            check_entries(program, port, f"{group}.{port.name}", given[port.name], bound)
    check_room(program, bound)
    return bound


def check_entries(
    program: Program, port: Port, name: str, given: Any, sizes: Mapping[str, int]
) -> None:
    """Check the entries of an array against its port; ``sizes`` are those that the arrays decide.

    Raises:
        UsageError: an entry is out of range, or the entries are no integers or booleans.
    """
    type_, array = program.type_of(port), np.asarray(given)
    if type_.bound is not None:
        check_index(name, array, type_.bound.resolve({**program.sizes, **sizes}))
    elif type_.kind == "bool" and array.dtype.kind != "b":
        raise UsageError(f"{name}: expected booleans (true, false), found {array.dtype}")


def check_room(program: Program, bound: Mapping[str, int]) -> None:
    """Check that the sizes of the arrays keep slices and windows inside their axes.

    Raises:
        UsageError: one is too large, or too small.
    """
    short = lacking(program, bound)
    if short is not None:
        known = {**program.sizes, **bound}
        sizes = ", ".join(f"{name} {known[name]}" for name in short.names)
        raise UsageError(
            f"{program.name}: a slice or a window needs {short} to be 0 or more, with {sizes}"
        )


def batch_ports(program: Program) -> dict[str, tuple[Port, ...]]:
    """Return the ports of each batch, by the prefix of their names."""
    return {"input": program.inputs, "state": program.state, "target": program.targets}


def check_index(name: str, array: Array, bound: int) -> None:
    """Check that all entries are integers from 0 to ``bound - 1``.

    Raises:
        UsageError: one is not; the message says which.
    """
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name}: expected integers, found {array.dtype}")
    outside = (array < 0) | (array >= bound)
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UsageError(f"{name}{list(where)} is {array[where]}; allowed are 0 to {bound - 1}")
