"""Claim Flax modules: each is built once, and gets its variables at each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flax import nnx

from harness.extend import ClaimableCall, Native, Packing, Part, Piece, Tensors

Module = Any
# The arguments that every Flax module gets (such as ``dtype``).
Own = Mapping[str, Any]
# A function that returns a layer's results, from its module and its inputs, states and statistics
# by role.
Call = Callable[[Module, Tensors], Sequence[Any]]
# A function that claims a layer in a dtype, or returns None.
Claim = Callable[[ClaimableCall, str], Native | None]
ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "linear": lambda y: y,
    **{
        name: getattr(nnx, name)
        for name in ("relu", "tanh", "sigmoid", "softmax", "log_softmax", "silu", "softplus")
    },
    "gelu": partial(nnx.gelu, approximate=False),
    "gelu_tanh": partial(nnx.gelu, approximate=True),
}


def module(
    dtype: str,
    made: Callable[[Own], Module],
    pieces: Mapping[str, Piece],
    call: Call,
    statistics: Mapping[str, str] | None = None,
) -> Native:
    """Return the claim of a Flax module.

    ``made`` makes the module. ``pieces`` gives the packing, and ``statistics`` the role of each
    moving statistic, by path in the module (``cell.dense_i.kernel``).
    """
    own = {"dtype": dtype, "param_dtype": dtype}
    outline = nnx.eval_shape(lambda: made({**own, "rngs": nnx.Rngs(0)}))
    graph, variables = nnx.split(outline)
    roles = statistics or {}

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        given = {**packed, **{path: values[role] for path, role in roles.items()}}
        filled = [
            (path, variable.replace(given[".".join(path)].reshape(variable.shape)))
            for path, variable in nnx.to_flat_state(variables)
        ]
        return call(nnx.merge(graph, nnx.from_flat_state(filled)), values)

    inner = getattr(outline, "cell", outline)
    return Native(f"flax.nnx.{type(inner).__name__}", run, Packing(pieces))


def plain(module: Module, values: Tensors) -> Sequence[Any]:
    """Call a module that has one input."""
    return [module(values["x"])]


def then(activation: str) -> Call:
    """Return a function that calls a module with one input, and then an activation."""
    return lambda module, values: [ACTIVATIONS[activation](module(values["x"]))]


def kernel_and_bias(layer: ClaimableCall) -> dict[str, Piece]:
    """Return the packing of a kernel, and of a bias if the layer has one."""
    bias: dict[str, Piece] = {"bias": Part("b")} if "b" in layer.shapes else {}
    return {"kernel": Part("W"), **bias}


def known(claim: Claim) -> Claim:
    """Restrict a claim to layers whose activations Flax has."""

    def checked(layer: ClaimableCall, dtype: str) -> Native | None:
        functions = (layer.attributes.get(n, "linear") for n in ("activation", "gate"))
        return claim(layer, dtype) if all(f in ACTIVATIONS for f in functions) else None

    return checked
