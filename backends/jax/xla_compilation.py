"""What the backends on JAX share: how XLA is to compile functions, loops and whole steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from harness.extend import Advance, Step, Tensors
from harness.extend.executor import LONGEST_FUSED

# A loop that carries as many numbers, 2 MiB in float32, is left one: the memory of a step is used
# again in the next, where steps that are written out each get their own, which has to be mapped.
LARGE = 1 << 19
# Options of XLA's compiler; None for its own.
Options = Mapping[str, Any] | None


@cache
def quick_options(jax: Any) -> Mapping[str, Any]:
    """What makes XLA compile in an eighth of its time on a CPU, as far as this version knows of it:
    code that is not optimised, in one piece, since what is checked is small."""
    wanted = {
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    known = {}
    for name, value in wanted.items():
        try:
            jax.jit(jax.numpy.negative, compiler_options={name: value}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
        else:
            known[name] = value
    return known


def scan(
    jax: Any,
    step: Step,
    carries: Sequence[Any],
    sequences: Sequence[Any],
    reverse: bool,
    quick: bool,
) -> tuple[list[Any], list[Any]]:
    """A ``jax.lax.scan``; a short one is written out, so that XLA may fuse and overlap its steps,
    unless it carries much or is to be compiled quickly."""

    def body(carried: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        return step(carried, slices)

    small = sum(carry.size for carry in carries) < LARGE
    unroll = small and not quick and sequences[0].shape[0] <= LONGEST_FUSED
    last, stacked = jax.lax.scan(
        body, list(carries), list(sequences), reverse=reverse, unroll=unroll or 1
    )
    return last, stacked


def advance(jax: Any, step: Advance, options: Options) -> Advance:
    """A step, compiled; the memory of what is carried is used again."""
    compiled: Advance = jax.jit(step, donate_argnums=0, compiler_options=options)
    return compiled


def several(jax: Any, step: Advance, options: Options) -> Advance:
    """Many steps, compiled as one: a call and its wait cost what a small step does."""

    def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
        def body(carried: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            return step(carried, fixed, batch)

        carried, results = jax.lax.scan(body, carried, batches)
        return carried, results

    return advance(jax, run, options)
