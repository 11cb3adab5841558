"""Random test arrays that make errors of a backend visible.

Biases are not 0, scales are not 1, moving statistics differ from their initial values, and
recurrent weights are not symmetric. With the usual initial values, most planted errors change no
output. All values are representable in float32, so that float32 and float64 get the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.language.initial_values import constant_array
from harness.language.initializers import generator
from harness.language.noise import draw_noise
from harness.oracle.time_limit import check_time
from harness.program.ir import Port, Program
from harness.program.signature import (
    is_constant,
    is_listed,
    length_ports,
    noise_ports,
    result_ports,
)
from harness.runtime.answers import Arguments
from harness.text.vocabulary import one_hot


def single(array: Array) -> Array:
    """Round an array to float32 precision, but return it as float64."""
    return array.astype(np.float32).astype(np.float64)


def draw(
    program: Program, batch: int, time: int, seed: int, gain: float = 1.0, rotation: int = 0
) -> Arguments:
    """Draw random parameters, statistics, inputs, states and targets of a program for one batch.
    All parameters with two or more axes are multiplied by ``gain``, a power of two. The rows of
    masks and the entries of lengths are rotated by ``rotation`` positions."""
    sizes = {"batch": batch, "time": time}
    parameters = {p.name: parameter(program, p, seed) for p in program.parameters}
    return Arguments(
        parameters={n: a * gain if a.ndim > 1 else a for n, a in parameters.items()},
        statistics={p.name: _statistic(program, p, seed) for p in program.statistics},
        inputs={p.name: data(program, p, sizes, seed, rotation) for p in program.inputs},
        state={p.name: data(program, p, sizes, seed) for p in program.state},
        targets={p.name: target(program, p, sizes, seed, rotation) for p in program.targets},
    )


def _statistic(program: Program, port: Port, seed: int) -> Array:
    """Draw a moving statistic, or return a constant. If the spec states the entries of a constant,
    they are exact. Other float entries are rounded to float32."""
    if not is_constant(port):
        return parameter(program, port, seed)
    entries = constant_array(program, port, seed)
    return entries if is_listed(port) or entries.dtype.kind == "i" else single(entries)


def parameter(program: Program, port: Port, seed: int) -> Array:
    """Draw a parameter or a moving statistic. Its entries differ from special values such as 0 and
    1.

    The entries of matrices and kernels have the standard deviation 1.2 / sqrt(n), where n is the
    product of all axes but the last. Gates then leave their linear range without saturating.
    Entries of a vector lie between 0.4 and 1.4 if its initial value is 1 (scales and variances).
    Entries of other vectors have a random sign and a magnitude between 0.2 and 0.7.
    """
    check_time()
    shape = program.shape(port)
    random = generator(seed, port.name)
    if len(shape) >= 2:
        return single(random.normal(size=shape) * (1.2 / math.sqrt(math.prod(shape[:-1]))))
    magnitude = random.uniform(0.4, 1.4, shape)
    if _is_initialised_with_ones(port):
        return single(magnitude)
    return single(magnitude * random.choice([-0.5, 0.5], shape))


def _is_initialised_with_ones(port: Port) -> bool:
    stripes = (port.init or {}).get("stripes", ())
    return bool(stripes) and stripes[0]["law"] == "ones"


def data(
    program: Program, port: Port, sizes: Mapping[str, int], seed: int, rotation: int = 0
) -> Array:
    """Draw the array of an input or a state. According to the port, the array has noise from the
    port's distribution, valid indices, a mask, or normally distributed floats. ``rotation`` moves
    the rows of masks and lengths by this number of positions."""
    shape, type_ = program.shape(port, sizes), program.type_of(port)
    if port in noise_ports(program):
        return draw_noise(port.init or {}, shape, port.name, seed, 0)
    random = generator(seed, f"{port.name} {shape}")
    if type_.kind != "float":
        return _draw_integers(program, port, sizes, random, rotation)
    return single(random.normal(size=shape) * 0.7)


def _draw_integers(
    program: Program,
    port: Port,
    sizes: Mapping[str, int],
    random: np.random.Generator,
    rotation: int,
) -> Array:
    """Draw a mask, lengths or indices that cover the whole allowed range.

    The first three rows of a mask are True for all steps, for no step, and for the first step only.
    If ``rotation`` is odd, the third row is True for the first half of the steps. All rows are then
    moved by ``rotation`` positions. For lengths, :func:`_first_lengths` chooses the first three
    rows.
    """
    shape, type_ = program.shape(port, sizes), program.type_of(port)
    if type_.bound is None:
        mask = random.integers(0, 2, shape).astype(np.bool_)
        rows = mask.reshape(shape[0], -1) if shape else mask.reshape(1, 1)
        third_length = max(rows.shape[1] // 2, 1) if rotation % 2 else 1
        for mask_row, length in zip(rows, (None, 0, third_length), strict=False):
            mask_row[:] = False
            mask_row[:length] = True
        return np.roll(mask, rotation, 0) if shape else mask
    bound = type_.bound.resolve({**program.sizes, **sizes})
    indices = random.integers(0, bound, shape)
    if port in length_ports(program):
        first_lengths = _first_lengths(program, port, sizes, rotation)[: indices.size]
        indices.flat[: len(first_lengths)] = first_lengths
        indices = np.roll(indices, rotation, 0) if shape else indices
    return indices


def _first_lengths(
    program: Program, port: Port, sizes: Mapping[str, int], rotation: int
) -> list[int]:
    """Return the first three sequence lengths: the maximum, 0, and 1. If ``rotation`` is odd, the
    third length is half the maximum.

    A model may have two inputs of lengths. For example, ``ctc`` has the number of steps and the
    number of labels. If ``rotation`` is even, the three rows of such a model are: the maximum of
    both inputs; one step more than labels; one label more than steps.
    """
    all_sizes = {**program.sizes, **sizes}
    largest = {}
    for length_port in length_ports(program):
        bound = program.type_of(length_port).bound
        assert bound is not None
        largest[length_port.name] = bound.resolve(all_sizes) - 1
    own_largest = largest[port.name]
    if len(largest) == 1 or rotation % 2:
        return [own_largest, 0, max((own_largest + 1) // 2, 1) if rotation % 2 else 1]
    steps, *labels = largest.values()
    spare, short = min(steps - 1, *labels), min(2, *labels)
    is_first = list(largest).index(port.name) == 0
    return [own_largest, spare + is_first, short - is_first]


def target(
    program: Program, port: Port, sizes: Mapping[str, int], seed: int, rotation: int = 0
) -> Array:
    """Draw a target: class indices, a mask, or floats. Each row of a float target is 0.75 at a
    random class plus 0.25 at a second random class, so that it sums to exactly 1. A float target
    without axes is a normally distributed number."""
    shape, type_ = program.shape(port, sizes), program.type_of(port)
    random = generator(seed, f"target {port.name} {shape}")
    if type_.kind != "float":
        return _draw_integers(program, port, sizes, random, rotation)
    if not shape:
        return single(np.asarray(random.normal()))
    likely, unlikely = (random.integers(0, shape[-1], shape[:-1]) for _ in range(2))
    return 0.75 * one_hot(likely, shape[-1]) + 0.25 * one_hot(unlikely, shape[-1])


def cotangents(program: Program, batch: int, time: int, seed: int) -> ArrayDict:
    """Draw a random cotangent (the gradient that flows into a backward pass) for every output and
    new state; return a dictionary from name to array. Cotangents of ones would hide errors: the
    gradient of the sum of a softmax is 0."""
    sizes = {**program.sizes, "batch": batch, "time": time}
    arrays = {}
    for name, value in result_ports(program, "forward").items():
        if name.startswith(("output.", "state.")):
            shape = tuple(d.resolve(sizes) for d in program.types[value].shape)
            arrays[name] = single(generator(seed, f"cotangent {name}").normal(size=shape))
    return arrays
