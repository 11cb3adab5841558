"""The JAX engine of Keras (for the interface, see :mod:`harness.backends.keras.engines`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from harness.extend import Advance, Function, GradientFunction, Step, Table, Tensors

from ..jax import platforms
from ..jax.primitives import largest, takes
from ..jax.xla_compilation import Options, advance, quick_options, scan, several


class JaxEngine:
    """Execution on JAX: functions are traced and compiled once for each set of shapes."""

    cpu = "cpu:0"
    inexact = frozenset({"tanh", "normalization", "attention"})
    wrong_losses: frozenset[str] = frozenset()
    index = "int32"  # the dtype of a model's indices
    quick = False  # see harness.runtime.backend.Backend

    def __init__(self) -> None:
        self.jax = import_module("jax")
        self._started: Any = None
        self._peak = platforms.PeakMemory()
        jnp = self.jax.numpy
        self.exact: Mapping[str, Callable[..., Any]] = {
            **{name: getattr(jnp, name) for name in ("tanh", "sin", "cos", "floor")},
            "max": largest(jnp),
            **takes(jnp),
        }

    def tensor(self, array: Any) -> Any:
        """Return a tensor with the numbers of an array that nothing else uses. Keras' own
        conversion would compile a copy operation for each shape."""
        return self.jax.device_put(array)

    def without_attention(self, definition: str, dtype: str, on_cpu: bool) -> bool:
        """Return whether Keras' attention is wrong in a dtype: on a CPU, JAX lacks its float16
        products."""
        return on_cpu and dtype == "float16"

    def devices(self) -> Sequence[str]:
        """Return the device names that ``--device`` accepts."""
        return platforms.devices()

    def use(self, card: int | None, dtype: str, deterministic: bool) -> None:
        """Select a GPU by its number, or the CPU if ``card`` is None; enable 64-bit values or TF32
        only if the dtype needs them. Determinism is set when the process starts
        (:func:`harness.backends.jax.platforms.deterministic`)."""
        device = "cpu" if card is None else f"cuda:{card}"
        self._started = platforms.prepare(self.jax, device, dtype)

    def settings(self) -> Mapping[str, str]:
        """Return the settings that :meth:`use` has made."""
        return platforms.settings(self.jax)

    def peak(self) -> int | None:
        """Return the peak memory of the GPU in bytes since :meth:`forget_peak`; None if the peak
        has not risen."""
        return self._peak.told(self._started)

    def forget_peak(self) -> None:
        """Start a new measurement of peak memory."""
        self._peak.forget(self._started)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function with ``jax.jit``."""
        return self.jax.jit(function, compiler_options=self._options())

    def compile_part(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile with ``jax.jit``. If the function is called inside another compiled function, it
        is compiled without compiler options."""
        jax, whole, part = self.jax, self.compile(function), self.jax.jit(function)

        def run(*arguments: Any) -> Any:
            traced = any(isinstance(t, jax.core.Tracer) for t in jax.tree.leaves(arguments))
            return (part if traced else whole)(*arguments)

        return run

    def _options(self) -> Options:
        return quick_options(self.jax) if self.quick else None

    def advance(self, step: Advance) -> Advance:
        """Compile a training step with ``jax.jit``."""
        return advance(self.jax, step, self._options())

    def several(self, step: Advance) -> Advance:
        """Compile a loop of training steps as a ``jax.lax.scan``."""
        return several(self.jax, step, self._options())

    def scan(
        self,
        table: Table,
        step: Step,
        carries: Sequence[Any],
        sequences: Sequence[Any],
        reverse: bool,
    ) -> tuple[list[Any], list[Any]]:
        """Run a loop over time as a ``jax.lax.scan``."""
        return scan(self.jax, step, carries, sequences, reverse, self.quick)

    def wait(self, tensors: Tensors) -> None:
        """Wait for the tensors with ``jax.block_until_ready``."""
        self.jax.block_until_ready(tensors)

    def gradient(self, function: Function) -> GradientFunction:
        """Differentiate a function with ``jax.value_and_grad``."""

        def scalar(variables: Tensors, constants: Tensors) -> tuple[Any, Tensors]:
            results = function(variables, constants)
            return results["scalar"], results

        both = self.jax.value_and_grad(scalar, has_aux=True)

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            (_, results), gradients = both(variables, constants)
            return results, gradients

        return run

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """Update parameters with the ``stateless_apply`` method of a Keras optimizer."""
        return optimizer.stateless_apply(state, gradients, tensors)
