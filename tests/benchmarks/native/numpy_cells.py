"""The loops of the numpy baselines, forward and back through time.

States are [time + 1, batch, hidden], the first one being that from before the sequence. Where it
is zeros, its products are left out. Matrices of several gates lie side by side, so that a time
step has one product; what it gives is taken apart into [gate, batch, hidden] at once, because
element-wise work on whole arrays is several times faster than on parts of rows. Gradients of
gates are side by side again: each weight gradient is one product over all time steps.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy_activations import BACK, Function, relu_back, tanh_back
from numpy_parts import Array, Flat, column_sums


class Cell:
    """What the loops share. ``outside[t]`` is the loss's own gradient for a state, or None."""

    def __init__(self, flat: Flat, source: Any, time: int, batch: int, hidden: int) -> None:
        self.flat, self.source, self.time, self.hidden = flat, source, time, hidden
        dtype, width = flat.all.dtype, flat.value["W"].shape[1]
        self.states = np.zeros((time + 1, batch, hidden), dtype)
        self.back = np.empty((time, batch, width), dtype)
        self.first = 1
        self._joined = np.empty((batch, width), dtype)
        # Up to four arrays of [batch, hidden].
        self._spare, self._parts = np.empty((2, width // hidden, batch, hidden), dtype)
        self._dh, self._one = np.empty((2, batch, hidden), dtype)

    def begin(self, h: Array | None) -> None:
        """Set the state from before the sequence; None is zeros."""
        self.first = 1 if h is None else 0
        if h is not None:
            self.states[0] = h

    def apart(self, x: Array) -> Array:
        """A view of [batch, gates * hidden] as [gate, batch, hidden]."""
        return x.reshape(len(x), -1, self.hidden).transpose(1, 0, 2)

    def weight(self, name: str, left: Array, right: Array) -> None:
        """The gradient of a recurrent matrix, from [time, batch, ...] on both sides."""
        left, right = left[self.first : self.time], right[self.first :]
        np.matmul(rows_of(left).T, rows_of(right), out=self.flat.gradient[name])


def rows_of(x: Array) -> Array:
    """[time, batch, units] as [time * batch, units]: a view, of a part of the units too."""
    time, batch, units = x.shape
    _, row, item = x.strides
    return np.lib.stride_tricks.as_strided(x, (time * batch, units), (row, item))


class Rnn(Cell):
    """relu(x W + b + h U)."""

    def forward(self, h: Array | None, carried: MutableMapping[str, Array]) -> None:
        """Fill the states."""
        self.begin(h)
        u, states = self.flat.value["U"], self.states
        for t in range(self.time):
            new, x = states[t + 1], self.source.step(t)
            if t < self.first:
                np.maximum(x, 0, out=new)
                continue
            np.matmul(states[t], u, out=new)
            new += x
            np.maximum(new, 0, out=new)

    def backward(self, outside: Sequence[Array | None]) -> None:
        """Fill the gradients."""
        u = self.flat.value["U"].T
        for t in reversed(range(self.time)):
            g = self.back[t]
            if t == self.time - 1:
                relu_back(outside[t], self.states[t + 1], self._one, g)
                continue
            np.matmul(self.back[t + 1], u, out=g)
            if outside[t] is not None:
                g += outside[t]
            relu_back(g, self.states[t + 1], self._one, g)
        self.weight("U", self.states, self.back)
        self.source.backward(rows_of(self.back))


class Lstm(Cell):
    """Gates in the order i, f, o, g; the first three go through ``gate``."""

    def __init__(
        self, flat: Flat, source: Any, time: int, batch: int, hidden: int, gate: Function
    ) -> None:
        super().__init__(flat, source, time, batch, hidden)
        self.gate = gate
        self.gates = np.empty((time, 4, batch, hidden), flat.all.dtype)
        self.cells = np.zeros_like(self.states)
        self.tanh = np.empty_like(self.states[1:])
        self._dc = np.empty_like(self._dh)

    def forward(self, h: Array | None, carried: MutableMapping[str, Array]) -> None:
        """Fill the states, from the last ones of the batch before."""
        self.begin(carried["h"])
        self.cells[0] = carried["c"]
        u, joined = self.flat.value["U"], self._joined
        apart = self.apart(joined)
        for t in range(self.time):
            i, f, o, g = self.gates[t]
            c = self.cells[t + 1]
            np.matmul(self.states[t], u, out=joined)
            joined += self.source.step(t)
            self.gate(apart[:3], self.gates[t, :3])
            np.tanh(apart[3], out=g)
            np.multiply(f, self.cells[t], out=c)
            c += np.multiply(i, g, out=self._one)
            np.tanh(c, out=self.tanh[t])
            np.multiply(o, self.tanh[t], out=self.states[t + 1])
        carried["h"][...] = self.states[-1]
        carried["c"][...] = self.cells[-1]

    def backward(self, outside: Sequence[Array | None]) -> None:
        """Fill the gradients."""
        u, dh, dc = self.flat.value["U"].T, self._dh, self._dc
        di, df, do, dg = self._parts
        dc[...] = 0
        for t in reversed(range(self.time)):
            i, f, o, g = self.gates[t]
            back = self.apart(self.back[t])
            if t == self.time - 1:
                dh[...] = outside[t]
            else:
                np.matmul(self.back[t + 1], u, out=dh)
                dh += outside[t]
            np.multiply(dh, self.tanh[t], out=do)
            dh *= o
            dc += tanh_back(dh, self.tanh[t], self._one, dh)
            np.multiply(dc, g, out=di)
            np.multiply(dc, self.cells[t], out=df)
            np.multiply(dc, i, out=dg)
            dc *= f
            BACK[self.gate](self._parts[:3], self.gates[t, :3], self._spare[:3], back[:3])
            tanh_back(dg, g, self._one, back[3])
        self.weight("U", self.states, self.back)
        self.source.backward(rows_of(self.back))


class Gru(Cell):
    """Gates in the order z, r, n; r multiplies the state before its product."""

    def __init__(
        self,
        flat: Flat,
        source: Any,
        time: int,
        batch: int,
        hidden: int,
        gate: Function,
        act: Function,
    ) -> None:
        super().__init__(flat, source, time, batch, hidden)
        self.gate, self.act = gate, act
        self.gates = np.empty((time, 3, batch, hidden), flat.all.dtype)
        self.reset = np.zeros_like(self.states[1:])
        self.difference = np.empty_like(self.reset)
        self._two = np.empty((batch, 2 * hidden), flat.all.dtype)

    def forward(self, h: Array | None, carried: MutableMapping[str, Array]) -> None:
        """Fill the states."""
        self.begin(h)
        value, split = self.flat.value, 2 * self.hidden
        for t in range(self.time):
            state, x = self.states[t], self.source.step(t)
            z, r, n = self.gates[t]
            if t < self.first:
                self.gate(self.apart(x)[:2], self.gates[t, :2])
                self.act(x[:, split:], n)
            else:
                joined = np.matmul(state, value["U_zr"], out=self._two)
                joined += x[:, :split]
                self.gate(self.apart(joined), self.gates[t, :2])
                np.multiply(state, r, out=self.reset[t])
                np.matmul(self.reset[t], value["U_n"], out=n)
                n += x[:, split:]
                self.act(n, n)
            np.subtract(state, n, out=self.difference[t])
            new = np.multiply(self.difference[t], z, out=self.states[t + 1])
            new += n

    def backward(self, outside: Sequence[Array | None]) -> None:
        """Fill the gradients."""
        value, split = self.flat.value, 2 * self.hidden
        dh, product = self._dh, self._one
        dz, dr, dn = self._parts
        for t in reversed(range(self.time)):
            z, r, n = self.gates[t]
            back = self.apart(self.back[t])
            if t == self.time - 1:
                dh[...] = outside[t]
            else:
                dh += np.matmul(self.back[t + 1][:, :split], value["U_zr"].T, out=product)
                dh += outside[t]
            np.multiply(dh, self.difference[t], out=dz)
            np.multiply(dh, z, out=product)
            np.subtract(dh, product, out=dh)
            BACK[self.act](dh, n, dn, back[2])
            dh, product = product, dh
            if t < self.first:
                dr[...] = 0
            else:
                np.matmul(self.back[t][:, split:], value["U_n"].T, out=product)
                np.multiply(product, self.states[t], out=dr)
                product *= r
                dh += product
            BACK[self.gate](self._parts[:2], self.gates[t, :2], self._spare[:2], back[:2])
        self.weight("U_zr", self.states, self.back[..., :split])
        self.weight("U_n", self.reset, self.back[..., split:])
        self.source.backward(rows_of(self.back))


class Unrolled(Cell):
    """x_t + act(h W + b), where x_t has its own activation: dense layers over positions."""

    def __init__(
        self, flat: Flat, source: Any, time: int, batch: int, hidden: int, act: Function
    ) -> None:
        super().__init__(flat, source, time, batch, hidden)
        self.act = act
        self._active, self._total = np.empty((2, time, batch, hidden), flat.all.dtype)

    def forward(self, h: Array | None, carried: MutableMapping[str, Array]) -> None:
        """Fill the states."""
        self.begin(h)
        value = self.flat.value
        for t in range(self.time):
            x = self.source.step(t)
            if t < self.first:
                self.states[1] = x
                continue
            part = np.matmul(self.states[t], value["U"], out=self._active[t])
            part += value["c"]
            self.act(part, part)
            np.add(x, part, out=self.states[t + 1])

    def backward(self, outside: Sequence[Array | None]) -> None:
        """Fill the gradients."""
        u = self.flat.value["U"].T
        for t in reversed(range(self.time)):
            total = self._total[t]
            if t == self.time - 1:
                total[...] = outside[t]
            else:
                np.matmul(self.back[t + 1], u, out=total)
                if outside[t] is not None:
                    total += outside[t]
            if t >= self.first:
                BACK[self.act](total, self._active[t], self._one, self.back[t])
        self.weight("U", self.states, self.back)
        column_sums(rows_of(self.back[self.first :]), self.flat.gradient["c"])
        start = None if self.first else self.back[0] @ u
        self.source.backward(self._total, start)
