"""Material off all kinks, where two honest gradients agree: of many seeds, the first that is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from harness.oracle.draw import draw
from harness.oracle.given import Given
from harness.oracle.kinks import KINK_MARGIN, kink_margin
from harness.oracle.oracle import Oracle
from harness.program.ir import Program
from harness.runtime.arguments import Arguments
from harness.runtime.session import Session

SEEDS_TRIED = 40
# What matrices are multiplied by; the first with which float32 does not overflow.
GAINS = (1.0, 2.0**-2, 2.0**-4, 2.0**-8)

# A way to come to a case's material: from its programs in training and inference and a seed, the
# number that it was drawn with, and the material.
Drawing = Callable[[Program, Program, int], tuple[int, Arguments]]


def drawn(
    training: Program,
    inference: Program,
    seed: int,
    *,
    batch: int,
    time: int,
    given: Given | None = None,
) -> tuple[int, Arguments]:
    """Off all kinks, and with weights as large as float32 can do with; but for what is ``given``.
    A :data:`Drawing`, but for the sizes."""
    tries = 1 if given is not None and given.decides_forward else SEEDS_TRIED

    def make(gain: float, number: int) -> Arguments:
        material = draw(training, batch, time, number, gain)
        return material if given is None else given.over(material, training)

    for gain in GAINS:
        number, material = off_kinks(training, seed, partial(make, gain), tries)
        if finite(training, inference, material):
            break
    return number, material


def off_kinks(
    program: Program, seed: int, make: Callable[[int], Arguments], tries: int = SEEDS_TRIED
) -> tuple[int, Arguments]:
    """The first material that is off all kinks, of what is made of some numbers; else what is the
    furthest off them; and its number."""
    best: tuple[float, int, Arguments] | None = None
    for number in range(seed * SEEDS_TRIED, seed * SEEDS_TRIED + tries):
        material = make(number)
        margin = kink_margin(program, material)
        if best is None or margin > best[0]:
            best = (margin, number, material)
        if margin >= KINK_MARGIN:
            break
    assert best is not None
    return best[1], best[2]


def finite(training: Program, inference: Program, material: Arguments) -> bool:
    """Whether a forward pass in float32 overflows nowhere that shows."""
    session = Session(Oracle(), training, inference, path="equations", dtype="float32")
    session.load(material.parameters, material.statistics)
    results = session.forward("training", material.inputs, material.state)
    return all(bool(np.isfinite(array).all()) for array in results.values())
