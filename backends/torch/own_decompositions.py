"""Torch operators written as simpler ones that have a rule.

These functions have the arguments of the operator. torch's own decompositions of these operators
lead to operators below those of torch's users, or do not exist. A function returns
``NotImplemented`` for arguments that it cannot translate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.extend.models import Rules

# The function of each operator, by its name without overload.
DECOMPOSITIONS: Rules[Any] = Rules()
DECOMPOSITIONS.update(
    {
        "ceil": lambda x: -torch.floor(-x),
        "trunc": lambda x: torch.sign(x) * torch.floor(torch.abs(x)),
        "frac": lambda x: x - torch.sign(x) * torch.floor(torch.abs(x)),
        "tan": lambda x: torch.sin(x) / torch.cos(x),
        "sinh": lambda x: (torch.exp(x) - torch.exp(-x)) / 2,
        "cosh": lambda x: (torch.exp(x) + torch.exp(-x)) / 2,
        "asinh": lambda x: torch.sign(x) * torch.log(torch.abs(x) + torch.sqrt(x * x + 1)),
        "acosh": lambda x: torch.log(x + torch.sqrt(x * x - 1)),
        "atanh": lambda x: torch.log((1 + x) / (1 - x)) / 2,
        "log2": lambda x: torch.log(x) / math.log(2),
        "log10": lambda x: torch.log(x) / math.log(10),
        "exp2": lambda x: torch.exp(x * math.log(2)),
        "erfc": lambda x: 1 - torch.erf(x),
        "hypot": lambda x, y: torch.sqrt(x * x + y * y),
        "fmod": lambda x, y: x - torch.trunc(x / y) * y,
        "var_mean": lambda x, *a, **k: (torch.var(x, *a, **k), _like_var(torch.mean, x, *a, **k)),
        "std_mean": lambda x, *a, **k: (torch.std(x, *a, **k), _like_var(torch.mean, x, *a, **k)),
        "trace": lambda x: torch.diagonal(x, 0, 0, 1).sum(-1),
        "take_along_dim": lambda x, index, dim=None: torch.gather(x, dim, index),
    }
)


def _like_var(
    function: Any, x: Tensor, dim: Any = None, unbiased: Any = True, keepdim: bool = False, **_: Any
) -> Tensor:
    """Return a reduction of the axes that an operator such as ``var_mean`` gets."""
    return function(x, dim if isinstance(dim, int | list | tuple) else None, keepdim=keepdim)


def _floats(*values: Any) -> bool:
    return all(not isinstance(v, Tensor) or v.is_floating_point() for v in values)


@DECOMPOSITIONS.of("round")
def _round(x: Tensor, *, decimals: int = 0) -> Any:
    """Round to the nearest integer, and halves to even integers."""
    if decimals or not _floats(x):
        return NotImplemented
    near = torch.floor(x + 0.5)
    is_odd = near - 2 * torch.floor(near / 2) == 1
    return torch.where((near - x == 0.5) & is_odd, near - 1, near)


@DECOMPOSITIONS.of("remainder")
def _remainder(x: Any, y: Any) -> Any:
    return x - torch.floor(x / y) * y if _floats(x, y) else NotImplemented


@DECOMPOSITIONS.of("div", "divide")
def _divide(x: Tensor, y: Any, *, rounding_mode: str | None = None) -> Any:
    if not _floats(x, y):
        return NotImplemented
    return torch.floor(x / y) if rounding_mode == "floor" else torch.trunc(x / y)


@DECOMPOSITIONS.of("xlogy")
def _times_log(x: Any, y: Any) -> Any:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return NotImplemented
    return torch.where(x == 0, 0.0, x * torch.log(torch.where(x == 0, 1.0, y)))


@DECOMPOSITIONS.of("rrelu")
def _rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, **_: Any
) -> Any:
    slope = (lower + upper) / 2
    return NotImplemented if training else torch.nn.functional.leaky_relu(x, slope)


@DECOMPOSITIONS.of("logcumsumexp")
def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    greatest = torch.amax(x, dim, keepdim=True)
    return torch.log(torch.cumsum(torch.exp(x - greatest), dim)) + greatest


@DECOMPOSITIONS.of("cumprod")
def _cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    products: list[Tensor] = []
    for entry in x.unbind(dim):
        products.append(products[-1] * entry if products else entry)
    return torch.stack(products, dim)


@DECOMPOSITIONS.of("prod")
def _product(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if dim is None or not x.shape[dim] or not _floats(x):
        return NotImplemented
    last = _cumprod(x, dim).select(dim, x.shape[dim] - 1)
    return last.unsqueeze(dim) if keepdim else last


@DECOMPOSITIONS.of("diff")
def _differences(
    x: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Tensor:
    x = torch.cat([part for part in (prepend, x, append) if part is not None], dim)
    for _ in range(n):
        length = x.shape[dim]
        x = x.narrow(dim, 1, length - 1) - x.narrow(dim, 0, length - 1)
    return x


@DECOMPOSITIONS.of("median", "kthvalue")
def _median(x: Tensor, *arguments: Any, **named: Any) -> Any:
    """Select a sorted entry: ``median(x, dim, keepdim)`` or ``kthvalue(x, k, dim, keepdim)``."""
    has_number = len(arguments) > 1 and not isinstance(arguments[1], bool)
    if not arguments:
        return NotImplemented
    number, rest = (arguments[0] - 1, arguments[1:]) if has_number else (None, arguments)
    dim, keepdim = [*rest, named.get("keepdim", False)][:2]
    number = (x.shape[dim] - 1) // 2 if number is None else number
    values, indices = torch.sort(x, dim)
    results = values.select(dim, number), indices.select(dim, number)
    return tuple(r.unsqueeze(dim) for r in results) if keepdim else results


# Moves.


@DECOMPOSITIONS.of("roll")
def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    if not dims:
        return NotImplemented
    for shift, dim in zip(shifts, dims, strict=True):
        length = x.shape[dim]
        first = shift % length if shift >= 0 else -((-shift) % length)
        if first:
            # The length of one part does not depend on a free size.
            cut = length - first if first > 0 else -first
            x = torch.cat([x.narrow(dim, cut, length - cut), x.narrow(dim, 0, cut)], dim)
    return x


@DECOMPOSITIONS.of("repeat")
def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    x = x.reshape([*[1] * (len(repeats) - x.ndim), *x.shape])
    for axis, times in enumerate(repeats):
        if times > 1:
            shape = [*x.shape[:axis], times, *x.shape[axis:]]
            x = x.unsqueeze(axis).expand(shape).flatten(axis, axis + 1)
    return x


@DECOMPOSITIONS.of("diagonal")
def _diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    x = x.movedim((dim1, dim2), (-2, -1))
    if offset or x.shape[-1] != x.shape[-2] or not _floats(x):
        return NotImplemented
    rows, columns = _grid(x)
    return torch.where(rows == columns, x, 0).sum(-1)


def _grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the rows and columns of a matrix."""
    return torch.arange(x.shape[-2]).unsqueeze(1), torch.arange(x.shape[-1])


@DECOMPOSITIONS.of("tril")
def _lower(x: Tensor, diagonal: int = 0) -> Tensor:
    rows, columns = _grid(x)
    return torch.where(columns - rows <= diagonal, x, 0)


@DECOMPOSITIONS.of("triu")
def _upper(x: Tensor, diagonal: int = 0) -> Tensor:
    rows, columns = _grid(x)
    return torch.where(columns - rows >= diagonal, x, 0)


@DECOMPOSITIONS.of("pad")
def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    if mode != "circular":
        # torch's decomposition leads to an operator of the mode.
        return torch.ops.aten.pad.default.decompose(x, pad, mode, value)
    for number in range(len(pad) // 2):
        before, after = pad[2 * number : 2 * number + 2]
        axis = x.ndim - 1 - number
        length = x.shape[axis]
        parts = [x.narrow(axis, length - before, before), x, x.narrow(axis, 0, after)]
        x = torch.cat([part for part in parts if part.shape[axis]], axis)
    return x


# Sums of entries at computed places.


def _hits(index: Tensor, dim: int, length: int) -> Tensor:
    """Return for each entry of an index, whose axis ``dim`` is moved to the end, and each number
    below a length whether they are equal."""
    return index.movedim(dim, -1).unsqueeze(-1) == torch.arange(length)


@DECOMPOSITIONS.of("scatter")
def _scatter(x: Tensor, dim: int, index: Tensor, value: Any, *, reduce: Any = None) -> Any:
    """Replace entries; torch does not define the result if two of them have the same place."""
    if reduce is not None:
        return NotImplemented
    hits = _hits(index, dim, x.shape[dim])
    is_hit = (hits.to(x.dtype).sum(-2) > 0).movedim(-1, dim)
    if isinstance(value, Tensor):
        value = _added(value, dim, hits)
    return torch.where(is_hit, value, x)


def _added(source: Tensor, dim: int, hits: Tensor) -> Tensor:
    entries = source.movedim(dim, -1).unsqueeze(-1)
    return torch.where(hits, entries, 0.0).sum(-2).movedim(-1, dim)


@DECOMPOSITIONS.of("scatter_add")
def _scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return x + _added(source, dim, _hits(index, dim, x.shape[dim]))


@DECOMPOSITIONS.of("index_add")
def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    hits = (index.unsqueeze(-1) == torch.arange(x.shape[dim])).to(x.dtype)
    added = source.movedim(dim, -1) @ hits
    return x + (added if alpha == 1 else added * alpha).movedim(-1, dim)


# Distances.


@DECOMPOSITIONS.of("cdist")
def _distances(x: Tensor, y: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    if p == 1:
        return difference.abs().sum(-1)
    if p == math.inf:
        return difference.abs().amax(-1)
    if p != 2:
        return (difference.abs() ** p).sum(-1) ** (1 / p)
    squares = (difference * difference).sum(-1)
    # Equal points have the gradient 0.
    return torch.where(squares > 0, torch.sqrt(torch.where(squares > 0, squares, 1.0)), 0.0)


@DECOMPOSITIONS.of("bilinear")
def _bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    units, wide, narrow = weight.shape
    rows = x @ weight.permute(1, 0, 2).reshape(wide, units * narrow)
    result = (rows.unflatten(-1, (units, narrow)) * y.unsqueeze(-2)).sum(-1)
    return result if bias is None else result + bias


# Layers.


@DECOMPOSITIONS.of("lstm_cell")
def _lstm_cell(
    x: Tensor,
    states: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Any = None,
    b_hh: Any = None,
) -> tuple[Tensor, Tensor]:
    h, c = states
    linear = torch.nn.functional.linear
    i, f, g, o = (linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@DECOMPOSITIONS.of("gru_cell")
def _gru_cell(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None
) -> Tensor:
    linear = torch.nn.functional.linear
    x_r, x_z, x_n = linear(x, w_ih, b_ih).chunk(3, 1)
    h_r, h_z, h_n = linear(h, w_hh, b_hh).chunk(3, 1)
    reset, update = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    new = torch.tanh(x_n + reset * h_n)
    return new + update * (h - new)


def _adaptive_pool(x: Tensor, output_size: Sequence[int], reduce: Any) -> Tensor:
    """Reduce windows of different lengths, one axis after the other."""
    for axis, count in enumerate(output_size, x.ndim - len(output_size)):
        length = x.shape[axis]
        bounds = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        parts = [reduce(x.narrow(axis, a, b - a), axis, keepdim=True) for a, b in bounds]
        x = torch.cat(parts, axis) if count != length else x
    return x


@DECOMPOSITIONS.of(*(f"adaptive_avg_pool{rank}d" for rank in (1, 2, 3)))
def _adaptive_mean(x: Tensor, output_size: Sequence[int]) -> Tensor:
    return _adaptive_pool(x, output_size, torch.mean)


@DECOMPOSITIONS.of(*(f"adaptive_max_pool{rank}d" for rank in (1, 2, 3)))
def _adaptive_max(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, None]:
    return _adaptive_pool(x, output_size, torch.amax), None
