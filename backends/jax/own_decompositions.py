"""Primitives of JAX written as simpler ones that have a rule.

An entry gets the primitive's parameters and its traced arguments. It returns a function of the
primitive's arguments, or None for arguments that it cannot translate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

Function = Callable[..., Any]
# The traced arguments are `jaxprs.Value`, which imports this module.
Entry = Callable[[Mapping[str, Any], Sequence[Any]], Function | None]


def _of_floats(function: Function) -> Entry:
    """Return an entry for a function of floats without parameters."""
    return lambda params, arguments: function if arguments[0].kind == "float" else None


def _truncate(x: Any) -> Any:
    return jnp.sign(x) * jnp.floor(jnp.abs(x))


def _round(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function:
    """Round to the nearest integer: halves away from zero, or to even integers."""
    if params["rounding_method"] == lax.RoundingMethod.AWAY_FROM_ZERO:
        return lambda x: jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)

    def to_even(x: Any) -> Any:
        near = jnp.floor(x + 0.5)
        is_odd = near - 2 * jnp.floor(near / 2) == 1
        return jnp.where((near - x == 0.5) & is_odd, near - 1, near)

    return to_even


def _all_or_any(reduce: Function) -> Entry:
    return lambda params, arguments: (
        lambda x: reduce(jnp.where(x, 1.0, 0.0), axis=tuple(params["axes"])) > 0
    )


def _products(x: Any, axis: int) -> list[Any]:
    """Return the products of the first entries along an axis, for each number of entries."""
    products: list[Any] = []
    for number in range(x.shape[axis]):
        entry = lax.index_in_dim(x, number, axis, keepdims=False)
        products.append(products[-1] * entry if products else entry)
    return products


def _product(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function:
    def run(x: Any) -> Any:
        for axis in sorted(params["axes"], reverse=True):
            x = _products(x, axis)[-1]
        return x

    return run


def _log_sums(x: Any, axis: int) -> Any:
    greatest = jnp.max(x, axis, keepdims=True)
    return jnp.log(lax.cumsum(jnp.exp(x - greatest), axis)) + greatest


def _cumulative(function: Function) -> Entry:
    def entry(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function:
        axis, reverse = params["axis"], params["reverse"]
        turn = lambda x: lax.rev(x, (axis,)) if reverse else x  # noqa: E731
        return lambda x: turn(function(turn(x), axis))

    return entry


def _reversed_sum(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    return _cumulative(lax.cumsum)(params, arguments) if params["reverse"] else None


def _argmin(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    (axis,), dtype = params["axes"], params["index_dtype"]
    return (lambda x: lax.argmax(-x, axis, dtype)) if arguments[0].kind == "float" else None


def _tile(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function:
    def run(x: Any) -> Any:
        for axis, times in enumerate(params["reps"]):
            if times > 1:
                shape = (*x.shape[:axis], times, *x.shape[axis:])
                wide = jnp.broadcast_to(jnp.expand_dims(x, axis), shape)
                x = wide.reshape(*x.shape[:axis], times * x.shape[axis], *x.shape[axis + 1 :])
        return x

    return run


# Parts at known places.


def _starts(numbers: Sequence[Any], shape: Sequence[int], sizes: Sequence[int]) -> list[int] | None:
    """Return where a part of an array starts; None if this depends on the data."""
    starts = [n.uniform() if hasattr(n, "uniform") else n for n in numbers]
    if any(n is None for n in starts):
        return None
    columns = zip(starts, shape, sizes, strict=True)
    return [min(max(int(n), 0), length - size) for n, length, size in columns]


def _slice(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    sizes = params["slice_sizes"]
    starts = _starts(arguments[1:], arguments[0].shape, sizes)
    if starts is None:
        return None
    ends = [a + b for a, b in zip(starts, sizes, strict=True)]
    return lambda x, *_: lax.slice(x, starts, ends)


def _replaced(x: Any, starts: Sequence[int], change: Function, shape: Sequence[int]) -> Any:
    """Return an array with the function ``change`` of a part, which has a shape of its own."""

    def replace(part: Any, axis: int) -> Any:
        while axis < x.ndim and shape[axis] == x.shape[axis]:
            axis += 1
        if axis == x.ndim:
            return change(part)
        start, stop = starts[axis], starts[axis] + shape[axis]
        cut = lambda a, b: lax.slice_in_dim(part, a, b, axis=axis)  # noqa: E731
        middle = replace(cut(start, stop), axis + 1)
        parts = [cut(0, start), middle, cut(stop, x.shape[axis])]
        return lax.concatenate([p for p in parts if p.shape[axis]], axis)

    return replace(x, 0)


def _update(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    shape = arguments[1].shape
    starts = _starts(arguments[2:], arguments[0].shape, shape)
    if starts is None:
        return None
    return lambda x, new, *_: _replaced(x, starts, lambda part: new, shape)


def _scatter(combine: Function) -> Entry:
    """Return the entry of ``x.at[part].set(new)`` for one part at a known place."""

    def entry(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
        numbers, x = params["dimension_numbers"], arguments[0]
        index = arguments[1].number
        if index is None or index.ndim != 1 or numbers.operand_batching_dims:
            return None
        inserted = numbers.inserted_window_dims
        sizes = iter(arguments[2].shape)
        shape = [1 if axis in inserted else next(sizes) for axis in range(len(x.shape))]
        places = [0] * len(shape)
        for axis, place in zip(numbers.scatter_dims_to_operand_dims, index, strict=True):
            places[axis] = int(place)
        starts = _starts(places, x.shape, shape)
        if starts != places:  # JAX leaves out parts that are not inside
            return None
        return lambda x, _, new: _replaced(
            x, places, lambda part: combine(part, new.reshape(shape)), shape
        )

    return entry


# Images.


def _channels_last(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    """Return a convolution with channels last and a kernel ``[size, ..., channels, units]``."""
    image, kernel, out = params["dimension_numbers"]
    rank = len(image)
    last, sides = (0, rank - 1, *range(1, rank - 1)), (rank - 1, rank - 2, *range(rank - 2))
    if tuple(image) == tuple(out) == last and tuple(kernel) == sides:
        return None
    usual = lax.ConvDimensionNumbers(last, sides, last)
    order = lambda spec: [spec[0], *spec[2:], spec[1]]  # noqa: E731
    back = np.argsort(order(out))

    def run(x: Any, weight: Any) -> Any:
        x = lax.transpose(x, order(image))
        weight = lax.transpose(weight, [*kernel[2:], kernel[1], kernel[0]])
        own = {**params, "dimension_numbers": usual}
        return lax.transpose(lax.conv_general_dilated_p.bind(x, weight, **own), back)

    return run


def _pool_channels_last(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    """Return a pool with channels last, if channels are on axis 1."""
    sizes = params["window_dimensions"]
    rank = len(sizes)
    if rank < 3 or sizes[:2] != (1, 1) or sizes[-1] == 1:
        return None
    last = [0, *range(2, rank), 1]
    own = {n: tuple(v[a] for a in last) if isinstance(v, tuple) else v for n, v in params.items()}
    kind = {"max": lax.max, "min": lax.min, "sum": lax.add}
    start = {"max": -np.inf, "min": np.inf, "sum": 0.0}
    name = params["kind"]

    def run(x: Any) -> Any:
        turned = lax.reduce_window(
            lax.transpose(x, last),
            np.asarray(start[name], x.dtype),
            kind[name],
            own["window_dimensions"],
            own["window_strides"],
            own["padding"],
            own["base_dilation"],
            own["window_dilation"],
        )
        return lax.transpose(turned, np.argsort(last))

    return run


def _pool(kind: str) -> Entry:
    return lambda params, arguments: _pool_channels_last({**params, "kind": kind}, arguments)


# Calls.


def _branch(params: Mapping[str, Any], arguments: Sequence[Any]) -> Function | None:
    number = arguments[0].uniform()
    if number is None:
        return None
    branches = params["branches"]
    chosen = core.jaxpr_as_fun(branches[min(max(int(number), 0), len(branches) - 1)])
    return lambda _, *rest: chosen(*rest)


DECOMPOSITIONS: dict[str, Entry] = {
    "ceil": _of_floats(lambda x: -jnp.floor(-x)),
    "rem": _of_floats(lambda x, y: x - _truncate(x / y) * y),
    "tan": _of_floats(lambda x: jnp.sin(x) / jnp.cos(x)),
    "sinh": _of_floats(lambda x: (jnp.exp(x) - jnp.exp(-x)) / 2),
    "cosh": _of_floats(lambda x: (jnp.exp(x) + jnp.exp(-x)) / 2),
    "asinh": _of_floats(lambda x: jnp.sign(x) * jnp.log(jnp.abs(x) + jnp.sqrt(x * x + 1))),
    "acosh": _of_floats(lambda x: jnp.log(x + jnp.sqrt(x * x - 1))),
    "atanh": _of_floats(lambda x: jnp.log((1 + x) / (1 - x)) / 2),
    "exp2": _of_floats(lambda x: jnp.exp(x * np.log(2))),
    "cbrt": _of_floats(lambda x: jnp.sign(x) * jnp.abs(x) ** (1 / 3)),
    "round": _round,
    "reduce_or": _all_or_any(jnp.max),
    "reduce_and": _all_or_any(jnp.min),
    "reduce_prod": _product,
    "cumprod": _cumulative(lambda x, axis: jnp.stack(_products(x, axis), axis)),
    "cumlogsumexp": _cumulative(_log_sums),
    "cumsum": _reversed_sum,
    "argmin": _argmin,
    "tile": _tile,
    "dynamic_slice": _slice,
    "dynamic_update_slice": _update,
    "scatter": _scatter(lambda part, new: new),
    "scatter-add": _scatter(lambda part, new: part + new),
    "scatter-mul": _scatter(lambda part, new: part * new),
    "conv_general_dilated": _channels_last,
    "reduce_window_max": _pool("max"),
    "reduce_window_min": _pool("min"),
    "reduce_window_sum": _pool("sum"),
    "cond": _branch,
}


def decompose(
    name: str, params: Mapping[str, Any], arguments: Sequence[Any], avals: Sequence[Any]
) -> Any:
    """Return the jaxpr of a primitive's decomposition, with its constants; None without one."""
    entry = DECOMPOSITIONS.get(name)
    function = None if entry is None else entry(params, arguments)
    return None if function is None else jax.make_jaxpr(function)(*avals)
