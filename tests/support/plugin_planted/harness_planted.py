"""Backends with one planted fault each, as devices: a kernel that is wrong at some lengths, values
or attributes.

``planted`` is numpy with a wrong primitive. ``planted-torch`` is torch with a wrong layer,
optimizer, derivative in forward mode, or compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from harness.backends.numpy.backend import Numpy
from harness.backends.numpy.primitives import PRIMITIVES
from harness.extend import (
    Backend,
    ClaimableCall,
    F,
    Native,
    NativeOptimizer,
    Table,
    Tensors,
    UpdateRule,
    hookimpl,
)
from harness.oracle.oracle import TABLE

# numpy's primitives without the fault of numpy itself.
RIGHT = {**PRIMITIVES, "power": TABLE["power"]}
# The fault -> the primitive, and the function that returns its wrong result, given the operands,
# the right result, and the attributes.
KERNELS: dict[str, tuple[str, Callable[..., Any]]] = {}
# The fault -> the layer, and the function that changes the first result if the call has certain
# attributes.
LAYERS: dict[str, tuple[str, Callable[[ClaimableCall], bool], Callable[..., Any]]] = {}
# The fault -> the optimizer, and the value that one of its attributes always has.
OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {
    "momentum-always-0.9": ("sgd_momentum", {"momentum": 0.9}),
    "adamw-always-decays": ("adamw", {"weight_decay": 0.01}),
}
# The fault of a derivative in forward mode.
TANGENT = "tangent-of-log"
# The fault of a compiler: the first output of a compiled function is 1% too large.
COMPILED = "compiled-output"


def plant(name: str, op: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[name] = (op, function)
        return function

    return add


def last(x: Any) -> int:
    return int(x.shape[-1]) if x.ndim else 1


def change(result: Any, mask: Any, values: Any) -> Any:
    return np.where(mask, values, result).astype(result.dtype)


def at_length(name: str, op: str, wrong_length: Callable[[int], bool], factor: float) -> None:
    """Plant a kernel that is wrong by a factor in its last entry at some lengths."""

    def kernel(right: Any, x: Any, *_: Any, **__: Any) -> Any:
        if not np.ndim(x) or not np.ndim(right) or not wrong_length(last(x)) or not right.size:
            return right
        result = np.array(right)
        result[..., -1] = result[..., -1] * factor
        return result

    KERNELS[name] = (op, kernel)


at_length("exp-17", "exp", lambda n: n == 17, 1.01)
at_length("tanh-above-64", "tanh", lambda n: n > 64, 0.999)
at_length("log-odd", "log", lambda n: n % 2 == 1 and n > 4, 1.001)
at_length("erf-remainder", "erf", lambda n: n > 8 and n % 8 == 7, 1.0001)
at_length("sin-100", "sin", lambda n: n >= 100, 1.001)
at_length("cos-3", "cos", lambda n: n == 3, -1.0)
at_length("sum-33", "cumulative_sum", lambda n: n > 33, 1.001)
at_length("divide-5", "divide", lambda n: n == 5, 1.0001)
at_length("power-16", "power", lambda n: n > 16, 1.001)


@plant("max-drops-nan", "max")
def _(right: Any, x: Any, axis: Any = (), keepdims: bool = False, **_: Any) -> Any:
    if x.dtype.kind == "f" and right.size and x.size // right.size > 32:
        clean = np.where(np.isnan(x), -np.inf, x)
        return np.max(clean, axis=axis, keepdims=keepdims)
    return right


@plant("sqrt-inf", "sqrt")
def _(right: Any, x: Any) -> Any:
    return change(right, np.isposinf(x), np.nan) if np.size(x) >= 16 else right


@plant("argsort-unstable", "argsort")
def _(right: Any, x: Any) -> Any:
    return _unstable(x) if last(x) > 20 else right


def _unstable(x: Any) -> Any:
    """Sort equal entries in reverse order."""
    backwards = np.argsort(x[..., ::-1], -1, kind="stable")
    return last(x) - 1 - backwards


@plant("zero-times-inf", "multiply")
def _(right: Any, a: Any, b: Any) -> Any:
    return change(right, (np.equal(a, 0)) & np.isinf(b) | np.equal(b, 0) & np.isinf(a), 0)


@plant("maximum-nan-first", "less")
def _(right: Any, a: Any, b: Any) -> Any:
    return right | (np.isnan(a) & ~np.isnan(b))


@plant("equal-denormals", "equal")
def _(right: Any, a: Any, b: Any) -> Any:
    tiny = np.finfo(np.result_type(a, b)).tiny if np.result_type(a, b).kind == "f" else 0
    return right | ((abs(a) < tiny) & (abs(b) < tiny)) if tiny else right


@plant("exp-overflows-early", "exp")
def _(right: Any, x: Any) -> Any:
    return change(right, np.asarray(x) > 60, np.inf)


@plant("log-of-zero", "log")
def _(right: Any, x: Any) -> Any:
    return change(right, np.equal(x, 0), np.nan)


@plant("tanh-of-inf", "tanh")
def _(right: Any, x: Any) -> Any:
    return change(right, np.isinf(x), np.nan)


@plant("floor-negative-zero", "floor")
def _(right: Any, x: Any) -> Any:
    return np.trunc(x)


@plant("sum-sequential", "sum")
def _(right: Any, x: Any, axis: Any = (), keepdims: bool = False, **_: Any) -> Any:
    if x.dtype == np.float32 and len(axis) == 1 and x.shape[axis[0]] > 60:
        total = np.zeros_like(np.sum(x, axis=axis, keepdims=keepdims), np.float16)
        for part in np.moveaxis(x, axis[0], 0):
            total = (total + part.reshape(total.shape)).astype(np.float16)
        return total.astype(np.float32)
    return right


@plant("sum-two-axes", "sum")
def _(right: Any, x: Any, axis: Any = (), **_: Any) -> Any:
    return right * 1.001 if len(axis) == 2 else right


@plant("concat-middle", "concat")
def _(right: Any, arrays: Any, axis: int = 0) -> Any:
    return np.concatenate([arrays[0], *arrays[:0:-1]], axis) if len(arrays) == 3 else right


@plant("flip-long", "flip")
def _(right: Any, x: Any, axis: int = 0) -> Any:
    return np.array(x) if x.shape[axis] > 8 and x.dtype.kind == "f" else right


@plant("take-last-row", "take")
def _(right: Any, x: Any, indices: Any) -> Any:
    return np.take(x, np.minimum(indices, max(len(x) - 2, 0)), axis=0)


@plant("one-hot-4", "one_hot")
def _(right: Any, indices: Any, classes: int = 0, **_: Any) -> Any:
    return right * (0.0 if classes == 4 else 1.0)


@plant("segment-sum-nan", "segment_sum")
def _(right: Any, x: Any, indices: Any, rows: int = 0) -> Any:
    return right * np.nan if np.isnan(x).any() else right


@plant("windows-even-kernel", "windows")
def _(right: Any, x: Any, **framing: Any) -> Any:
    wrong = any(s % 2 == 0 and p for s, p in zip(framing["size"], framing["padding"], strict=True))
    return right * 1.01 if wrong else right


@plant("windows-dilated-stride", "windows")
def _(right: Any, x: Any, **framing: Any) -> Any:
    return right * 1.01 if 2 in framing["dilation"] and 3 in framing["stride"] else right


@plant("overlap-add-stride", "overlap_add")
def _(right: Any, x: Any, **framing: Any) -> Any:
    return right * 1.01 if framing["stride"][0] == 2 else right


@plant("matmul-inner-7", "matmul")
def _(right: Any, a: Any, b: Any) -> Any:
    return right * 1.001 if a.shape[-1] == 7 else right


@plant("permute-last", "permute_dims")
def _(right: Any, x: Any, axes: Any = ()) -> Any:
    return right[..., ::-1] if tuple(axes) == (0, 2, 1) and x.dtype.kind == "f" else right


@plant("where-nan", "where")
def _(right: Any, condition: Any, a: Any, b: Any) -> Any:
    if right.dtype.kind != "f":
        return right
    return change(right, np.isnan(a) | np.isnan(b), np.nan)


def layer(name: str, definition: str, matches: Callable[[Any], bool]) -> None:
    """Plant a layer whose first result is 1% too large if its attributes match."""
    LAYERS[name] = (definition, matches, lambda result: result * 1.01)


def two(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value, value)


layer(
    "conv-dilated-stride", "conv2d", lambda a: max(two(a["dilation"])) > 1 < max(two(a["stride"]))
)
layer("conv-same-even", "conv2d", lambda a: a["padding"] == "same" and a["kernel"][0] % 2 == 0)
layer("conv-grouped", "conv2d", lambda a: a["groups"] > 1)
layer("conv1d-dilated", "conv1d", lambda a: max(a["dilation"]) > 1)
layer("pool-padded", "max_pool_first", lambda a: a["padding"] not in (0, ((0, 0), (0, 0))))
layer("avg-pool-count", "avg_pool", lambda a: not a["count_padding"])
layer("norm-epsilon", "layer_norm", lambda a: a["epsilon"] > 0.01)
layer("lstm-one-unit", "lstm", lambda a: a["units"] == 1)
layer("gru-without-bias", "gru_reset_after", lambda a: not a["bias"])
layer("dense-without-bias", "dense", lambda a: not a["bias"])
LAYERS["conv-1x1-gradient"] = (
    "conv2d",
    lambda a: two(a["kernel"]) == (1, 1) and max(two(a["stride"])) > 1,
    lambda result: result.detach() + 1.01 * (result - result.detach()),
)


class Planted(Numpy):
    """numpy with a wrong kernel; the device ``right`` has no fault."""

    def devices(self) -> tuple[str, ...]:
        return ("right", *KERNELS)

    def use(self, device: str, dtype: str) -> None:
        super().use(device, dtype)
        self.primitives = RIGHT
        if device != "right":
            op, wrong = KERNELS[device]

            def kernel(*arrays: Any, **attributes: Any) -> Any:
                with np.errstate(all="ignore"):
                    right = np.asarray(RIGHT[op](*arrays, **attributes))
                    return np.asarray(wrong(right, *arrays, **attributes))

            self.primitives = {**RIGHT, op: kernel}


def planted_torch() -> Backend:
    """Return torch with a wrong layer, optimizer, derivative in forward mode, or compiler."""
    import torch

    from harness.backends.torch.backend import Torch

    class Log(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            ctx.save_for_forward(x)
            return torch.log(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0] / ctx.saved_tensors[0]

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            return tangents[0] * ctx.saved_tensors[0]

    class PlantedTorch(Torch):
        fault = "right"
        compiles = ("native-compiled",)

        def devices(self) -> tuple[str, ...]:
            return ("right", *LAYERS, *OPTIMIZERS, TANGENT, COMPILED)

        def use(self, device: str, dtype: str) -> None:
            super().use("cpu", dtype)
            self.fault = device

        @property
        def primitives(self) -> Table:
            wrong = {"log": Log.apply} if self.fault == TANGENT else {}
            return {**super().primitives, **wrong}

        def claim(self, layer: ClaimableCall) -> Native | None:
            native = super().claim(layer)
            definition, matches, wrong = LAYERS.get(self.fault, ("", None, None))
            if "attention" in layer.definition:
                return None  # torch itself is wrong for NaN
            if native is None or layer.definition != definition or not matches(layer.attributes):
                return native
            run = native.run

            def changed(values: Any, packed: Any) -> Any:
                first, *rest = run(values, packed)
                return [wrong(first), *rest]

            return replace(native, run=changed, chain=None)

        def compile_native(self, function: F) -> F:
            if self.fault != COMPILED:
                return function

            def changed(variables: Tensors, constants: Tensors) -> Any:
                found = function(variables, constants)
                results, *gradients = (found,) if isinstance(found, dict) else found
                name = next(n for n in results if n.startswith("output."))
                results = {**results, name: results[name] * 1.01}
                return (results, *gradients) if gradients else results

            return cast(F, changed)

        def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
            name, wrong = OPTIMIZERS.get(self.fault, ("", {}))
            if rule.name == name:
                rule = replace(rule, attributes={**rule.attributes, **wrong})
            return super().claim_optimizer(rule)

    return PlantedTorch()


@hookimpl
def harness_backend(name: str) -> Backend:
    backend = Planted() if name == "planted" else planted_torch()
    backend.name = name
    return backend
