"""numpy's kernels for an executor: ufuncs and matrix products that write their results into given
arrays.

Each function gets its arrays once, and returns a function without arguments, which an executor
calls in each run. Masks are applied to the bits of floats with integer operations. The reasons:
``numpy.where`` is 20 times slower on random masks, and multiplying by 0 does not remove NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from harness.extend import Array, rounded_to
from harness.extend.executor import Call, in_turn

from .erf import SCRATCH, erf, erf_calls
from .primitives import UFUNCS
from .segments import segment_sum

# The ufunc behind np.clip, three times faster on small arrays; numpy 2.0 moved it.
_UMATH = "numpy._core.umath" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core.umath"
CLIP = import_module(_UMATH).clip


class NumpyKernels:
    """The numpy kernels (:class:`harness.runtime.executor.Kernels`) for one float dtype.

    If ``products`` is given (bfloat16 or float16), the operands and results of matrix products are
    rounded to that dtype.
    """

    # Operations that spend most of their time on memory access if arrays are large.
    tiled: Collection[str] = frozenset(UFUNCS) | {
        *("copy", "where", "relu", "clip", "sigmoid", "erf"),
        *("sigmoid_gradient", "tanh_gradient", "relu_gradient", "clip_gradient"),
    }

    def __init__(self, dtype: str, products: str = "") -> None:
        self.dtype, self.products = np.dtype(dtype), products
        self.bits = np.dtype(f"u{self.dtype.itemsize}")
        self.kinds = {"float": self.dtype, "index": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
        self._scratch: dict[Any, Array] = {}
        self.table: Mapping[str, Callable[..., Call]] = {
            **{op: partial(self._ufunc, ufunc) for op, ufunc in UFUNCS.items()},
            "negative": _negative,
            "arange": lambda out: partial(np.copyto, out, np.arange(len(out))),
            "erf": self._erf,
            "cumulative_sum": lambda out, x: partial(np.cumsum, x, -1, None, out),
            "argsort": lambda out, x: lambda: np.copyto(out, np.argsort(x, -1, kind="stable")),
            "copy": self._copy,
            "astype": self._copy,
            "flip": lambda out, x, axis: partial(np.copyto, out, np.flip(x, axis)),
            "where": self._where,
            "take": lambda out, x, i: partial(np.take, x, i, 0, out, "clip"),
            "take_along_axis": self._take_along_axis,
            "one_hot": self._one_hot,
            "segment_sum": partial(segment_sum, self.scratch),
            "sum": self._sum,
            "max": self._max,
            "matmul": self._narrow_matmul if products else self._matmul,
            "relu": lambda out, x: self._ufunc(CLIP, out, x, 0.0, np.inf),
            "clip": lambda out, x, low, high: self._ufunc(CLIP, out, x, low, high),
            "sigmoid": self._sigmoid,
            "sigmoid_gradient": self._sigmoid_gradient,
            "tanh_gradient": self._tanh_gradient,
            "relu_gradient": self._relu_gradient,
            "clip_gradient": self._clip_gradient,
            "scatter_add": self._scatter_add,
            "softmax": self._softmax,
            "log_sum_exp": self._log_sum_exp,
        }
        every = frozenset(range(3))
        self.aliases: Mapping[str, frozenset[int]] = {
            **dict.fromkeys(UFUNCS, every),
            "where": frozenset({1, 2}),
            **dict.fromkeys(("relu", "clip", "sigmoid", "softmax"), every),
            **dict.fromkeys(("relu_gradient", "clip_gradient"), every),
            "sigmoid_gradient": frozenset({0}),
            "tanh_gradient": frozenset({0}),
            "scatter_add": frozenset({0}),
        }

    def memory(self, size: int, kind: str) -> Array:
        return np.empty(size, self.kinds[kind])

    def view(
        self, memory: Array, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> Array:
        size = memory.itemsize
        steps = tuple(stride * size for stride in strides)
        return np.ndarray(tuple(shape), memory.dtype, memory, offset * size, steps)

    def flat(self, tensor: Array, shape: Sequence[int], kind: str) -> tuple[Array, bool]:
        array = np.asarray(tensor)
        if (array.shape, array.dtype) != (tuple(shape), self.kinds[kind]):
            raise ValueError(
                f"expected {self.kinds[kind]} {list(shape)}, "
                f"found {array.dtype} {list(array.shape)}"
            )
        ordered = np.asarray(array, order="C")
        return ordered.reshape(-1), ordered is tensor

    def copy(self, out: Array, tensor: Array) -> None:
        np.copyto(out, tensor)

    def run(self, calls: Iterable[Call]) -> None:
        with np.errstate(all="ignore"):  # saturation and NaN are expected results
            for call in calls:
                call()

    def scratch(self, shape: Sequence[int], dtype: Any, key: int = 0) -> Array:
        """Return memory for the intermediate values of one call, which other calls also use. If a
        call needs several such arrays, each has a different ``key``."""
        size = int(np.prod(shape, dtype=np.int64))
        name = (np.dtype(dtype), key)
        if name not in self._scratch or self._scratch[name].size < size:
            self._scratch[name] = np.empty(size, dtype)
        return self._scratch[name][:size].reshape(shape)

    def _array(self, operand: Any) -> Array:
        """Return a number as an array without axes. numpy's functions accept such an array four
        times faster than a Python float."""
        return operand if isinstance(operand, np.ndarray) else np.array(operand, self.dtype)

    def _ufunc(self, ufunc: Any, out: Array, *inputs: Any) -> Call:
        return partial(ufunc, *map(self._array, inputs), out)

    def _matmul(self, out: Array, a: Array, b: Array) -> Call:
        return partial(np.matmul, a, b, out)

    def _narrow_matmul(self, out: Array, a: Array, b: Array) -> Call:
        def run() -> None:
            made = np.matmul(rounded_to(a, self.products), rounded_to(b, self.products))
            np.copyto(out, rounded_to(made, self.products))

        return run

    def _copy(self, out: Array, x: Any) -> Call:
        return partial(np.copyto, out, x)

    def _where(self, out: Array, condition: Array, a: Any, b: Any) -> Call:
        if out.dtype != self.dtype:  # indices and conditions
            return lambda: np.copyto(out, np.where(condition, a, b))
        mask, chosen = self.scratch(out.shape, self.bits), self.scratch(out.shape, self.bits, 1)
        a, b = (self._array(i).view(self.bits) for i in (a, b))
        return in_turn(
            partial(np.copyto, mask, condition),
            partial(np.negative, mask, mask),
            partial(np.bitwise_xor, a, b, chosen),
            partial(np.bitwise_and, chosen, mask, chosen),
            partial(np.bitwise_xor, chosen, b, out.view(self.bits)),
        )

    def _places(self, x: Array, indices: Array) -> tuple[Call, Array, Array]:
        """Prepare the selection of one or more entries in each row of ``x``; ``indices`` has their
        columns. Return three things:

        - a function that computes the positions of these entries in the flat array,
        - ``x`` as a flat array: a view, in row-major or column-major order,
        - the array to which the function writes the positions.
        """
        by_rows = bool(x.flags.c_contiguous)
        length, classes = x.shape
        rows = np.arange(length)[:, None] * (classes if by_rows else 1)
        places = self.scratch(indices.shape, np.int64)
        if by_rows:
            return partial(np.add, rows, indices, places), x.reshape(-1), places
        stride = np.array(length)
        work = in_turn(
            partial(np.multiply, indices, stride, places), partial(np.add, rows, places, places)
        )
        return work, x.T.reshape(-1), places

    def _take_along_axis(self, out: Array, x: Array, indices: Array) -> Call:
        if not (x.flags.c_contiguous or x.flags.f_contiguous):
            rows = np.arange(len(x))[:, None]
            return lambda: np.copyto(out, x[rows, indices])
        work, flat, places = self._places(x, indices)
        return in_turn(work, partial(np.take, flat, places, None, out, "clip"))

    def _scatter_add(self, out: Array, x: Array, indices: Array, y: Array) -> Call:
        copy = partial(np.copyto, out, x)
        before: list[Call] = [] if out.ctypes.data == x.ctypes.data else [copy]
        if not (out.flags.c_contiguous or out.flags.f_contiguous):
            here = (np.arange(len(x))[:, None], indices)
            return in_turn(*before, lambda: out.__setitem__(here, out[here] + y))
        work, flat, places = self._places(out, indices)
        sums = self.scratch(indices.shape, self.dtype)
        return in_turn(
            *before,
            work,
            partial(np.take, flat, places, None, sums, "clip"),
            partial(np.add, sums, y, sums),
            partial(flat.__setitem__, places, sums),
        )

    def _one_hot(self, out: Array, indices: Array) -> Call:
        return partial(np.equal, indices, np.arange(out.shape[-1]), out)

    def _sum(self, out: Array, x: Array) -> Call:
        return partial(np.matmul, x, np.ones(x.shape[1], x.dtype), out)

    def _max(self, out: Array, x: Array) -> Call:
        """Return a function that writes the maximum of each row of ``x`` to ``out``. For contiguous
        rows it uses ``argmax``, which is faster than ``max``."""
        if not x.flags.c_contiguous:
            return partial(np.maximum.reduce, x, 1, None, out)
        places, starts = self.scratch(out.shape, np.intp), np.arange(len(x)) * x.shape[1]
        return in_turn(
            partial(x.argmax, 1, places),
            partial(np.add, places, starts, places),
            partial(np.take, x.reshape(-1), places, None, out, "clip"),
        )

    def _erf(self, out: Array, x: Any) -> Call:
        x = self._array(x)
        if self.dtype != np.float32:
            return lambda: np.copyto(out, erf(x))
        scratch = [self.scratch(out.shape, self.dtype, key) for key in range(SCRATCH)]
        return in_turn(*erf_calls(out, x, scratch))

    def _sigmoid(self, out: Array, x: Array) -> Call:
        one = np.array(1.0, self.dtype)
        return in_turn(
            _negative(out, x),
            partial(np.exp, out, out),
            partial(np.add, out, one, out),
            partial(np.reciprocal, out, out),
        )

    def _sigmoid_gradient(self, out: Array, g: Any, y: Array) -> Call:
        slope, one = self.scratch(y.shape, self.dtype), np.array(1.0, self.dtype)
        return in_turn(
            partial(np.subtract, one, y, slope),
            partial(np.multiply, slope, y, slope),
            partial(np.multiply, self._array(g), slope, out),
        )

    def _tanh_gradient(self, out: Array, g: Any, y: Array) -> Call:
        slope, one = self.scratch(y.shape, self.dtype), np.array(1.0, self.dtype)
        return in_turn(
            partial(np.multiply, y, y, slope),
            partial(np.subtract, one, slope, slope),
            partial(np.multiply, self._array(g), slope, out),
        )

    def _relu_gradient(self, out: Array, g: Any, y: Array) -> Call:
        # y is NaN or at least 0. Read as an integer, y is 0 exactly if the slope is 0.
        keep = self.scratch(y.shape, self.bits)
        zero, one = np.array(0, self.bits), np.array(1, self.bits)
        return in_turn(
            partial(CLIP, y.view(self.bits), zero, one, keep),
            partial(np.multiply, self._array(g).view(self.bits), keep, out.view(self.bits)),
        )

    def _clip_gradient(self, out: Array, g: Any, x: Array, low: float, high: float) -> Call:
        below, above = (self.scratch(x.shape, np.bool_, key) for key in (0, 1))
        keep = self.scratch(x.shape, self.bits)
        return in_turn(
            partial(np.less_equal, x, self._array(low), below),
            partial(np.greater_equal, x, self._array(high), above),
            partial(np.logical_or, below, above, below),
            partial(np.logical_not, below, below),
            partial(np.copyto, keep, below),
            partial(np.multiply, self._array(g).view(self.bits), keep, out.view(self.bits)),
        )

    def _exponentials(self, out: Array, x: Array, largest: Array, total: Array) -> list[Call]:
        """Return functions, e.g. for a softmax. If they are called in order, they write the maximum
        of each row of ``x`` to ``largest``, exp(x - largest) to ``out``, and the sum of each row of
        ``out`` to ``total``."""
        ones = np.ones(x.shape[1], self.dtype)
        return [
            self._max(largest, x),
            partial(np.subtract, x, largest[:, None], out),
            partial(np.exp, out, out),
            partial(np.matmul, out, ones, total),
        ]

    def _softmax(self, out: Array, x: Array) -> Call:
        largest, total = (self.scratch(x.shape[:1], self.dtype, key) for key in (1, 2))
        calls = self._exponentials(out, x, largest, total)
        return in_turn(*calls, partial(np.divide, out, total[:, None], out))

    def _log_sum_exp(self, out: Array, x: Array) -> Call:
        largest, total = (self.scratch(x.shape[:1], self.dtype, key) for key in (1, 2))
        by_rows = x.strides[0] >= x.strides[1]
        powers = self.scratch(x.shape if by_rows else x.shape[::-1], self.dtype)
        calls = self._exponentials(powers if by_rows else powers.T, x, largest, total)
        return in_turn(
            *calls, partial(np.log, total, total), partial(np.add, largest, total, out[:, 0])
        )


def _negative(out: Array, x: Array) -> Call:
    """Return a function that writes ``-x`` to ``out``. It multiplies by -1 and does not use
    ``np.negative``.

    In numpy 2.4, ``np.negative`` gives wrong results for contiguous inputs of 4 or 8 bytes per
    number if the output is strided.
    """
    return partial(np.multiply, x, np.array(-1, out.dtype), out)
