"""The JAX engine of Keras (for the interface, see :mod:`harness.backends.keras.engines`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ..jax import platforms
from ..jax.backend import Jax
from ..jax.primitives import largest, takes


class JaxEngine(Jax):
    """The JAX engine of Keras: the backend ``jax`` with the changes that Keras needs."""

    cpu = "cpu:0"
    inexact = frozenset({"tanh", "normalization", "attention"})
    wrong_losses: frozenset[str] = frozenset()
    index = "int32"  # the dtype of a model's indices

    def __init__(self) -> None:
        super().__init__()
        self.jax = import_module("jax")
        jnp = self.jax.numpy
        self.replacements: Mapping[str, Callable[..., Any]] = {
            **{name: getattr(jnp, name) for name in ("tanh", "sin", "cos", "floor")},
            "max": largest(jnp),
            **takes(jnp),
        }

    def tensor(self, array: Any) -> Any:
        """Return a tensor that may share the memory of ``array``, which therefore must not change.
        Keras' own conversion would compile a copy operation for each shape."""
        return self.jax.device_put(array)

    def without_attention(self, definition: str, dtype: str, on_cpu: bool) -> bool:
        """Return whether Keras' attention cannot be used in this dtype: on a CPU, JAX has no
        float16 products."""
        return on_cpu and dtype == "float16"

    def settings(self) -> Mapping[str, str]:
        """Return JAX's precision settings; :class:`Keras` adds whether results are reproducible."""
        return platforms.settings(self.jax)

    def jit_lacks(self) -> str:
        """Return what :meth:`jit` needs but is not installed; empty if it can run."""
        return ""

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that XLA compiles, as in a model with ``jit_compile=True``."""
        return self.jax.jit(function)

    def compile_part(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function with ``jax.jit``. Inside another compiled function, no compiler
        options are passed, because JAX rejects them there."""
        jax, whole, part = self.jax, self.compile(function), self.jax.jit(function)

        def run(*arguments: Any) -> Any:
            traced = any(isinstance(t, jax.core.Tracer) for t in jax.tree.leaves(arguments))
            return (part if traced else whole)(*arguments)

        return run

    def unrolls(self, count: int) -> bool:
        """Return whether a loop of ``count`` steps is unrolled: never, because all loops over time
        run as ``jax.lax.scan``."""
        return False

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """Make one step of a Keras optimizer with its method ``stateless_apply``. Return the new
        parameters, and the new optimizer state.

        ``trained`` are Keras' variables, and ``tensors`` their values before the step. ``state`` is
        the optimizer state.
        """
        return optimizer.stateless_apply(state, gradients, tensors)
