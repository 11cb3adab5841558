"""Optimizers: which kernel is the witness of which, with which attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from golden import numpy_kernels as in_numpy
from golden.recipe import Recipe
from golden.recipes_matrices import matrices

# Keras rounds rates and betas to float32: numbers that a float32 holds exactly.
EXACT_ADAM = (
    {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 2.0**-8},
    {"beta_1": 0.875, "beta_2": 1 - 2.0**-10, "epsilon": 2.0**-23},
)
SHIPPED_ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
# Keras rounds to float32: numbers that a float32 holds exactly.
BETAS = ({"beta_1": 0.875, "beta_2": 1 - 2.0**-10}, {"beta_1": 0.75, "beta_2": 0.875})
EPSILONS = (2.0**-23, 2.0**-8)
DECAYS = (2.0**-6, 2.0**-3)
MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}
OF_KERAS = {"m": "_momentums", "v": "_velocities"}


def optimizers(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    """Each by as many of torch, Keras and optax as have it; most by their papers in numpy too."""
    return [
        *_sgd_adam_rmsprop(torch, keras, optax),
        *_with_papers(torch, keras, optax),
        *matrices(torch, keras, optax),
    ]


def _sgd_adam_rmsprop(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    """These, and variants of theirs."""
    import keras as k
    import optax as o
    import torch as t

    rng = np.random.default_rng(7)
    scales = 10.0 ** np.array([0.0, -1, -2, -4, -6, -8])
    given = {
        "p": rng.normal(size=6),
        "gradients": rng.normal(size=(4, 6)) * scales,
        "learning_rates": [2.0**-5, 2.0**-5, 2.0**-7, 2.0**-4],
    }
    made: list[Recipe] = []

    def add(name: str, source: str, kernel: Any, **attributes: float) -> None:
        made.append(Recipe("optimizer", name, source, kernel, attributes, given=given))

    def empty(_: Any) -> dict[str, Any]:
        return {}

    add("sgd", "torch.optim.SGD", torch.optimizer(t.optim.SGD, {}))
    add("sgd", "keras.optimizers.SGD", keras.optimizer(k.optimizers.SGD, {}))
    add("sgd", "optax.sgd", optax.optimizer(o.identity, empty))
    for momentum in (0.9, 0.75):
        velocity = {"velocity": "momentum_buffer"}
        kernel = torch.optimizer(t.optim.SGD, velocity, momentum=momentum)
        add("sgd_momentum", "torch.optim.SGD", kernel, momentum=momentum)
        kernel = optax.optimizer(o.trace, lambda s: {"velocity": s.trace}, decay=momentum)
        add("sgd_momentum", "optax.trace", kernel, momentum=momentum)
    for momentum in (0.875, 0.75):
        kernel = keras.optimizer(k.optimizers.SGD, {"velocity": "momentums"}, momentum=momentum)
        add("sgd_momentum_scaled", "keras.optimizers.SGD", kernel, momentum=momentum)
    for numbers in (SHIPPED_ADAM, *EXACT_ADAM):
        betas, eps = (numbers["beta_1"], numbers["beta_2"]), numbers["epsilon"]
        slots = {"m": "exp_avg", "v": "exp_avg_sq"}
        kernel = torch.optimizer(t.optim.Adam, slots, betas=betas, eps=eps)
        add("adam", "torch.optim.Adam", kernel, **numbers)
        adam = {"b1": betas[0], "b2": betas[1], "eps": eps}
        kernel = optax.optimizer(o.scale_by_adam, lambda s: {"m": s.mu, "v": s.nu}, **adam)
        add("adam", "optax.scale_by_adam", kernel, **numbers)
        if numbers is SHIPPED_ADAM:
            continue
        slots = {"m": "_momentums", "v": "_velocities"}
        kernel = keras.optimizer(k.optimizers.Adam, slots, **numbers)
        add("adam_epsilon_hat", "keras.optimizers.Adam", kernel, **numbers)
    for rho, epsilon in ((0.99, 1e-8), (0.75, 2.0**-8)):
        kernel = torch.optimizer(t.optim.RMSprop, {"v": "square_avg"}, alpha=rho, eps=epsilon)
        add("rmsprop", "torch.optim.RMSprop", kernel, rho=rho, epsilon=epsilon)
        kernel = optax.optimizer(o.scale_by_rms, lambda s: {"v": s.nu}, decay=rho, eps=epsilon)
        add("rmsprop_epsilon_inside", "optax.scale_by_rms", kernel, rho=rho, epsilon=epsilon)
    for rho, epsilon in ((0.875, 2.0**-20), (0.75, 2.0**-8)):
        slots = {"v": "_velocities"}
        kernel = keras.optimizer(k.optimizers.RMSprop, slots, rho=rho, epsilon=epsilon)
        add("rmsprop_epsilon_inside", "keras.optimizers.RMSprop", kernel, rho=rho, epsilon=epsilon)
    return made


Case = tuple[str, str, Any, Mapping[str, float]]


def _twelve_steps() -> dict[str, Any]:
    """Twelve steps, so that RAdam is past the ones that it does not rectify; sizes that fall, so
    that the largest moment is not the last one; and a gradient that is zero."""
    rng = np.random.default_rng(11)
    scales = 10.0 ** np.array([0.0, -1, -2, -4, -6, 0])
    fall = 2.0 ** -np.arange(12.0)[:, None]
    gradients = rng.normal(size=(12, 6)) * scales * fall
    gradients[:, -1] = 0.0
    rates = [2.0**-5, 2.0**-5, 2.0**-7, 2.0**-4] * 3
    return {"p": rng.normal(size=6), "gradients": gradients, "learning_rates": rates}


def _with_papers(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    """The others, of each two witnesses or more, one of which is numpy by its paper."""
    given = _twelve_steps()
    made = [*_adams(torch, keras, optax), *_others(torch, keras, optax)]
    found = [
        Recipe(
            "optimizer",
            name,
            source,
            kernel,
            attributes,
            given=given,
            # Keras rounds the 0.96 of the schedule, torch the product.
            dtype="float32" if name == "nadam" else "float64",
        )
        for name, source, kernel, attributes in made
    ]
    # And each by its paper, in numpy: of every definition and attributes once.
    own = {recipe.title: recipe for recipe in found}
    return found + [
        Recipe(
            "optimizer",
            recipe.name,
            f"numpy.{recipe.name}",
            in_numpy.optimizer(recipe.name, recipe.attributes),
            recipe.attributes,
            given=given,
        )
        for recipe in own.values()
    ]


def _adams(torch: Any, keras: Any, optax: Any) -> Iterator[Case]:
    import keras as k
    import optax as o
    import torch as t

    def both(s: Any) -> dict[str, Any]:
        return {"m": s.mu, "v": s.nu}

    for betas, epsilon, decay_rate in zip(BETAS, EPSILONS, DECAYS, strict=True):
        numbers = {**betas, "epsilon": epsilon}
        plain = {"betas": tuple(betas.values()), "eps": epsilon}
        scale = {"b1": betas["beta_1"], "b2": betas["beta_2"], "eps": epsilon}
        decay = {**numbers, "weight_decay": decay_rate}
        kernel = torch.optimizer(t.optim.AdamW, MOMENTS, weight_decay=decay_rate, **plain)
        yield "adamw", "torch.optim.AdamW", kernel, decay
        yield "adamw", "optax.adamw", optax.whole(o.adamw, weight_decay=decay_rate, **scale), decay
        kernel = keras.optimizer(k.optimizers.AdamW, OF_KERAS, **decay)
        yield "adamw_epsilon_hat", "keras.optimizers.AdamW", kernel, decay
        kernel = torch.optimizer(
            t.optim.Adam, {**MOMENTS, "largest": "max_exp_avg_sq"}, amsgrad=True, **plain
        )
        yield "amsgrad", "torch.optim.Adam", kernel, numbers
        kernel = keras.optimizer(
            k.optimizers.Adam, {**OF_KERAS, "largest": "_velocity_hats"}, amsgrad=True, **numbers
        )
        yield "amsgrad_epsilon_hat", "keras.optimizers.Adam", kernel, numbers
        kernel = optax.optimizer(
            o.scale_by_amsgrad, lambda s: {**both(s), "largest": s.nu_max}, **scale
        )
        yield "amsgrad_corrected", "optax.scale_by_amsgrad", kernel, numbers
        for psi in (0.004, 0.5):
            kernel = torch.optimizer(
                t.optim.NAdam, {**MOMENTS, "product": "mu_product"}, momentum_decay=psi, **plain
            )
            yield "nadam", "torch.optim.NAdam", kernel, {**numbers, "momentum_decay": psi}
        kernel = keras.optimizer(k.optimizers.Nadam, OF_KERAS, **numbers)
        yield "nadam", "keras.optimizers.Nadam", kernel, {**numbers, "momentum_decay": 1.0}
        kernel = optax.optimizer(o.scale_by_adam, both, nesterov=True, **scale)
        yield "nadam_constant", "optax.scale_by_adam", kernel, numbers
        kernel = torch.optimizer(t.optim.RAdam, MOMENTS, **plain)
        yield "radam_epsilon_hat", "torch.optim.RAdam", kernel, numbers
        kernel = optax.optimizer(o.scale_by_radam, both, **scale)
        yield "radam", "optax.scale_by_radam", kernel, numbers
        kernel = keras.optimizer(k.optimizers.Lamb, OF_KERAS, **numbers)
        yield "lamb", "keras.optimizers.Lamb", kernel, {**numbers, "weight_decay": 0.0}
        yield "lamb", "optax.lamb", optax.whole(o.lamb, weight_decay=decay_rate, **scale), decay


def _others(torch: Any, keras: Any, optax: Any) -> Iterator[Case]:
    import keras as k
    import optax as o
    import torch as t

    for initial, epsilon in ((0.0, 2.0**-23), (0.125, 2.0**-8)):
        numbers = {"initial": initial, "epsilon": epsilon}
        start = {"initial_accumulator_value": initial}
        kernel = torch.optimizer(t.optim.Adagrad, {"squares": "sum"}, eps=epsilon, **start)
        yield "adagrad", "torch.optim.Adagrad", kernel, numbers
        kernel = keras.optimizer(
            k.optimizers.Adagrad, {"squares": "_accumulators"}, epsilon=epsilon, **start
        )
        yield "adagrad_epsilon_inside", "keras.optimizers.Adagrad", kernel, numbers
        kernel = optax.optimizer(
            o.scale_by_rss, lambda s: {"squares": s.sum_of_squares}, eps=epsilon, **start
        )
        yield "adagrad_epsilon_inside", "optax.scale_by_rss", kernel, numbers
    for rho, epsilon in ((0.875, 2.0**-20), (0.75, 2.0**-8)):
        numbers = {"rho": rho, "epsilon": epsilon}
        slots = {"squares": "square_avg", "steps": "acc_delta"}
        kernel = torch.optimizer(t.optim.Adadelta, slots, rho=rho, eps=epsilon)
        yield "adadelta", "torch.optim.Adadelta", kernel, numbers
        slots = {"squares": "_accumulated_grads", "steps": "_accumulated_delta_vars"}
        kernel = keras.optimizer(k.optimizers.Adadelta, slots, **numbers)
        yield "adadelta", "keras.optimizers.Adadelta", kernel, numbers
        kernel = optax.optimizer(
            o.scale_by_adadelta, lambda s: {"squares": s.e_g, "steps": s.e_x}, rho=rho, eps=epsilon
        )
        yield "adadelta", "optax.scale_by_adadelta", kernel, numbers
    for betas in BETAS:
        for decay in (0.0, 2.0**-6):
            numbers = {**betas, "weight_decay": decay}
            kernel = keras.optimizer(k.optimizers.Lion, {"m": "_momentums"}, **numbers)
            yield "lion", "keras.optimizers.Lion", kernel, numbers
            kernel = optax.whole(o.lion, b1=betas["beta_1"], b2=betas["beta_2"], weight_decay=decay)
            yield "lion", "optax.lion", kernel, numbers
