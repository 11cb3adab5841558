"""Optimizers with a rule for matrices: wide and tall ones, and a row of entries by their side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from golden import matrix_kernels as in_numpy
from golden.recipe import Recipe

# Keras rounds to float32: numbers that a float32 holds exactly.
ADAFACTORS = (
    {"power": 0.75, "epsilon": 2.0**-100, "smallest": 2.0**-10, "threshold": 1.0},
    {"power": 0.5, "epsilon": 2.0**-8, "smallest": 2.0, "threshold": 0.5},
)
BETAS = ({"beta_1": 0.875, "beta_2": 1 - 2.0**-10}, {"beta_1": 0.75, "beta_2": 0.875})
MUONS = (
    {"momentum": 0.875, "weight_decay": 0.0, "adam_epsilon": 2.0**-23, **BETAS[0]},
    {"momentum": 0.75, "weight_decay": 2.0**-3, "adam_epsilon": 2.0**-8, **BETAS[1]},
)
SHAPES = ((3, 2), (2, 5), (1, 4), (6,))
Case = tuple[str, str, Any, Mapping[str, float], str]


def matrices(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    """Each of two witnesses or more, one of which is numpy by its paper."""
    found = []
    for shape in SHAPES:
        given = _steps(shape)
        for name, source, kernel, attributes, dtype in (
            *_adafactors(torch, keras, optax),
            *_muons(torch, keras, optax, shape),
        ):
            recipe = Recipe("optimizer", name, source, kernel, attributes, given=given, dtype=dtype)
            found.append(recipe)
    return found


def _steps(shape: tuple[int, ...]) -> dict[str, Any]:
    """Six steps with a gradient that falls, a rate past 1 / sqrt(t), and one entry that is zero."""
    rng = np.random.default_rng(13)
    fall = 2.0 ** -np.arange(6.0).reshape(-1, *(1 for _ in shape))
    gradients = rng.normal(size=(6, *shape)) * fall
    gradients.reshape(6, -1)[:, -1] = 0.0
    rates = [2.0**-5, 2.0**-5, 2.0**-7, 2.0**-4, 0.75, 2.0**-5]
    return {"p": rng.normal(size=shape), "gradients": gradients, "learning_rates": rates}


def _adafactors(torch: Any, keras: Any, optax: Any) -> Iterator[Case]:
    import keras as k
    import optax as o
    import torch as t

    for numbers in ADAFACTORS:
        power, epsilon, smallest, threshold = numbers.values()
        options = {"epsilon_1": epsilon, "epsilon_2": smallest, "clip_threshold": threshold}
        kernel = keras.optimizer(k.optimizers.Adafactor, {}, beta_2_decay=-power, **options)
        yield "adafactor", "keras.optimizers.Adafactor", kernel, numbers, "float64"
        kernel = in_numpy.optimizer(in_numpy.adafactor, numbers)
        yield "adafactor", "numpy.adafactor", kernel, numbers, "float64"
    numbers = ADAFACTORS[0]
    power, epsilon, smallest, threshold = numbers.values()
    kernel = torch.optimizer(
        t.optim.Adafactor, {}, beta2_decay=-power, eps=(epsilon, smallest), d=threshold
    )
    yield "adafactor", "torch.optim.Adafactor", kernel, numbers, "float64"
    # optax leaves out 1 / sqrt(t), has the smallest length in it, and its decay in float32.
    numbers = {**numbers, "smallest": 0.001}
    options = {"decay_rate": power, "eps": epsilon, "clipping_threshold": threshold}
    kernel = optax.below_root(optax.whole(o.adafactor, min_dim_size_to_factor=1, **options))
    yield "adafactor", "optax.adafactor", kernel, numbers, "float32"


def _muons(torch: Any, keras: Any, optax: Any, shape: tuple[int, ...]) -> Iterator[Case]:
    import keras as k
    import torch as t

    for numbers, epsilon, rate in zip(MUONS, (1e-7, 2.0**-4), (1.0, 0.25), strict=True):
        whole = {**numbers, "epsilon": epsilon, "adam_rate": rate}
        kernel = in_numpy.optimizer(in_numpy.muon, whole)
        yield "muon", "numpy.muon", kernel, whole, "float64"
        if len(shape) == 2:
            kernel = optax.muon(shape, whole)
            yield "muon", "optax.contrib.scale_by_muon", kernel, whole, "float64"
        elif rate == 1.0:
            betas = (numbers["beta_1"], numbers["beta_2"])
            options = {"betas": betas, "eps": numbers["adam_epsilon"]}
            options["weight_decay"] = numbers["weight_decay"]
            kernel = torch.optimizer(t.optim.AdamW, {"m": "exp_avg", "v": "exp_avg_sq"}, **options)
            yield "muon", "torch.optim.AdamW", kernel, whole, "float64"
    for numbers, epsilon, scale, decay in zip(
        MUONS, (1e-7, 2.0**-4), (0.25, 0.5), (2.0**-6, 0.0), strict=True
    ):
        whole = {**numbers, "epsilon": epsilon, "scale": scale, "adam_weight_decay": decay}
        kernel = in_numpy.optimizer(in_numpy.muon_matched, whole)
        yield "muon_matched", "numpy.muon_matched", kernel, whole, "float64"
        if epsilon == 1e-7:  # Keras has no other
            slots = {"m": "momentums"} if len(shape) == 2 else {}
            kernel = keras.optimizer(
                k.optimizers.Muon,
                slots,
                adam_beta_1=numbers["beta_1"],
                adam_beta_2=numbers["beta_2"],
                epsilon=numbers["adam_epsilon"],
                momentum=numbers["momentum"],
                weight_decay=numbers["weight_decay"],
                adam_weight_decay=decay,
                rms_rate=scale,
            )
            yield "muon_matched", "keras.optimizers.Muon", kernel, whole, "float64"
