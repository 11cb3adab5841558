"""Functions, schedules too: which kernel is the witness of which, near to 0 and far from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from golden.model_kernels import neighbours_turned, turned, turned_by_steps
from golden.recipe import Recipe


def functions(torch: Any, keras: Any, onnx: Any) -> list[Recipe]:
    """By torch, activations by Keras too, also far from 0."""
    import torch as t

    saturated = {"x": [[-1000.0, -20.0, -0.0, 0.5, 1000.0], [-3.0, 3.0, 1e-9, -1e-9, 2.0]]}
    saturated["x"].append([-2.5, 2.5, -7.0, 7.0, 0.0])
    large = np.zeros((3, 5, 7))
    large[0, 0, :2], large[1, 1, :2], large[2, 2] = (800.0, 900.0), (-800.0, -900.0), -1000.0
    large[2, 3, 4] = 1000.0

    def make(name: str, source: str, function: Any, **given: Any) -> Recipe:
        kernel = torch.unary(function)
        # torch differentiates hardsigmoid with a float32 1/6, 3e-8 off: values only.
        gradients = function is not t.nn.functional.hardsigmoid
        return Recipe("function", name, source, kernel, given=given, gradients=gradients)

    hard = "torch.nn.functional.hardsigmoid"

    def six(x: Any) -> Any:
        return t.nn.functional.relu6(x + 3.0) / 6.0

    return [
        make("relu", "torch.relu", t.relu),
        make("relu", "torch.relu", t.relu, **saturated),
        make("sigmoid", "torch.sigmoid", t.sigmoid),
        make("sigmoid", "torch.sigmoid", t.sigmoid, **saturated),
        make("hard_sigmoid_sixth", hard, t.nn.functional.hardsigmoid, **saturated),
        make("hard_sigmoid_sixth", "torch.nn.functional.relu6", six),
        make("hard_sigmoid_sixth", "torch.nn.functional.relu6", six, **saturated),
        make("hard_sigmoid_fifth", "torch.clamp", lambda x: t.clamp(0.2 * x + 0.5, 0, 1)),
        Recipe(
            "function",
            "hard_sigmoid_fifth",
            "onnxruntime.HardSigmoid",
            onnx.hard_sigmoid,
            given=saturated,
            dtype="float32",
        ),
        make("softmax", "torch.softmax", lambda x: t.softmax(x, -1)),
        make("softmax", "torch.softmax", lambda x: t.softmax(x, -1), x=large),
        make("log_softmax", "torch.log_softmax", lambda x: t.log_softmax(x, -1)),
        make("log_softmax", "torch.log_softmax", lambda x: t.log_softmax(x, -1), x=large),
        *_activations(torch, keras, saturated, large),
        *_rotations(),
        make("linear", "torch.nn.Identity", t.nn.Identity()),
        make("last", "torch.select", lambda x: t.select(x, 1, -1)),
        make("reverse", "torch.flip", lambda x: t.flip(x, [1])),
        Recipe("function", "maximum", "torch.maximum", torch.binary(t.maximum)),
        Recipe("function", "minimum", "torch.minimum", torch.binary(t.minimum)),
        *_newton_schulz(torch),
        *_schedules(torch, keras),
        *_resized(torch),
    ]


def _resized(torch: Any) -> list[Recipe]:
    """Images made larger along one axis and smaller along the other, and both larger."""
    import torch as t

    made, modes = [], {"resize_bilinear": ({}, {"align_corners": True})}
    modes["resize_nearest"] = ({}, {"centered": True})
    for name, forms in modes.items():
        for form in forms:
            mode = name.removeprefix("resize_") + ("-exact" if "centered" in form else "")
            options = {n: v for n, v in form.items() if n == "align_corners"}
            for tall, wide in ((5, 3), (12, 7), (1, 4)):

                def resize(
                    x: Any, size: Any = (tall, wide), mode: str = mode, o: Any = options
                ) -> Any:
                    y = t.nn.functional.interpolate(x.movedim(-1, 1), size, mode=mode, **o)
                    return y.movedim(1, -1)

                given = {"tall": tall, "wide": wide, **form}
                source = "torch.nn.functional.interpolate"
                made.append(Recipe("function", name, source, torch.unary(resize), given))
    return made


def _activations(torch: Any, keras: Any, saturated: Any, large: Any) -> list[Recipe]:
    """Each by torch and by Keras, also far from 0."""
    import keras as k
    import torch as t

    f, g = t.nn.functional, k.activations
    both = {
        "abs": (t.abs, k.ops.abs),
        "sign": (t.sign, k.ops.sign),
        "gelu": (f.gelu, lambda x: g.gelu(x, approximate=False)),
        "gelu_tanh": (
            lambda x: f.gelu(x, approximate="tanh"),
            lambda x: g.gelu(x, approximate=True),
        ),
        "silu": (f.silu, g.silu),
        "relu6": (f.relu6, g.relu6),
        "hard_swish": (lambda x: x * f.relu6(x + 3) / 6, lambda x: x * g.relu6(x + 3) / 6),
        "mish": (f.mish, g.mish),
        "clip": (f.hardtanh, lambda x: k.ops.clip(x, -1, 1)),
        "softsign": (f.softsign, g.softsign),
        "gelu_sigmoid": (lambda x: x * t.sigmoid(1.702 * x), lambda x: x * g.sigmoid(1.702 * x)),
        "softplus": (lambda x: f.softplus(x, threshold=40), g.softplus),
        "elu": (f.elu, g.elu),
        "leaky_relu": (f.leaky_relu, lambda x: g.leaky_relu(x, negative_slope=0.01)),
        "logsumexp": (lambda x: t.logsumexp(x, -1), lambda x: k.ops.logsumexp(x, -1)),
    }
    made = []
    for name, (theirs, other) in both.items():
        far = {"x": large} if name == "logsumexp" else saturated
        for given in ({}, far):
            for source, kernel, gradients in (
                (f"torch.{name}", torch.unary(theirs), True),
                # Keras differentiates some of these otherwise at 0 and far from it.
                (f"keras.{name}", keras.unary(other), not given),
            ):
                # In any dtype, Keras on TensorFlow has float32 constants in these.
                single = source.startswith("keras") and name in ("gelu", "gelu_tanh", "leaky_relu")
                recipe = Recipe("function", name, source, kernel, {}, "training", given)
                dtype = "float32" if single else "float64"
                made.append(replace(recipe, gradients=gradients, dtype=dtype))
    for name, given, theirs, other in (
        ("softmax", {"axis": 1}, lambda x: t.softmax(x, 1), lambda x: k.ops.softmax(x, 1)),
        ("log_softmax", {"axis": 0}, lambda x: t.log_softmax(x, 0), lambda x: g.log_softmax(x, 0)),
        ("logsumexp", {"axis": -2}, lambda x: t.logsumexp(x, 1), lambda x: k.ops.logsumexp(x, 1)),
        ("elu", {"alpha": 1.5}, lambda x: f.elu(x, 1.5), lambda x: g.elu(x, alpha=1.5)),
        ("clip", {"low": -0.5, "high": 0.25}, lambda x: t.clamp(x, -0.5, 0.25), None),
        ("leaky_relu", {"slope": 0.25}, lambda x: f.leaky_relu(x, 0.25), None),
    ):
        made.append(Recipe("function", name, f"torch.{name}", torch.unary(theirs), given))
        if other is not None:
            made.append(Recipe("function", name, f"keras.{name}", keras.unary(other), given))
    return made


def _rotations() -> list[Recipe]:
    """Rotary positions, of bases at which angles are far apart and near."""
    named = (
        ("rotary", "torch.polar", turned),
        ("rotary_interleaved", "torch.view_as_complex", neighbours_turned),
        ("rotary_interleaved", "torch.matrix_exp", turned_by_steps),
    )
    return [
        Recipe("function", name, source, kernel(base), {"base": base})
        for name, source, kernel in named
        for base in (1e4, 7.0)
    ]


def _newton_schulz(torch: Any) -> list[Recipe]:
    """The polynomial of the singular values, which the products of matrices are for."""
    x = np.random.default_rng(17).normal(size=(6, 4))
    given, made = {"x": x / np.linalg.norm(x)}, []
    for a, b, c in ((3.4445, -4.775, 2.0315), (1.875, -1.25, 0.375)):
        kernel, numbers = torch.of_singular_values(a, b, c), {"a": a, "b": b, "c": c}
        source = "torch.linalg.svd"
        made.append(Recipe("function", "newton_schulz", source, kernel, numbers, given=given))
    return made


def _schedules(torch: Any, keras: Any) -> list[Recipe]:
    """Steps 1 to 15 of a schedule of 5 and 13; torch's goes up again after that."""
    steps = np.arange(1.0, 16.0).reshape(3, 5)
    ends = {"first": 0 * steps + 5, "steps": 0 * steps + 13}
    made = (  # Keras rounds pi to float32
        ("keras.optimizers.schedules.CosineDecay", keras.warmup_cosine, steps, "float32"),
        ("torch.optim.lr_scheduler", torch.warmup_cosine, np.minimum(steps, 13), "float64"),
    )
    return [
        Recipe(
            "function",
            "warmup_cosine",
            source,
            kernel,
            given={"t": t, **ends},
            dtype=dtype,
            gradients=False,
        )
        for source, kernel, t, dtype in made
    ]
