"""Reduction of a failing pass to a smaller one: its arrays are cut, or its program is reduced to a
few nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.checking.reproducer import Failure, Pass
from harness.errors import HarnessError
from harness.files.kinds import GROUPS
from harness.language.axes import FREE_SIZES
from harness.language.program_checks import INCOMING, OUTGOING, check_program
from harness.oracle.case import values_of_ports
from harness.oracle.oracle import run as run_oracle
from harness.program.builder import Builder
from harness.program.ir import Node, Port, Program, Type, reads, walk_nodes
from harness.program.passes.rebuild import renumber
from harness.program.signature import crossing_ports, result_ports
from harness.runtime.answers import Arguments


def resize(failure: Failure, name: str, size: int, *, first: bool) -> Failure | None:
    """Return a copy of ``failure`` (a failing pass) with the size ``name`` reduced to ``size``, and
    with arrays cut to match.

    With ``first``, the first entries of each array remain, otherwise the last entries. Return None
    if the program does not allow the size, or if an array has too few entries.
    """
    sizes = {**failure.sizes, name: size}
    programs = [failure.training, failure.inference]
    if any(name in program.structural for program in programs):
        return None
    if name not in FREE_SIZES:
        programs = [p.with_sizes(**{name: size}) if name in p.sizes else p for p in programs]
    try:
        for program in programs:
            check_program(program)
        arrays: dict[str, ArrayDict] = {}
        for group in GROUPS:
            programs_of_failure = (failure.inference, failure.training)
            types = {
                port.name: p.type_of(port)
                for p in programs_of_failure
                for port in getattr(p, group)
            }
            arrays[group] = _cut_arrays(getattr(failure.run.material, group), types, sizes, first)
        along = failure.run.cotangents
        if along is not None:
            values = result_ports(failure.program, "forward")
            types = {name: failure.program.types[value] for name, value in values.items()}
            along = _cut_arrays(along, types, sizes, first)
    except (HarnessError, ValueError):
        return None
    material = replace(failure.run.material, **arrays)
    run = replace(failure.run, material=material, cotangents=along)
    return Failure(failure.cell, programs[0], programs[1], run)


def _cut_arrays(
    arrays: ArrayDict, types: Mapping[str, Type], sizes: Mapping[str, int], first: bool
) -> ArrayDict:
    cut_arrays = {}
    for name, type_ in types.items():
        if name in arrays:
            array = _cut_array(
                arrays[name], tuple(dim.resolve(sizes) for dim in type_.shape), first
            )
            cut_arrays[name] = array if type_.bound is None else array % type_.bound.resolve(sizes)
    return cut_arrays


def _cut_array(array: Array, shape: tuple[int, ...], first: bool) -> Array:
    """Cut an array to a smaller ``shape``. With ``first``, the first entries along every axis
    remain, otherwise the last entries."""
    if len(shape) != array.ndim or any(n > m for n, m in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{list(array.shape)} has no part of shape {list(shape)}")
    index = tuple(
        slice(0, n) if first else slice(m - n, m) for n, m in zip(shape, array.shape, strict=True)
    )
    return np.ascontiguousarray(array[index]).reshape(shape)


# A segment is a program that consists of some consecutive nodes of a larger program. Values that
# the nodes read become inputs, and values that later nodes use become outputs.
#
# The inputs have the values that the oracle computes. The loss is ``sum(output * along)`` over all
# outputs, where ``along`` is a random input. So a training pass returns results and gradients.

VALUE, ALONG = "value.", "along."
# Seed of the random arrays ``along``; it must differ from the seeds of cases.
SEED = 20


class Segments:
    """The segments of the program of ``failure`` (a failing pass). All segments use the same values
    of the oracle, which are computed once."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    def extract(self, start: int, stop: int) -> Failure | None:
        """Return a copy of the failing pass with a shorter program: only the nodes number ``start``
        to ``stop - 1``.

        The inputs of these nodes have the oracle's values. Return None if no other node uses a
        float result of these nodes, or if the nodes alone are not a valid program.
        """
        program = self._failure.program
        nodes = program.nodes[start:stop]
        produced = {value for node in nodes for value in node.outputs}
        read = dict.fromkeys(v for node in nodes for v in reads(node) if v not in produced)
        other_nodes = [node for node in program.nodes if node not in nodes]
        needed = {v for node in other_nodes for v in reads(node)} | _list_results(program)
        outputs = [v for v in produced if v in needed and program.types[v].kind == "float"]
        if not outputs:
            return None
        try:
            return _build_failure(self._failure, nodes, list(read), sorted(outputs), self._values)
        except (HarnessError, KeyError, ValueError):
            return None

    @cached_property
    def _values(self) -> Mapping[int, Array]:
        """The oracle's values outside of loops, by value number."""
        program = self._failure.program
        env = values_of_ports(program, self._failure.run.material)
        # Without targets, the loss and the nodes that use the loss cannot be computed.
        computed, nodes = set(env), []
        for node in program.nodes:
            if computed.issuperset(reads(node)):
                computed.update(node.outputs)
                nodes.append(node)
        return run_oracle(nodes, env, self._failure.sizes)


def _build_failure(
    failure: Failure,
    nodes: Sequence[Node],
    read: Sequence[int],
    outputs: Sequence[int],
    values: Mapping[int, Array],
) -> Failure:
    program, material = failure.program, failure.run.material
    builder = Builder(dict(program.types), dict(program.names))
    variables = {p.value: p for p in (*program.parameters, *program.statistics)}
    inputs: list[Port] = []
    arrays: dict[str, Array] = {}
    for value in read:
        if value in variables:
            continue
        if program.types[value].kind == "bool":
            raise ValueError("a truth value is not an input")
        port = Port(f"{VALUE}{_name_value(program, value)}", value)
        inputs.append(port)
        arrays[port.name] = _round_to_float32(values[value])
    builder.nodes += nodes
    loss = None
    random = np.random.default_rng(SEED)
    for value in outputs:
        along = builder.value(program.types[value])
        port = Port(f"{ALONG}{_name_value(program, value)}", along)
        inputs.append(port)
        arrays[port.name] = _round_to_float32(random.normal(size=np.shape(values[value])))
        term = add_inner_product(builder, value, along)
        loss = term if loss is None else builder.emit("add", loss, term)
    reduced = replace(
        program,
        nodes=tuple(builder.nodes),
        types=builder.types,
        names=builder.names,
        inputs=tuple(inputs),
        targets=(),
        state=(),
        parameters=tuple(variables[v] for v in read if variables.get(v) in program.parameters),
        statistics=tuple(variables[v] for v in read if variables.get(v) in program.statistics),
        outputs=tuple(Port(_name_value(program, value), value) for value in outputs),
        new_state=(),
        new_statistics=(),
        metrics=(),
        loss=loss,
    )
    reduced = prune(reduced)
    check_program(reduced)
    parameters = {p.name: material.parameters[p.name] for p in reduced.parameters}
    statistics = {p.name: material.statistics[p.name] for p in reduced.statistics}
    arguments = Arguments(parameters, statistics, arrays, {}, {})
    return Failure(
        failure.cell,
        replace(reduced, phase="training"),
        replace(reduced, phase="inference"),
        Pass(failure.run.check, failure.run.phase, arguments),
    )


def prune(program: Program) -> Program:
    """Remove unused values and sizes from a program. The remaining values get new, consecutive
    numbers, which a :class:`Builder` needs to add further nodes."""
    used = {port.value for _, port in crossing_ports(program)} | _list_results(program)
    for node in walk_nodes(program.nodes):
        used |= {*node.inputs, *node.outputs}
        if node.body is not None:
            used |= {*node.body.inputs, *node.body.outputs}
    new = {value: number for number, value in enumerate(sorted(used))}
    types = {new[v]: t for v, t in program.types.items() if v in used}
    sizes = {name for t in types.values() for dim in t.shape for name in dim.names}
    sizes |= {name for t in types.values() if t.bound for name in t.bound.names}
    text = repr(program.nodes)
    groups: dict[str, Any] = {
        group: tuple(replace(port, value=new[port.value]) for port in getattr(program, group))
        for group in (*INCOMING, *OUTGOING)
    }
    return replace(
        program,
        types=types,
        names={new[v]: n for v, n in program.names.items() if v in used},
        sizes={n: s for n, s in program.sizes.items() if n in sizes or n in text},
        nodes=renumber(program.nodes, new),
        loss=None if program.loss is None else new[program.loss],
        **groups,
    )


def _list_results(program: Program) -> set[int]:
    values = {port.value for group in OUTGOING for port in getattr(program, group)}
    return values | ({program.loss} if program.loss is not None else set())


def add_inner_product(builder: Builder, left: int, right: int) -> int:
    """Add nodes that compute the inner product of two values, and return the number of the
    product."""
    product = builder.emit("multiply", left, right)
    axes = tuple(range(len(builder.types[product].shape)))
    return builder.emit("sum", product, axis=axes, keepdims=False) if axes else product


def _name_value(program: Program, value: int) -> str:
    return program.names.get(value, f"v{value}").replace("/", ".")


def _round_to_float32(array: Array) -> Array:
    """Round a float array to float32, so that it has the same numbers in float32 and float64."""
    wide = np.asarray(array)
    return wide.astype(np.float32).astype(np.float64) if wide.dtype.kind == "f" else wide
