"""The loop of a GRU that resets after the recurrent product; see :mod:`numpy_cells`."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy_activations import sigmoid, sigmoid_back, tanh_back
from numpy_cells import Cell, rows_of
from numpy_parts import Array, Flat, column_sums


class GruAfter(Cell):
    """Gates in the order z, r, n; r multiplies the product of the state and its bias."""

    def __init__(self, flat: Flat, source: Any, time: int, batch: int, hidden: int) -> None:
        super().__init__(flat, source, time, batch, hidden)
        self.gates = np.empty((time, 3, batch, hidden), flat.all.dtype)
        self.products = np.empty((time, batch, hidden), flat.all.dtype)
        self.difference = np.empty_like(self.products)
        # Gradients of what the state gives to the gates; those of the input are in ``back``.
        self.recurrent = np.empty_like(self.back)

    def forward(self, h: Array | None, carried: MutableMapping[str, Array]) -> None:
        """Fill the states."""
        self.begin(h)
        value, split, joined = self.flat.value, 2 * self.hidden, self._joined
        for t in range(self.time):
            state, x = self.states[t], self.source.step(t)
            z, r, n = self.gates[t]
            if t < self.first:
                joined[...] = value["c"]
            else:
                np.matmul(state, value["U"], out=joined)
                joined += value["c"]
            self.products[t] = joined[:, split:]
            joined[:, :split] += x[:, :split]
            sigmoid(self.apart(joined)[:2], self.gates[t, :2])
            np.multiply(r, self.products[t], out=n)
            n += x[:, split:]
            np.tanh(n, out=n)
            np.subtract(state, n, out=self.difference[t])
            new = np.multiply(self.difference[t], z, out=self.states[t + 1])
            new += n

    def backward(self, outside: Sequence[Array | None]) -> None:
        """Fill the gradients."""
        value, gradient, split = self.flat.value, self.flat.gradient, 2 * self.hidden
        dh, (dz, dr, dn) = self._dh, self._parts
        for t in reversed(range(self.time)):
            z, r, n = self.gates[t]
            back = self.apart(self.back[t])
            if t == self.time - 1:
                dh[...] = outside[t]
            else:
                dh += np.matmul(self.recurrent[t + 1], value["U"].T, out=self._one)
                dh += outside[t]
            np.multiply(dh, self.difference[t], out=dz)
            direct = np.multiply(dh, z, out=self._spare[2])
            dh -= direct
            dn[...] = tanh_back(dh, n, self._one, back[2])
            dh[...] = direct
            np.multiply(dn, self.products[t], out=dr)
            sigmoid_back(self._parts[:2], self.gates[t, :2], self._spare[:2], back[:2])
            self.recurrent[t, :, :split] = self.back[t, :, :split]
            np.multiply(dn, r, out=self.recurrent[t, :, split:])
        column_sums(rows_of(self.recurrent), gradient["c"])
        self.weight("U", self.states, self.recurrent)
        self.source.backward(rows_of(self.back))
