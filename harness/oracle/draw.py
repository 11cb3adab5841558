"""Draw test values that make faults visible.

Biases are not zero, gammas not one, moving statistics not at their start, recurrent weights not
symmetric. With initial values, most planted faults do not reach an output. All values are
representable in float32, so that every dtype computes on the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.language.initializers import generator
from harness.language.noise import draw_noise
from harness.oracle.patience import look
from harness.program.ir import Port, Program
from harness.program.signature import length_ports, noise_ports, result_ports
from harness.runtime.answers import Arguments
from harness.text.vocabulary import one_hot


def single(array: Array) -> Array:
    """Round to float32; return the values in float64."""
    return array.astype(np.float32).astype(np.float64)


def draw(
    program: Program, batch: int, time: int, seed: int, gain: float = 1.0, turned: int = 0
) -> Arguments:
    """Draw the arguments of a program for one batch. ``gain``, a power of two, multiplies matrices.
    ``turned`` rotates the rows of masks and lengths."""
    sizes = {"batch": batch, "time": time}
    parameters = {p.name: parameter(program, p, seed) for p in program.parameters}
    return Arguments(
        parameters={n: a * gain if a.ndim > 1 else a for n, a in parameters.items()},
        statistics={p.name: parameter(program, p, seed) for p in program.statistics},
        inputs={p.name: data(program, p, sizes, seed, turned) for p in program.inputs},
        state={p.name: data(program, p, sizes, seed) for p in program.state},
        targets={p.name: target(program, p, sizes, seed, turned) for p in program.targets},
    )


def parameter(program: Program, port: Port, seed: int) -> Array:
    """Draw a parameter or statistic, away from all special values.

    Matrix entries have standard deviation 1.2 / sqrt(rows), so that gates leave their linear range
    without saturating; all places of a kernel count as rows. Vectors that start at ones (scales and
    variances) lie in 0.4 to 1.4. Other vectors lie in 0.2 to 0.7 with either sign.
    """
    look()
    shape = program.shape(port)
    random = generator(seed, port.name)
    if len(shape) >= 2:
        return single(random.normal(size=shape) * (1.2 / math.sqrt(math.prod(shape[:-1]))))
    magnitude = random.uniform(0.4, 1.4, shape)
    if _starts_at_one(port):
        return single(magnitude)
    return single(magnitude * random.choice([-0.5, 0.5], shape))


def _starts_at_one(port: Port) -> bool:
    stripes = (port.init or {}).get("stripes", ())
    return bool(stripes) and stripes[0]["law"] == "ones"


def data(
    program: Program, port: Port, sizes: Mapping[str, int], seed: int, turned: int = 0
) -> Array:
    """Draw an input or a state: noise by its law, indices in range, or normal numbers."""
    shape, type_ = program.shape(port, sizes), program.type_of(port)
    if port in noise_ports(program):
        return draw_noise(port.init or {}, shape, port.name, seed, 0)
    random = generator(seed, f"{port.name} {shape}")
    if type_.kind != "float":
        return _whole(program, port, sizes, random, turned)
    return single(random.normal(size=shape) * 0.7)


def _whole(
    program: Program,
    port: Port,
    sizes: Mapping[str, int],
    random: np.random.Generator,
    turned: int,
) -> Array:
    """Draw indices over the whole range, or a mask, with special rows for lengths and masks.

    The first three rows of a mask are full, empty and one step long, rotated by ``turned``. In odd
    turns the third row has half of the steps. :func:`_lengths` has the rows of lengths.
    """
    shape, type_ = program.shape(port, sizes), program.type_of(port)
    if type_.bound is None:
        mask = random.integers(0, 2, shape).astype(np.bool_)
        rows = mask.reshape(shape[0], -1) if shape else mask.reshape(1, 1)
        some = max(rows.shape[1] // 2, 1) if turned % 2 else 1
        for row, kept in zip(rows, (None, 0, some), strict=False):
            row[:] = False
            row[:kept] = True
        return np.roll(mask, turned, 0) if shape else mask
    bound = type_.bound.resolve({**program.sizes, **sizes})
    found = random.integers(0, bound, shape)
    if port in length_ports(program):
        some_rows = _lengths(program, port, sizes, turned)[: found.size]
        found.flat[: len(some_rows)] = some_rows
        found = np.roll(found, turned, 0) if shape else found
    return found


def _lengths(program: Program, port: Port, sizes: Mapping[str, int], turned: int) -> list[int]:
    """Return three lengths: full, none, and one step, or half of all in odd turns.

    If a model has two kinds of lengths, as ``ctc`` for steps and labels, the first kind counts
    steps. In even turns the rows then are: full, one step more than labels, one label more than
    steps.
    """
    known = {**program.sizes, **sizes}
    most = {}
    for one in length_ports(program):
        bound = program.type_of(one).bound
        assert bound is not None
        most[one.name] = bound.resolve(known) - 1
    own = most[port.name]
    if len(most) == 1 or turned % 2:
        return [own, 0, max((own + 1) // 2, 1) if turned % 2 else 1]
    steps, *labels = most.values()
    spare, short = min(steps - 1, *labels), min(2, *labels)
    more = list(most).index(port.name) == 0
    return [own, spare + more, short - more]


def target(
    program: Program, port: Port, sizes: Mapping[str, int], seed: int, turned: int = 0
) -> Array:
    """Draw classes; float targets are 3/4 of one class plus 1/4 of another, so that rows sum to
    exactly 1. A float target without axes is any number."""
    shape, type_ = program.shape(port, sizes), program.type_of(port)
    random = generator(seed, f"target {port.name} {shape}")
    if type_.kind != "float":
        return _whole(program, port, sizes, random, turned)
    if not shape:
        return single(np.asarray(random.normal()))
    most, least = (random.integers(0, shape[-1], shape[:-1]) for _ in range(2))
    return 0.75 * one_hot(most, shape[-1]) + 0.25 * one_hot(least, shape[-1])


def cotangents(program: Program, batch: int, time: int, seed: int) -> ArrayDict:
    """Draw a random cotangent for every output and new state; ones would not do, because the sum of
    a softmax has no gradient."""
    sizes = {**program.sizes, "batch": batch, "time": time}
    found = {}
    for name, value in result_ports(program, "forward").items():
        if name.startswith(("output.", "state.")):
            shape = tuple(d.resolve(sizes) for d in program.types[value].shape)
            found[name] = single(generator(seed, f"cotangent {name}").normal(size=shape))
    return found
