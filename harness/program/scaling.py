"""Loss scaling: what keeps gradients within float16's range, as a part of a program.

The loss is multiplied by a scale before it is differentiated, and gradients are divided by it
afterwards, in float32. A step whose gradients are not all finite is left out, and the scale
halved; after so many steps in a row that were not, it is doubled (Micikevicius et al. 2018, "Mixed
precision training", section 3.2). The scale is a power of two, so that it rounds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.program.builder import Builder

# The scale, and how many steps there were since it changed: carried from step to step.
SCALE, GOOD = "loss.scale", "loss.good"
# Beside them in a checkpoint: how many steps were not left out.
UPDATES = "updates"
# What they begin with, and the steps after which the scale is doubled.
FIRST, GROWS = 2.0**10, 2000
# A scale that was halved so often that it is no matter of range.
LEAST_SCALE = 2.0**-24
# Squares of gradients that sum up to more are no gradients.
MOST = 2.0**126


def guarded(
    builder: Builder,
    gradients: Mapping[str, int],
    before: Mapping[str, int],
    made: Mapping[str, int],
) -> dict[str, int]:
    """What a step leaves, by the names of ``made``, with :data:`SCALE` and :data:`GOOD`: ``made``
    where all ``gradients`` are finite, else ``before``, which has the names of both."""
    total = builder.constant(0.0)
    for gradient in gradients.values():
        square = builder.emit("multiply", gradient, gradient)
        if axes := tuple(range(len(builder.types[square].shape))):
            square = builder.emit("sum", square, axis=axes, keepdims=False)
        total = builder.emit("add", total, square)
    finite = builder.emit("less", total, builder.constant(MOST))
    scale, good = before[SCALE], before[GOOD]
    zero, half, two = map(builder.constant, (0.0, 0.5, 2.0))
    more = builder.emit("add", good, builder.constant(1.0))
    grows = builder.emit("equal", more, builder.constant(float(GROWS)))
    after = {
        **made,
        SCALE: builder.emit("where", grows, builder.emit("multiply", scale, two), scale),
        GOOD: builder.emit("where", grows, zero, more),
    }
    instead = {**before, SCALE: builder.emit("multiply", scale, half), GOOD: zero}
    return {n: builder.emit("where", finite, v, instead[n]) for n, v in after.items()}
