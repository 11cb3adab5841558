"""The peaks of a device: how fast a backend multiplies matrices and adds arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import SystemRandom
from statistics import median
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.runtime import promises
from harness.runtime.backend import Backend
from harness.runtime.devices import card_of
from harness.runtime.precision import WIDTHS, host_dtype, narrow

# Of each of the three arrays of the bandwidth test, far beyond any cache: numbers on a CPU, and
# bytes on a card, where the L2 alone of an H100 has 50 MB, and later ones have more.
LARGE_ARRAY, LARGE_ON_CARD = 1 << 24, 1 << 29
TRIES = 5
# So many entries of a product are looked at, and may be off by this share of the root of the number
# of their terms.
LOOKED_AT, OFF = 16, 0.1
# A product that is read takes no more than so many times as long as one that nobody reads, without
# what reading takes; where it takes so many seconds, beside which a call is nothing.
READ, LONG = 2.0, 1e-3

Binary = Callable[[Any, Any], Any]


def bandwidth_numbers(device: str, dtype: str) -> int:
    """How many numbers each array of the bandwidth test has."""
    return LARGE_ARRAY if card_of(device) is None else LARGE_ON_CARD // WIDTHS[dtype]


class PeakMeter:
    """Measures with one backend on one device, in a dtype. What it is told is looked at: a product
    must be one, and must have been made when the clock stopped."""

    def __init__(self, backend: Backend, device: str, dtype: str) -> None:
        self.backend, self.device, self.dtype = backend, device, dtype

    def product(self, m: int, k: int, n: int) -> float:
        """FLOP/s of a product ``[m, k] @ [k, n]``.

        Raises:
            ContractError: what ``matmul`` gives is not the product.
        """
        random = np.random.default_rng(0)
        arrays = [random.standard_normal(s, np.float32) for s in ((m, k), (k, n))]
        left, right = map(self._operand, arrays)
        multiply = self._compiled("matmul")
        alone = self._seconds(multiply, left, right)
        read = min(self._read(multiply, left, right, *arrays) for _ in range(TRIES))
        # Whoever makes a product only when it is read has made none before.
        put_off = read > max(READ * alone, LONG)
        return 2 * m * k * n / (read if put_off else alone)

    def bandwidth(self) -> float:
        """Bytes/s of an addition of arrays beyond all caches."""
        numbers = bandwidth_numbers(self.device, self.dtype)
        # What is added does not matter, and drawing so many numbers takes a second.
        large = [
            self.backend.tensor(np.full(numbers, value, host_dtype(self.dtype)))
            for value in (1.0, 2.0)
        ]
        return 3 * numbers * WIDTHS[self.dtype] / self._seconds(self._compiled("add"), *large)

    def _compiled(self, op: str) -> Binary:
        table = self.backend.primitives

        def function(variables: dict[str, Any], constants: dict[str, Any]) -> dict[str, Any]:
            return {"result": table[op](variables["a"], variables["b"])}

        compiled = promises.function(self.backend.compile(function), "compile()")
        return lambda a, b: compiled({"a": a, "b": b}, {})["result"]

    def _operand(self, array: Array) -> Any:
        """What products are made of in a session of the dtype."""
        made = self.backend.tensor(array.astype(host_dtype(self.dtype)))
        narrowed = narrow(self.dtype)
        return self.backend.primitives["astype"](made, dtype=narrowed) if narrowed else made

    def _read(self, multiply: Binary, a: Any, b: Any, left: Array, right: Array) -> float:
        """Seconds of a product that is read, without what reading takes; some of its entries, drawn
        then, must be right."""
        cast, wide = self.backend.primitives["astype"], host_dtype(self.dtype)
        started = time.perf_counter()
        made = multiply(a, b)
        made = cast(made, dtype=wide) if narrow(self.dtype) else made
        found = promises.array(self.backend.numpy(made), "what matmul gave")
        taken = time.perf_counter() - started
        same = self.backend.tensor(np.array(found))
        self.backend.wait({"same": same})
        started = time.perf_counter()
        self.backend.numpy(same)
        taken -= time.perf_counter() - started
        if not _is_product(found, left, right):
            raise promises.ContractError(
                f"what matmul gave of {list(left.shape)} and {list(right.shape)} is not the product"
            )
        return taken

    def _seconds(self, run: Binary, a: Any, b: Any) -> float:
        """The best of several tries; as many runs in each as take a hundredth of a second."""

        def timed(count: int) -> float:
            started = time.perf_counter()
            for _ in range(count):
                result = run(a, b)
            self.backend.wait({"result": result})
            return (time.perf_counter() - started) / count

        timed(1)
        count = max(1, round(0.01 / max(median(timed(1) for _ in range(3)), 1e-7)))
        return min(timed(count) for _ in range(TRIES))


def _is_product(found: Array, left: Array, right: Array) -> bool:
    """Whether entries that are drawn now are those of the product."""
    rows, columns = shape = len(left), right.shape[1]
    most, draw = OFF * left.shape[1] ** 0.5, SystemRandom()
    places = [(draw.randrange(rows), draw.randrange(columns)) for _ in range(LOOKED_AT)]
    return found.shape == shape and all(
        abs(found[i, j] - left[i].astype(np.float64) @ right[:, j].astype(np.float64)) <= most
        for i, j in places
    )
