"""Noise: random inputs of a training step, which depend on a distribution, a name, a seed and the
step number.

The random generators of frameworks differ, so the harness draws the noise and passes the same
numbers to every backend. The generator is Philox4x64-10 (Salmon, Moraes, Dror and Shaw, 2011:
"Parallel random numbers: as easy as 1, 2, 3"). It converts a counter of four 64-bit words and a key
of two words to four random words. The key is the first 16 bytes of the sha256 of the noise's name
in UTF-8, as two little-endian words. The counter is (block, step, seed, 0), where the first block
is 1. The words fill an array in C order. With ``u = (word >> 11) / 2**53``, an entry is

- uniform: ``low + (high - low) * u``;
- bernoulli: 1 if ``u < keep``, else 0;
- normal: two words give ``r = sqrt(-2 * log(1 - u_1))`` and the two entries ``mean + std * r *
  cos(2 * pi * u_2)`` and ``mean + std * r * sin(2 * pi * u_2)`` (Box and Muller, 1958).

Entries are computed in float64, then rounded to float32, so that every dtype uses the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.errors import Place, SpecError, did_you_mean, shorten
from harness.language import schema
from harness.language.attributes import Attribute, read_number
from harness.program.ir import Program
from harness.program.signature import noise_ports

# The arguments of each distribution and their defaults; None marks a required argument.
DISTRIBUTIONS: Mapping[str, Mapping[str, float | None]] = {
    "normal": {"mean": 0.0, "std": 1.0},
    "uniform": {"low": 0.0, "high": 1.0},
    "bernoulli": {"keep": None},
}
# The number of random bits in a float64 between 0 and 1.
MANTISSA = 53


def read_noise_distribution(
    declared: schema.Noise, attributes: Mapping[str, Attribute], used: set[str], place: Place
) -> dict[str, Any]:
    """Return the distribution of a noise array as a dictionary, e.g. ``{"noise": "bernoulli",
    "arguments": {"keep": 0.9}}``.

    A declared argument is a number or the name of an attribute, which is then added to ``used``.

    Raises:
        SpecError: the distribution is unknown, or an argument is missing, unknown or impossible.
    """
    distributions = {declared.law: {}} if isinstance(declared.law, str) else declared.law
    if len(distributions) != 1:
        names_text = ", ".join(distributions) or "none"
        raise SpecError(
            f"give one distribution, as {{bernoulli: {{keep: 0.9}}}}; found {names_text}", place
        )
    ((name, values),) = distributions.items()
    if name not in DISTRIBUTIONS:
        raise SpecError(
            f"unknown noise distribution {shorten(name)!r}{did_you_mean(name, DISTRIBUTIONS)} "
            f"(known: {', '.join(DISTRIBUTIONS)})",
            place,
        )
    for argument in values:
        if argument not in DISTRIBUTIONS[name]:
            hint = did_you_mean(argument, DISTRIBUTIONS[name])
            raise SpecError(
                f"{name} has no argument {shorten(argument)!r}{hint} "
                f"(known: {', '.join(DISTRIBUTIONS[name])})",
                place,
            )
    arguments = {}
    for argument, default in DISTRIBUTIONS[name].items():
        value = values.get(argument, default)
        if value is None:
            raise SpecError(f"{name} needs {argument}, a number or an attribute", place)
        arguments[argument] = read_number(argument, value, attributes, used, place)
    _check_arguments(name, arguments, place)
    return {"noise": name, "arguments": arguments}


def _check_arguments(name: str, arguments: Mapping[str, float], place: Place) -> None:
    if name == "normal" and arguments["std"] <= 0:
        raise SpecError(f"std of normal noise must be above 0, found {arguments['std']:g}", place)
    if name == "uniform" and arguments["low"] >= arguments["high"]:
        raise SpecError(
            f"low of uniform noise must be below high, found {arguments['low']:g} "
            f"and {arguments['high']:g}",
            place,
        )
    if name == "bernoulli" and not 0 < arguments["keep"] <= 1:
        raise SpecError(
            f"keep of bernoulli noise must be above 0 and at most 1, found {arguments['keep']:g}",
            place,
        )


def mean_of(law: Mapping[str, Any]) -> float:
    """Return the mean of the noise distribution ``law``. In inference, it replaces the noise."""
    arguments = law["arguments"]
    match law["noise"]:
        case "normal":
            return float(arguments["mean"])
        case "uniform":
            return float(0.5 * (arguments["low"] + arguments["high"]))
        case _:
            return float(arguments["keep"])


def is_random(law: Mapping[str, Any]) -> bool:
    """Return False if all draws of the noise distribution ``law`` are equal."""
    return bool(law["noise"] != "bernoulli" or law["arguments"]["keep"] < 1)


def draw_noise(
    law: Mapping[str, Any], shape: tuple[int, ...], name: str, seed: int, step: int
) -> Array:
    """Draw the array of the noise ``name`` for one step, in float64, by the formulas at the top of
    this module. ``law`` is the distribution, e.g. ``{"noise": "uniform", "arguments": {...}}``."""
    count = math.prod(shape)
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")
    bits = np.random.Philox(key=key, counter=np.array([0, step, seed, 0], np.uint64))
    words = np.asarray(bits.random_raw(count + count % 2))
    uniform = (words >> np.uint64(64 - MANTISSA)).astype(np.float64) / 2.0**MANTISSA
    arguments = law["arguments"]
    match law["noise"]:
        case "normal":
            radius = np.sqrt(-2.0 * np.log1p(-uniform[0::2]))
            angle = 2.0 * math.pi * uniform[1::2]
            pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
            values = arguments["mean"] + arguments["std"] * pairs.reshape(-1)
        case "uniform":
            values = arguments["low"] + (arguments["high"] - arguments["low"]) * uniform
        case _:
            values = (uniform < arguments["keep"]).astype(np.float64)
    rounded: Array = values[:count].reshape(shape).astype(np.float32).astype(np.float64)
    return rounded


def noise_of(program: Program, sizes: Mapping[str, int], seed: int, step: int = 0) -> ArrayDict:
    """Draw all noise inputs of a program for one step. Return a dictionary from name to array.
    ``sizes`` has the numbers for batch and time."""
    return {
        port.name: draw_noise(port.init or {}, program.shape(port, sizes), port.name, seed, step)
        for port in noise_ports(program)
    }
