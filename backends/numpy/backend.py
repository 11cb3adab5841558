"""The backend ``numpy`` in float64 or float32. It mainly consists of a table of primitives
(operations).

In bfloat16 and float16, results are rounded but stored in float32, because numpy multiplies float32
matrices faster. numpy has no automatic differentiation, so the harness derives gradients from the
program. A new backend needs only a file such as this, and a table as in ``primitives.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.extend import NARROW, Array, Backend, Probes, Tensors, hookimpl
from harness.extend.executor import Executor, Plan

from .executor_kernels import NumpyKernels
from .fused import FUSED
from .primitives import PRIMITIVES

# numpy's names of the parts of AVX-512.
AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"


class Numpy(Backend):
    """The implementation of the backend ``numpy``."""

    name = "numpy"
    primitives = PRIMITIVES
    fused = FUSED
    rewrites = True
    denormals = True

    def dtypes(self) -> Sequence[str]:
        return (*super().dtypes(), *NARROW)

    def tensor(self, array: Array) -> Array:
        return array

    def fill(self, tensor: Array, array: Array) -> None:
        np.copyto(tensor, array)

    def numpy(self, tensor: Array) -> Array:
        return np.array(tensor)  # a copy, because later updates must not change the caller's array

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):  # saturation and NaN are expected results
                return function(*arguments)

        return quiet

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        return Executor(plan, NumpyKernels(plan.dtype, plan.products))


@hookimpl
def harness_instruction_sets(name: str) -> Mapping[str, Mapping[str, str]]:
    return {
        "sse4": {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": f"X86_V3 {AVX512}"},
        "avx2": {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": AVX512},
    }


@hookimpl
def harness_backend(name: str) -> Backend:
    return Numpy()


@hookimpl
def harness_defaults(name: str) -> Probes:
    from .defaults import PROBES

    return PROBES
