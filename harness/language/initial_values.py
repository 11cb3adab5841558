"""Initial values of a program's parameters, statistics and state."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.language.initializers import Law, check_values, draw, generator
from harness.language.schema import initial_state_value
from harness.program.ir import Port, Program
from harness.program.signature import is_constant, is_listed


def initial_parameters(program: Program, seed: int) -> dict[str, Array]:
    """Draw the initial parameters from their declared distributions. Return a dictionary from name
    to float64 array. Parameters with the same ``block`` are drawn as a single matrix."""
    parameters: dict[str, Array] = {}
    for ports in parameter_blocks(program):
        block = np.concatenate(
            [
                draw(law, shape, generator(seed, f"{_generator_name(ports)}/{number}"))
                for number, (law, shape) in enumerate(block_parts(program, ports))
            ]
        )
        parameters.update(_split_block(program, ports, block))
    return parameters


def initial_statistics(program: Program) -> dict[str, Array]:
    """Return the initial moving statistics and the constants: a dictionary from name to array."""
    statistics: dict[str, Array] = {}
    for port in program.statistics:
        if is_constant(port):
            statistics[port.name] = constant_array(program, port, 0)
            continue
        ((law, shape),) = block_parts(program, [port])
        statistics.update(_split_block(program, [port], draw(law, shape, generator(0, port.name))))
    return statistics


def constant_array(program: Program, port: Port, seed: int) -> Array:
    """Return the entries of a constant, in float64 or int64. If the spec does not state them, they
    are drawn with ``seed``."""
    shape, type_ = program.shape(port), program.type_of(port)
    if port.init is not None and "value" in port.init:
        dtype = np.float64 if type_.kind == "float" else np.int64
        return np.full(shape, np.array(port.init["value"], dtype))
    if type_.bound is not None:
        bound = type_.bound.resolve(program.sizes)
        return generator(seed, port.name).integers(0, bound, shape)
    ((law, block_shape),) = block_parts(program, [port])
    return draw(law, block_shape, generator(seed, port.name)).reshape(shape)


def listed_constants(program: Program) -> dict[str, Array]:
    """Return the constants whose entries the spec lists, by name."""
    listed = filter(is_listed, program.statistics)
    return {port.name: constant_array(program, port, 0) for port in listed}


def initial_state(program: Program, batch: int) -> dict[str, Array]:
    """Return the state before the first batch: a dictionary from name to float64 array."""
    sizes = {**program.sizes, "batch": batch}
    return {
        port.name: np.full(program.shape(port, sizes), state_start(port)) for port in program.state
    }


def reset_state(program: Program, state: Arrays) -> ArrayDict:
    """Return the initial state of a program by name, with the shapes and dtypes of the arrays in
    ``state``."""
    return {p.name: np.full_like(state[p.name], state_start(p)) for p in program.state}


def state_start(port: Port) -> float:
    """Return the number with which all entries of a state are initialised."""
    assert port.init is not None
    return initial_state_value(port.init["init"])


def check_initial_values(program: Program, values: Mapping[str, Array]) -> list[str]:
    """Test initial parameters against their declared distributions. Return a message for each
    parameter that fails a test. Parameters that are drawn as one matrix (a block) are tested
    together."""
    faults = []
    for ports in parameter_blocks(program):
        block = np.concatenate([np.atleast_1d(values[p.name]) for p in ports], axis=-1)
        start = 0
        for law, shape in block_parts(program, ports):
            rows = shape[0]
            fault = check_values(block[start : start + rows], law)
            if fault:
                faults.append(f"{', '.join(p.name for p in ports)}: {fault}")
            start += rows
    return faults


def parameter_blocks(program: Program) -> list[list[Port]]:
    """Return lists of parameters. The parameters in one list have the same declared ``block``, and
    are drawn together as one matrix. A parameter without a block is alone in its list."""
    groups: dict[str, list[Port]] = {}
    for port in program.parameters:
        init = port.init or {}
        groups.setdefault(init.get("block") or port.name, []).append(port)
    return list(groups.values())


def block_parts(program: Program, ports: list[Port]) -> list[tuple[Law, tuple[int, ...]]]:
    """Return pairs (distribution, shape) for the matrix as which the parameters ``ports`` of one
    block are drawn. The shape is that of the rows to which the distribution applies.

    Several pairs mean that groups of rows have different distributions. The shape of a scalar is
    ``[1]``.
    """
    shapes = [program.shape(port) or (1,) for port in ports]
    columns = sum(shape[-1] for shape in shapes)
    parts = []
    for stripe in (ports[0].init or {})["stripes"]:
        rows = stripe["rows"].resolve(program.sizes)
        shape = (*shapes[0][:-1], columns)
        if len(shape) > 1:
            shape = (rows, *shape[1:])
        # The last two axes of a kernel are channels. Fan-in and fan-out include all positions.
        places = prod(shape[:-2])
        fan_in, fan_out = places * shape[-2 if len(shape) > 1 else 0], places * shape[-1]
        parts.append((Law(stripe["law"], fan_in, fan_out, stripe["arguments"]), shape))
    return parts


def _generator_name(ports: list[Port]) -> str:
    return str((ports[0].init or {}).get("block") or ports[0].name)


def _split_block(program: Program, ports: list[Port], block: Array) -> dict[str, Array]:
    shapes = [program.shape(port) for port in ports]
    widths = [(shape or (1,))[-1] for shape in shapes]
    pieces = np.split(block, np.cumsum(widths)[:-1], axis=-1)
    return {
        port.name: np.ascontiguousarray(piece).reshape(shape)
        for port, piece, shape in zip(ports, pieces, shapes, strict=True)
    }
