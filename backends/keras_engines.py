"""The three engines of Keras 3: what it leaves to them, and what only they do exactly.

Outside of TensorFlow, Keras' type promotion turns float64 into float32, so a few of its operations
round float64 values to float32: on torch ``matmul``, ``tensordot`` and ``segment_sum`` (relative
error 1e-7), on JAX ``tanh`` (8e-8), and batch normalisation on both. Each engine names them in
``inexact`` and gives its own function in ``exact``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from harness.contract import Function, GradientFunction, Tensors
from harness.walk import Table

from .jax import quick_options


class TensorFlow:
    """Gradient tapes, eager."""

    cpu = "cpu:0"
    inexact: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.tf = import_module("tensorflow")
        self.exact: Mapping[str, Callable[..., Any]] = {}

    def use(self, dtype: str) -> None:
        """No TF32."""
        self.tf.config.experimental.enable_tensor_float_32_execution(False)

    def has_gpu(self) -> bool:
        """Whether the engine sees a GPU."""
        return bool(self.tf.config.list_physical_devices("GPU"))

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Eager: tracing costs more than a check's few calls of a shape, and rounds differently."""
        return function

    def gradient(self, function: Function) -> GradientFunction:
        """Dense gradients: those of an embedding come as rows, some of them repeated, and Keras'
        optimizers would square the rows before they add them up."""

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            with self.tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(variables.values()))
                results = function(variables, constants)
            found = tape.gradient(results["scalar"], variables, unconnected_gradients="zero")
            return results, {n: self.tf.convert_to_tensor(g) for n, g in found.items()}

        return self.compile(run)

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """Through variables: Keras' ``stateless_apply`` does not run on TensorFlow."""
        slots = optimizer.variables
        for variable, tensor in zip([*trained, *slots], [*tensors, *state], strict=True):
            variable.assign(tensor)
        optimizer.apply(gradients)
        identity = self.tf.identity
        return [identity(v.value) for v in trained], [identity(v.value) for v in slots]


class Torch:
    """Autograd, eager."""

    # Not cpu:0: torch copies a tensor from cpu to cpu:0, and Keras then loses its parameters.
    cpu = "cpu"
    inexact = frozenset({"matmul", "batch_norm"})

    def __init__(self) -> None:
        self.torch = import_module("torch")
        self.exact: Mapping[str, Callable[..., Any]] = {
            "matmul": self.torch.matmul,
            "tensordot": lambda a, b, axes: self.torch.tensordot(a, b, axes),
            "segment_sum": self._segment_sum,
        }

    def _segment_sum(self, x: Any, indices: Any, rows: int) -> Any:
        rest = x.shape[indices.dim() :]
        zeros = x.new_zeros((rows, *rest))
        return zeros.index_add(0, indices.reshape(-1), x.reshape(indices.numel(), *rest))

    def use(self, dtype: str) -> None:
        """No TF32."""
        self.torch.backends.cuda.matmul.allow_tf32 = False
        self.torch.backends.cudnn.allow_tf32 = False

    def has_gpu(self) -> bool:
        """Whether the engine sees a GPU."""
        return bool(self.torch.cuda.is_available())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function without a record for autograd."""

        def run(variables: Tensors, constants: Tensors) -> Any:
            with self.torch.no_grad():
                return function(variables, constants)

        return run

    def gradient(self, function: Function) -> GradientFunction:
        """Of leaves made for each call."""

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            leaves = {n: t.detach().requires_grad_() for n, t in variables.items()}
            results = function(leaves, constants)
            found = self.torch.autograd.grad(
                results["scalar"], list(leaves.values()), allow_unused=True
            )
            pairs = zip(leaves.items(), found, strict=True)
            zeros = self.torch.zeros_like
            gradients = {n: zeros(leaf) if g is None else g for (n, leaf), g in pairs}
            return {n: t.detach() for n, t in results.items()}, gradients

        return run

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """On copies: Keras' optimizers for torch write into the tensors that they are given."""
        copies = [t.clone() for t in state], gradients, [t.clone() for t in tensors]
        return optimizer.stateless_apply(*copies)


class Jax:
    """Traced and compiled, once for each set of shapes."""

    cpu = "cpu:0"
    inexact = frozenset({"tanh", "batch_norm"})
    quick = False  # see harness.contract.Backend

    def __init__(self) -> None:
        self.jax = import_module("jax")
        self.exact: Mapping[str, Callable[..., Any]] = {"tanh": self.jax.numpy.tanh}

    def use(self, dtype: str) -> None:
        """64-bit values only where asked for; no TF32."""
        self.jax.config.update("jax_enable_x64", dtype == "float64")
        self.jax.config.update("jax_default_matmul_precision", "highest")

    def has_gpu(self) -> bool:
        """Whether the engine sees a GPU."""
        return any(device.platform == "gpu" for device in self.jax.devices())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``jax.jit``."""
        options = quick_options(self.jax) if self.quick else None
        return self.jax.jit(function, compiler_options=options)

    def gradient(self, function: Function) -> GradientFunction:
        """``jax.value_and_grad`` under ``jax.jit``."""

        def scalar(variables: Tensors, constants: Tensors) -> tuple[Any, Tensors]:
            results = function(variables, constants)
            return results["scalar"], results

        both = self.compile(self.jax.value_and_grad(scalar, has_aux=True))

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            (_, results), gradients = both(variables, constants)
            return results, gradients

        return run

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """``stateless_apply`` of Keras."""
        return optimizer.stateless_apply(state, gradients, tensors)


Engine = TensorFlow | Torch | Jax
ENGINES: Mapping[str, type[Engine]] = {"tensorflow": TensorFlow, "torch": Torch, "jax": Jax}


def table(keras: Any, exact: Mapping[str, Callable[..., Any]]) -> Table:
    """The primitives as Keras' operations, for its symbolic tensors too, where they are exact."""
    ops = keras.ops

    def segment_sum(x: Any, indices: Any, rows: int) -> Any:
        shape, rank = tuple(x.shape), len(indices.shape)
        count = int(np.prod(shape[:rank]))
        flat = ops.reshape(x, (count, int(np.prod(shape[rank:]))))
        total = ops.segment_sum(flat, ops.reshape(indices, (count,)), num_segments=rows)
        return ops.reshape(total, (rows, *shape[rank:]))

    same = (
        "exp log tanh sqrt negative add subtract multiply divide power less less_equal equal where "
        "broadcast_to expand_dims squeeze flip sum max matmul tensordot stop_gradient"
    )
    found = {name: getattr(ops, name) for name in same.split()} | {
        "astype": ops.cast,
        "permute_dims": ops.transpose,
        "concat": ops.concatenate,
        "slice": lambda x, axis, start, stop: x[(slice(None),) * axis + (slice(start, stop),)],
        "take": lambda x, indices: ops.take(x, indices, axis=0),
        "take_along_axis": lambda x, indices: ops.take_along_axis(x, indices, axis=-1),
        "one_hot": lambda indices, classes, dtype: ops.one_hot(indices, classes, dtype=dtype),
        "segment_sum": segment_sum,
    }
    return found | {name: _operation(keras, found[name], f) for name, f in exact.items()}


def _operation(
    keras: Any, shaped: Callable[..., Any], function: Callable[..., Any]
) -> Callable[..., Any]:
    """An engine's function that can stand in a model; ``shaped`` is Keras' own, for the shape."""

    class Exact(keras.Operation):
        def __init__(self, attributes: Mapping[str, Any]) -> None:
            super().__init__()
            self.attributes = attributes

        def call(self, *arrays: Any) -> Any:
            return function(*arrays, **self.attributes)

        def compute_output_spec(self, *arrays: Any) -> Any:
            shape = shaped(*arrays, **self.attributes).shape
            return keras.KerasTensor(shape, dtype=arrays[0].dtype)

    def run(*arrays: Any, **attributes: Any) -> Any:
        if any(isinstance(array, keras.KerasTensor) for array in arrays):
            return Exact(attributes)(*arrays)
        return function(*arrays, **attributes)

    return run
