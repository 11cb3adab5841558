"""The backend ``jax``: JAX with its automatic differentiation and compiler, and optax with its
losses and optimizers.

JAX itself has attention, convolutions and pools; its LSTM needs cuDNN and a GPU. All other layers
run as equations. The backend ``flax`` also uses the layers of Flax (``flax.nnx``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.extend import (
    NARROW,
    Advance,
    Array,
    Backend,
    ClaimableCall,
    F,
    Function,
    GradientFunction,
    Native,
    NativeOptimizer,
    Probes,
    Step,
    Table,
    Tensors,
    UpdateRule,
    UsageError,
    card_of,
    hookimpl,
    narrow,
)

from . import platforms
from .primitives import fused, table
from .xla_compilation import Options, advance, quick_options, scan, several

if TYPE_CHECKING:
    import jax


def _narrow(array: Array) -> Array:
    narrowed = array.astype(np.int32)
    if not np.array_equal(narrowed, array):
        raise UsageError(
            f"an index array has the value {np.max(array)} in a float32 session of jax; "
            f"the largest allowed index is {np.iinfo(np.int32).max}"
        )
    return narrowed


class Jax(Backend):
    """The implementation of the backend ``jax``."""

    name = "jax"
    fuses = True

    def __init__(self) -> None:
        # Import JAX here, because listing the backends imports this module and must be fast.
        global jax
        import jax

        platforms.keep_compiled_code(jax)
        self._table, self.fused = table(jax), fused(jax.numpy)
        self._dtype = "float32"
        self._card: int | None = None
        self._peak = platforms.PeakMemory()

    @property
    def primitives(self) -> Table:
        return self._table

    def tensor(self, array: Array) -> Any:
        """Return the array as a JAX array. In a float32 session, index arrays become int32.

        Outside of a float64 session, JAX would silently round float64 arrays to float32, and change
        integers that do not fit into int32. Raise :class:`UsageError` for such arrays.
        """
        if not jax.config.jax_enable_x64:
            if array.dtype == np.float64:
                raise UsageError(
                    "jax would round this float64 array in a float32 session; "
                    "convert the array to float32, or open a float64 session"
                )
            if array.dtype == np.int64:
                array = _narrow(array)
        # Copy the array, because JAX may read it later. device_put compiles nothing, but
        # jnp.asarray compiles for each new shape.
        return jax.device_put(np.array(array, order="C"))

    def numpy(self, tensor: Any) -> Array:
        return np.array(tensor)  # a copy, because JAX returns read-only arrays

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("jax", "jaxlib", "optax", "numpy")}

    def devices(self) -> Sequence[str]:
        return platforms.devices()

    def dtypes(self) -> Sequence[str]:
        tf32 = ("tf32",) if "cuda" in self.devices() else ()
        return (*super().dtypes(), *tf32, *NARROW)

    def settings(self) -> Mapping[str, str]:
        return {**platforms.settings(jax), "deterministic": str(self.repeats())}

    def repeats(self) -> bool:
        return self.deterministic or self._card is None

    def device_memory(self) -> int | None:
        return self._peak.peak_bytes(jax.config.jax_default_device)

    def forget_device_memory(self) -> None:
        self._peak.forget(jax.config.jax_default_device)

    def use(self, device: str, dtype: str) -> None:
        started = platforms.prepare(jax, device, dtype)
        self._dtype, self._card = dtype, card_of(device)
        jax.config.update("jax_default_device", started)

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        return scan(jax, step, carries, sequences, reverse, self._quick)

    def advance(self, step: Advance) -> Advance:
        return advance(jax, step, self._options())

    def several(self, step: Advance) -> Advance:
        return several(jax, step, self._options())

    def wait(self, tensors: Tensors) -> None:
        jax.block_until_ready(tensors)

    def compile(self, function: F) -> F:
        return jax.jit(function, compiler_options=self._options())

    def _options(self) -> Options:
        return quick_options(jax) if self._quick else None

    @property
    def _quick(self) -> bool:
        """True if XLA compiles without optimisations, to save time. On a GPU this is always False,
        so that the checks run the same code that ``bench`` times."""
        return self.quick and self._card is None

    def value_and_gradient(self, function: Function) -> GradientFunction:
        def scalar(variables: Tensors, constants: Tensors) -> tuple[Any, Tensors]:
            results = function(variables, constants)
            return results["scalar"], results

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            differentiated = jax.value_and_grad(scalar, has_aux=True)
            (_, results), gradients = differentiated(variables, constants)
            return results, gradients

        return run

    def forward_derivative(self, function: Function) -> Function:
        def run(variables: Tensors, constants: Tensors) -> Tensors:
            directions = {name: constants[f"direction.{name}"] for name in variables}

            def scalar(variables: Tensors) -> Any:
                return function(variables, constants)["scalar"]

            return {"derivative": jax.jvp(scalar, (variables,), (directions,))[1]}

        return run

    def claim(self, layer: ClaimableCall) -> Native | None:
        from .layers import claim

        return claim(layer, self._dtype, on_cpu=self._card is None)

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        from .optimizers import claim_optimizer

        return claim_optimizer(rule)

    def own_models(self) -> Any:
        from .own_model import JaxModels

        return JaxModels(self)


@hookimpl
def harness_environment(name: str) -> Mapping[str, str]:
    # Without this variable JAX reserves three quarters of a GPU's memory at its start.
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@hookimpl
def harness_deterministic(name: str) -> Mapping[str, str]:
    return platforms.deterministic(os.environ)


class Flax(Jax):
    """The backend ``flax``: the layers of Flax. If Flax does not have a layer, the backend uses
    JAX's own layer, as the backend ``jax`` does.

    In bfloat16 and float16, all layers are those of the backend ``jax``: Flax sums the gradients of
    biases in these dtypes, which loses digits.
    """

    name = "flax"

    def versions(self) -> Mapping[str, str]:
        return {"flax": version("flax"), **super().versions()}

    def claim(self, layer: ClaimableCall) -> Native | None:
        from .flax_layers import CLAIMS

        own = None if narrow(self._dtype) else CLAIMS.get(layer.definition)
        dtype = "float64" if self._dtype == "float64" else "float32"
        native = own(layer, dtype) if own is not None else None
        return native or super().claim(layer)


@hookimpl
def harness_instruction_sets(name: str) -> Mapping[str, Mapping[str, str]]:
    return platforms.instruction_sets(os.environ)


@hookimpl
def harness_backend(name: str) -> Backend:
    return Flax() if name == Flax.name else Jax()


@hookimpl
def harness_defaults(name: str) -> Probes | None:
    from .defaults import PROBES

    return PROBES if name == Jax.name else None
