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

from harness.extend import Advance, Executor, Function, GradientFunction, Plan, Tensors

from ..jax.compile import Options, advance, quick_options, several, takes


class TensorFlow:
    """Gradient tapes, eager."""

    cpu = "cpu:0"
    inexact: frozenset[str] = frozenset()
    quick = False  # see harness.runtime.backend.Backend

    def __init__(self) -> None:
        self.tf = import_module("tensorflow")
        self.exact: Mapping[str, Callable[..., Any]] = {}

    def use(self, dtype: str) -> None:
        """TF32 only where asked for."""
        self.tf.config.experimental.enable_tensor_float_32_execution(dtype == "tf32")

    def has_gpu(self) -> bool:
        """Whether the engine sees a GPU."""
        return bool(self.tf.config.list_physical_devices("GPU"))

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Eager: tracing costs more than a check's few calls of a shape, and rounds differently."""
        return function

    compile_part = compile

    def advance(self, step: Advance) -> Advance:
        """``tf.function``, with XLA where no layer can be cuDNN's, which XLA does not know."""
        if self.quick:
            return step
        xla = not self.has_gpu()
        compiled: Advance = self.tf.function(step, jit_compile=xla, autograph=False)
        return compiled

    def several(self, step: Advance) -> Advance | None:
        """A loop inside of one ``tf.function``: calling one costs 0.2 ms."""
        if self.quick:
            return None

        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            def batch(index: Any) -> Tensors:
                return {n: t[index] for n, t in batches.items()}

            def body(index: Any, carried: Tensors, kept: Any) -> tuple[Any, Tensors, Any]:
                carried, results = step(carried, fixed, batch(index))
                return index + 1, carried, {n: kept[n].write(index, t) for n, t in results.items()}

            count = next(iter(batches.values())).shape[0]
            carried, results = step(carried, fixed, batch(0))
            kept = {n: self.tf.TensorArray(t.dtype, count).write(0, t) for n, t in results.items()}
            _, carried, kept = self.tf.while_loop(
                lambda index, *_: index < count, body, (1, carried, kept)
            )
            return carried, {n: array.stack() for n, array in kept.items()}

        return self.advance(run)

    def wait(self, tensors: Tensors) -> None:
        """Kernels of a CPU are done when the call returns."""
        if self.has_gpu():
            self.tf.test.experimental.sync_devices()

    def gradient(self, function: Function) -> GradientFunction:
        """Dense gradients: those of an embedding come as rows, some of them repeated, and Keras'
        optimizers would square the rows before they add them up."""

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            with self.tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(variables.values()))
                results = function(variables, constants)
            found = tape.gradient(results["scalar"], variables, unconnected_gradients="zero")
            return results, {n: self.tf.convert_to_tensor(g) for n, g in found.items()}

        return run

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
    quick = False  # see harness.runtime.backend.Backend

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
        """TF32 only where asked for."""
        self.torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
        self.torch.backends.cudnn.allow_tf32 = dtype == "tf32"

    def has_gpu(self) -> bool:
        """Whether the engine sees a GPU."""
        return bool(self.torch.cuda.is_available())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function without a record for autograd."""

        def run(variables: Tensors, constants: Tensors) -> Any:
            with self.torch.no_grad():
                return function(variables, constants)

        return run

    compile_part = compile

    @property
    def fused(self) -> Mapping[str, Callable[..., Any]]:
        """Those of torch itself."""
        return import_module("harness.backends.torch.kernels").FUSED

    def flush_denormals(self, flush: bool) -> bool:
        """Whether this processor can, and from now on does or no longer does."""
        return bool(self.torch.set_flush_denormal(flush))

    def fill(self, tensor: Any, array: Any) -> None:
        """Write an array into a tensor."""
        tensor.copy_(self.torch.from_numpy(array))

    def execute(self, plan: Plan, device: str) -> Callable[[Tensors], Tensors]:
        """torch's own executor: Keras' operations would only add to the time of each call."""
        kernels = import_module("harness.backends.torch.kernels").TorchKernels
        return Executor(plan, kernels(plan.dtype, device))

    def advance(self, step: Advance) -> Advance:
        """Eager."""
        return step

    def several(self, step: Advance) -> None:
        """Nothing is gained."""

    def wait(self, tensors: Tensors) -> None:
        """Kernels of a CPU are done when the call returns."""
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()

    def gradient(self, function: Function) -> GradientFunction:
        """Of leaves made for each call."""

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            leaves = {n: t.detach().requires_grad_() for n, t in variables.items()}
            with self.torch.enable_grad():
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
    quick = False  # see harness.runtime.backend.Backend

    def __init__(self) -> None:
        self.jax = import_module("jax")
        jnp = self.jax.numpy
        self.exact: Mapping[str, Callable[..., Any]] = {"tanh": jnp.tanh, **takes(jnp)}

    def use(self, dtype: str) -> None:
        """64-bit values and TF32 only where asked for."""
        self.jax.config.update("jax_enable_x64", dtype == "float64")
        precision = "tensorfloat32" if dtype == "tf32" else "highest"
        self.jax.config.update("jax_default_matmul_precision", precision)

    def has_gpu(self) -> bool:
        """Whether the engine sees a GPU."""
        return any(device.platform == "gpu" for device in self.jax.devices())

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``jax.jit``."""
        return self.jax.jit(function, compiler_options=self._options())

    def compile_part(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``jax.jit`` of what may be called in another, which alone may have options."""
        return self.jax.jit(function)

    def _options(self) -> Options:
        return quick_options(self.jax) if self.quick else None

    def advance(self, step: Advance) -> Advance:
        """``jax.jit``."""
        return advance(self.jax, step, self._options())

    def several(self, step: Advance) -> Advance:
        """A ``jax.lax.scan`` over the steps."""
        return several(self.jax, step, self._options())

    def wait(self, tensors: Tensors) -> None:
        """``jax.block_until_ready``."""
        self.jax.block_until_ready(tensors)

    def gradient(self, function: Function) -> GradientFunction:
        """``jax.value_and_grad``."""

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
        """``stateless_apply`` of Keras."""
        return optimizer.stateless_apply(state, gradients, tensors)


Engine = TensorFlow | Torch | Jax
ENGINES: Mapping[str, type[Engine]] = {"tensorflow": TensorFlow, "torch": Torch, "jax": Jax}
