"""XLA compilation of functions, loops and whole steps, for all backends on JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from harness.extend import Advance, Step, Tensors
from harness.extend.executor import LONGEST_FUSED

# Loops that carry more numbers than this (2 MiB in float32) are not unrolled, because each unrolled
# step needs its own memory.
LARGE = 1 << 19
# Options of XLA's compiler; None for its defaults.
Options = Mapping[str, Any] | None


@cache
def quick_options(jax: Any) -> Mapping[str, Any]:
    """Return XLA options that reduce the compile time on a CPU to an eighth.

    The compiled code is not optimised, which suffices for checks at small sizes. Options that this
    version of XLA does not know are omitted.
    """
    options = {
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    known = {}
    for name, value in options.items():
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
    """Run a loop over time as ``jax.lax.scan``; see :meth:`.Backend.scan`. Short loops are
    unrolled, so that XLA can fuse their steps.

    The loop is not unrolled if the carried tensors are large, or if ``quick`` is true, i.e. if
    compiling must not take long.
    """

    def body(carried: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        return step(carried, slices)

    small = sum(carry.size for carry in carries) < LARGE
    unroll = small and not quick and sequences[0].shape[0] <= LONGEST_FUSED
    last, stacked = jax.lax.scan(
        body, list(carries), list(sequences), reverse=reverse, unroll=unroll or 1
    )
    return last, stacked


def advance(jax: Any, step: Advance, options: Options) -> Advance:
    """Return a compiled step, which may overwrite the memory of its carried tensors (the tensors
    that the step replaces)."""
    compiled: Advance = jax.jit(step, donate_argnums=0, compiler_options=options)
    return compiled


def several(jax: Any, step: Advance, options: Options) -> Advance:
    """Return a function that makes many steps in one compiled call. This is faster, because the
    overhead of a call takes as long as a small step."""

    def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
        def body(carried: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            return step(carried, fixed, batch)

        carried, results = jax.lax.scan(body, carried, batches)
        return carried, results

    return advance(jax, run, options)
