"""JAX: jit and its automatic differentiation over the primitives, losses and optimizers of optax.

JAX has no layers of its own, so every layer runs its equations. The framework is imported when the
backend is made and not with this module, which must stay cheap to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract import (
    Backend,
    Function,
    GradientFunction,
    Layer,
    Native,
    NativeOptimizer,
    Tensors,
)
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.packing import Packing
from harness.program import UpdateRule
from harness.walk import Step, Table

Array = npt.NDArray[Any]


def _table() -> Table:
    import jax
    import jax.numpy as jnp

    def segment_sum(x: Any, indices: Any, rows: int) -> Any:
        zeros = jnp.zeros((rows, *x.shape[indices.ndim :]), x.dtype)
        return zeros.at[indices].add(x, mode="promise_in_bounds")

    return {
        "exp": jnp.exp,
        "log": jnp.log,
        "tanh": jnp.tanh,
        "sqrt": jnp.sqrt,
        "negative": jnp.negative,
        "add": jnp.add,
        "subtract": jnp.subtract,
        "multiply": jnp.multiply,
        "divide": jnp.divide,
        "power": jnp.power,
        "less": jnp.less,
        "less_equal": jnp.less_equal,
        "equal": jnp.equal,
        "where": jnp.where,
        "astype": lambda x, dtype: x.astype(dtype),
        "permute_dims": jnp.permute_dims,
        "broadcast_to": jnp.broadcast_to,
        "expand_dims": jnp.expand_dims,
        "squeeze": jnp.squeeze,
        "concat": jnp.concatenate,
        "slice": lambda x, axis, start, stop: jax.lax.slice_in_dim(x, start, stop, axis=axis),
        "flip": jnp.flip,
        "take": lambda x, indices: x.at[indices].get(mode="promise_in_bounds"),
        "take_along_axis": lambda x, indices: jnp.take_along_axis(x, indices, -1, mode="promise_in_bounds"),
        "one_hot": lambda indices, classes, dtype: jax.nn.one_hot(indices, classes, dtype=dtype),
        "segment_sum": segment_sum,
        "sum": jnp.sum,
        "max": jnp.max,
        "matmul": jnp.matmul,
        "tensordot": jnp.tensordot,
        "stop_gradient": jax.lax.stop_gradient,
    }


class Jax(Backend):
    """See the module."""

    name = "jax"

    def __init__(self) -> None:
        import jax
        self._jax = jax
        self._table = _table()

    @property
    def primitives(self) -> Table:
        return self._table

    def tensor(self, array: Array) -> Any:
        dtype = self._jax.dtypes.canonicalize_dtype(array.dtype)
        return self._jax.numpy.asarray(np.array(array, dtype))

    def numpy(self, tensor: Any) -> Array:
        return np.array(tensor)

    def use(self, device: str, dtype: str) -> None:
        self._jax.config.update("jax_enable_x64", dtype == "float64")

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        def body(carried, slices):
            return step(carried, slices)
        return self._jax.lax.scan(body, list(carries), list(sequences), reverse=reverse)

    def compile(self, function: Function) -> Function:
        return self._jax.jit(function)

    def value_and_gradient(self, function: Function) -> GradientFunction:
        jax = self._jax

        def scalar(variables: Tensors, constants: Tensors) -> tuple[Any, Tensors]:
            results = function(variables, constants)
            return results["scalar"], results

        def gradient(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            with_results = jax.value_and_grad(scalar, has_aux=True)
            (_, results), gradients = with_results(variables, constants)
            return results, gradients

        return jax.jit(gradient)


@hookimpl
def harness_backend(name: str) -> Backend:
    return Jax()
