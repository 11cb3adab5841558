"""The torch engine of Keras (for the interface, see :mod:`harness.backends.keras.engines`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ..torch.backend import Torch


class TorchEngine(Torch):
    """The torch engine of Keras: the backend ``torch`` with the changes that Keras needs."""

    # Use "cpu", not "cpu:0": torch would copy tensors from cpu to cpu:0, and Keras would then lose
    # its parameters.
    cpu = "cpu"
    inexact = frozenset({"matmul", "normalization", "attention"})
    wrong_losses: frozenset[str] = frozenset()
    index = "int32"  # the dtype of a model's indices

    def __init__(self) -> None:
        super().__init__()
        self.torch = import_module("torch")
        self.replacements: Mapping[str, Callable[..., Any]] = {
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
        """Return whether Keras' attention is wrong on torch. This is true for masked attention:
        Keras adds the mask to the scores, so rows that are fully masked have gradients."""
        return definition == "masked_attention"

    def settings(self) -> Mapping[str, str]:
        """Return a dictionary of torch's settings of precision and determinism."""
        from ..torch import cuda

        return cuda.settings()

    compile_part = Torch.compile

    def jit_lacks(self) -> str:
        """Return what :meth:`jit` needs but is not installed; empty if it can run."""
        from ..torch.compiled import missing_compiler

        return missing_compiler()

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that torch compiles, as in a model with ``jit_compile=True``."""
        from ..torch.own_paths import compiled

        return compiled(function)

    def unrolls(self, count: int) -> bool:
        """Return whether a loop of ``count`` steps is unrolled: always, because all loops over time
        run step by step."""
        return True

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """Make one step of a Keras optimizer. Return the new parameters, and the new optimizer
        state.

        The step works on copies of the parameters ``tensors`` and of ``state``, because Keras'
        optimizers for torch write into their arguments. ``trained`` are Keras' variables.
        """
        copies = [t.clone() for t in state], gradients, [t.clone() for t in tensors]
        return optimizer.stateless_apply(*copies)
