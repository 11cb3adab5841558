"""Compile functions, loops and whole steps with XLA, for all backends on JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from harness.extend import Advance, Step, Tensors
from harness.extend.executor import LONGEST_FUSED

# A loop that carries more numbers than this (2 MiB in float32) is not unrolled, because each
# unrolled step needs its own memory, while a loop reuses the memory of its step.
LARGE = 1 << 19
# Options of XLA's compiler; None for its defaults.
Options = Mapping[str, Any] | None


@cache
def quick_options(jax: Any) -> Mapping[str, Any]:
    """Return options with which XLA compiles in an eighth of the usual time on a CPU.

    XLA then makes unoptimised code in one piece, which is sufficient for checks at small sizes.
    Options that this version of XLA does not know are left out.
    """
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
    """Run a ``jax.lax.scan``. It is unrolled if it is short, so that XLA can fuse its steps.

    It is not unrolled if the carried tensors are large or if ``quick`` is true.
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
    """Compile a step. The step may reuse the memory of its carried tensors."""
    compiled: Advance = jax.jit(step, donate_argnums=0, compiler_options=options)
    return compiled


def several(jax: Any, step: Advance, options: Options) -> Advance:
    """Compile many steps as one call, because calling and waiting take as long as a small step."""

    def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
        def body(carried: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            return step(carried, fixed, batch)

        carried, results = jax.lax.scan(body, carried, batches)
        return carried, results

    return advance(jax, run, options)
