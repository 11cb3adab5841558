"""torch's kernels for an executor, on the CPU or CUDA: operations with ``out=``, without autograd.

Each function gets its tensors once, and returns a function without arguments, which an executor
calls in each run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from harness.extend.executor import Call, in_turn

from .primitives import ELEMENTWISE

Tensor = Any

OPERATIONS: Mapping[str, Callable[..., Any]] = {**ELEMENTWISE, "sigmoid": torch.sigmoid}
# torch's backward functions for activations. At kinks and NaN, they agree with the harness'
# equations.
GRADIENTS: Mapping[str, Callable[..., Any]] = {
    "sigmoid_gradient": torch.ops.aten.sigmoid_backward.grad_input,
    "tanh_gradient": torch.ops.aten.tanh_backward.grad_input,
}


class TorchKernels:
    """The torch kernels (:class:`harness.runtime.executor.Kernels`) for one device and float dtype.

    If ``products`` is given (bfloat16 or float16), matrix products run in that dtype.
    """

    tiled: Collection[str] = frozenset()

    def __init__(self, dtype: str, device: str, products: str = "") -> None:
        self.dtype, self.device = getattr(torch, dtype), device
        self.products = getattr(torch, products) if products else None
        self.kinds = {"float": self.dtype, "index": torch.int64, "bool": torch.bool}
        self.table: Mapping[str, Callable[..., Call]] = {
            **{op: partial(self._operation, function) for op, function in OPERATIONS.items()},
            **{op: partial(self._gradient, function) for op, function in GRADIENTS.items()},
            "arange": lambda out: partial(torch.arange, len(out), out=out),
            "cumulative_sum": lambda out, x: partial(torch.cumsum, x, -1, out=out),
            "argsort": lambda out, x: lambda: out.copy_(torch.argsort(x, stable=True)),
            "copy": self._copy,
            "astype": self._copy,
            "flip": lambda out, x, axis: lambda: out.copy_(x.flip(axis)),
            "where": self._where,
            "take": lambda out, x, i: partial(torch.index_select, x, 0, i, out=out),
            "take_along_axis": lambda out, x, i: partial(torch.gather, x, 1, i, out=out),
            "one_hot": lambda out, i: in_turn(out.zero_, partial(out.scatter_, -1, i, 1.0)),
            "segment_sum": lambda out, x, i: in_turn(out.zero_, partial(out.index_add_, 0, i, x)),
            "sum": lambda out, x: partial(torch.sum, x, 1, out=out),
            "max": lambda out, x: partial(torch.amax, x, 1, out=out),
            "matmul": self._narrow_matmul if products else self._matmul,
            "addmm": self._narrow_addmm if products else self._addmm,
            "relu": lambda out, x: partial(torch.clamp_min, x, 0.0, out=out),
            "clip": lambda out, x, low, high: partial(torch.clamp, x, low, high, out=out),
            "relu_gradient": self._relu_gradient,
            "clip_gradient": self._clip_gradient,
            "scatter_add": self._scatter_add,
            "softmax": lambda out, x: partial(torch.softmax, x, 1, out=out),
            "log_sum_exp": lambda out, x: partial(torch.logsumexp, x, 1, True, out=out),
        }
        every = frozenset(range(3))
        pointwise = (*OPERATIONS, *GRADIENTS, "relu", "clip", "relu_gradient", "clip_gradient")
        self.aliases: Mapping[str, frozenset[int]] = {
            **dict.fromkeys((*pointwise, "where"), every),
            "addmm": frozenset({0}),
            "scatter_add": frozenset({0}),
        }

    def memory(self, size: int, kind: str) -> Tensor:
        with torch.inference_mode():
            return torch.empty(size, dtype=self.kinds[kind], device=self.device)

    def view(
        self, memory: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> Tensor:
        start = memory.storage_offset() + offset  # as_strided counts from the storage's start
        with torch.inference_mode():
            return torch.as_strided(memory, tuple(shape), tuple(strides), start)

    def flat(self, tensor: Tensor, shape: Sequence[int], kind: str) -> tuple[Tensor, bool]:
        if (tuple(tensor.shape), tensor.dtype) != (tuple(shape), self.kinds[kind]):
            raise ValueError(
                f"expected {self.kinds[kind]} {list(shape)}, found {tensor.dtype} "
                f"{list(tensor.shape)}"
            )
        with torch.inference_mode():
            return tensor.reshape(-1), tensor.is_contiguous()

    def copy(self, out: Tensor, tensor: Tensor) -> None:
        with torch.inference_mode():
            out.copy_(tensor)

    def run(self, calls: Iterable[Call]) -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    def _scalar(self, operand: Any) -> Tensor:
        """Return a number as a tensor without axes, which torch accepts as an operand on every
        device."""
        if isinstance(operand, torch.Tensor):
            return operand
        return torch.tensor(operand, dtype=self.dtype)

    def _whole(self, operand: Any, like: Tensor) -> Tensor:
        """Return an operand as a tensor of the shape of ``like``. A number is repeated for all
        entries; a tensor is returned unchanged."""
        if isinstance(operand, torch.Tensor):
            return operand
        return torch.tensor(operand, dtype=self.dtype, device=self.device).expand(like.shape)

    def _operation(self, function: Callable[..., Any], out: Tensor, *inputs: Any) -> Call:
        return partial(function, *map(self._scalar, inputs), out=out)

    def _copy(self, out: Tensor, x: Any) -> Call:
        return partial(out.copy_, x) if isinstance(x, torch.Tensor) else partial(out.fill_, x)

    def _where(self, out: Tensor, condition: Tensor, a: Any, b: Any) -> Call:
        a, b = self._whole(a, out), self._whole(b, out)
        return partial(torch.where, condition, a, b, out=out)

    def _matmul(self, out: Tensor, a: Tensor, b: Tensor) -> Call:
        return partial(torch.mm if a.dim() == b.dim() == 2 else torch.matmul, a, b, out=out)

    def _narrow_matmul(self, out: Tensor, a: Tensor, b: Tensor) -> Call:
        return lambda: out.copy_(torch.matmul(a.to(self.products), b.to(self.products)))

    def _narrow_addmm(self, out: Tensor, c: Any, a: Tensor, b: Tensor) -> Call:
        c = self._whole(c, out)
        return lambda: torch.add(c, torch.mm(a.to(self.products), b.to(self.products)), out=out)

    def _addmm(self, out: Tensor, c: Any, a: Tensor, b: Tensor) -> Call:
        return partial(torch.addmm, self._whole(c, out), a, b, out=out)

    def _gradient(self, function: Callable[..., Any], out: Tensor, g: Any, y: Tensor) -> Call:
        return partial(function, self._whole(g, y), y, grad_input=out)

    def _relu_gradient(self, out: Tensor, g: Any, y: Tensor) -> Call:
        function = torch.ops.aten.threshold_backward.grad_input
        return partial(function, self._whole(g, y), y, 0, grad_input=out)

    def _clip_gradient(self, out: Tensor, g: Any, x: Tensor, low: float, high: float) -> Call:
        function = torch.ops.aten.hardtanh_backward.grad_input
        return partial(function, self._whole(g, x), x, low, high, grad_input=out)

    def _scatter_add(self, out: Tensor, x: Tensor, indices: Tensor, y: Tensor) -> Call:
        add = partial(out.scatter_add_, 1, indices, y)
        return add if out.data_ptr() == x.data_ptr() else in_turn(partial(out.copy_, x), add)
