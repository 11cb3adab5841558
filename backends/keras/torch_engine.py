"""The torch engine of Keras (for the interface, see :mod:`harness.backends.keras.engines`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from harness.extend import Advance, Function, GradientFunction, Tensors
from harness.extend.executor import Executor, Plan, loop


class TorchEngine:
    """Execution on torch: eager operations with autograd."""

    # Use "cpu", not "cpu:0": torch would copy tensors from cpu to cpu:0, and Keras would then lose
    # its parameters.
    cpu = "cpu"
    inexact = frozenset({"matmul", "normalization", "attention"})
    wrong_losses: frozenset[str] = frozenset()
    index = "int32"  # the dtype of a model's indices
    quick = False  # see harness.runtime.backend.Backend

    def __init__(self) -> None:
        self.torch = import_module("torch")
        self._cuda = import_module("harness.backends.torch.cuda")
        self._device = "cpu"
        self.exact: Mapping[str, Callable[..., Any]] = {
            # Keras' own operation always returns float32.
            "cumulative_sum": lambda x: self.torch.cumsum(x, -1),
            "floor": self.torch.floor,
            "matmul": self.torch.matmul,
            "tensordot": lambda a, b, axes: self.torch.tensordot(a, b, axes),
            "segment_sum": self._segment_sum,
        }

    def _segment_sum(self, x: Any, indices: Any, rows: int) -> Any:
        rest = x.shape[indices.dim() :]
        zeros = x.new_zeros((rows, *rest))
        return zeros.index_add(0, indices.reshape(-1), x.reshape(indices.numel(), *rest))

    def without_attention(self, definition: str, dtype: str, on_cpu: bool) -> bool:
        """Return whether Keras' attention is wrong, which is so for masked attention. Keras adds
        the mask to the scores, so a fully masked row still has gradients."""
        return definition == "masked_attention"

    def devices(self) -> Sequence[str]:
        """Return the device names that ``--device`` accepts."""
        found: Sequence[str] = self._cuda.devices()
        return found

    def use(self, card: int | None, dtype: str, deterministic: bool) -> None:
        """Select a GPU by its number, or the CPU if ``card`` is None; enable TF32 if the dtype
        needs it, and set determinism."""
        self._device = "cpu" if card is None else f"cuda:{card}"
        self._cuda.prepare(dtype, deterministic)

    def settings(self) -> Mapping[str, str]:
        """Return torch's precision and determinism settings."""
        found: Mapping[str, str] = self._cuda.settings()
        return found

    def peak(self) -> int | None:
        """Return the peak memory of the GPU in bytes since :meth:`forget_peak`; None on the CPU."""
        found: int | None = self._cuda.peak(self._device)
        return found

    def forget_peak(self) -> None:
        """Start a new measurement of peak memory."""
        self._cuda.forget_peak(self._device)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the function so that it runs without autograd; torch compiles nothing here."""

        def run(variables: Tensors, constants: Tensors) -> Any:
            with self.torch.no_grad():
                return function(variables, constants)

        return run

    compile_part = compile

    @property
    def fused(self) -> Mapping[str, Callable[..., Any]]:
        """The fused operations of torch, such as ``addmm`` and ``softmax``."""
        return import_module("harness.backends.torch.primitives").FUSED

    def flush_denormals(self, flush: bool) -> bool:
        """Switch flushing of denormals to zero on or off; return whether the processor supports
        it."""
        return bool(self.torch.set_flush_denormal(flush))

    def fill(self, tensor: Any, array: Any) -> None:
        """Write the numbers of an array into an existing tensor."""
        tensor.copy_(self.torch.from_numpy(array))

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """Return torch's own executor for a plan, because Keras' operations would slow down each
        call."""
        kernels = import_module("harness.backends.torch.executor_kernels").TorchKernels
        return Executor(plan, kernels(plan.dtype, self._device, plan.products))

    def advance(self, step: Advance) -> Advance:
        """Return the training step unchanged, to run eagerly."""
        return step

    def several(self, step: Advance) -> None:
        """Return None: on torch, a loop of training steps is not faster than single steps."""

    scan = staticmethod(loop)

    def wait(self, tensors: Tensors) -> None:
        """Wait until the GPU has computed the tensors. On a CPU, kernels are finished when a call
        returns."""
        self._cuda.wait(self._device)

    def gradient(self, function: Function) -> GradientFunction:
        """Differentiate a function with autograd; each call makes new leaf tensors."""

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
        """Update copies of the parameters, because Keras' optimizers for torch write into their
        arguments."""
        copies = [t.clone() for t in state], gradients, [t.clone() for t in tensors]
        return optimizer.stateless_apply(*copies)
