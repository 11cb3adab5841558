"""Witnesses of optimizers that came later, and of schedules: Keras, torch, optax, and numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from golden import numpy_kernels as in_numpy
from golden.recipe import Recipe

# Keras rounds to float32: numbers that a float32 holds exactly.
BETAS = ({"beta_1": 0.875, "beta_2": 1 - 2.0**-10}, {"beta_1": 0.75, "beta_2": 0.875})
EPSILONS = (2.0**-23, 2.0**-8)
DECAYS = (2.0**-6, 2.0**-3)
MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}
OF_KERAS = {"m": "_momentums", "v": "_velocities"}


def _given() -> dict[str, Any]:
    """Twelve steps, so that RAdam is past the ones that it does not rectify; sizes that fall, so
    that the largest moment is not the last one; and a gradient that is zero."""
    rng = np.random.default_rng(11)
    scales = 10.0 ** np.array([0.0, -1, -2, -4, -6, 0])
    fall = 2.0 ** -np.arange(12.0)[:, None]
    gradients = rng.normal(size=(12, 6)) * scales * fall
    gradients[:, -1] = 0.0
    rates = [2.0**-5, 2.0**-5, 2.0**-7, 2.0**-4] * 3
    return {"p": rng.normal(size=6), "gradients": gradients, "learning_rates": rates}


def later_optimizers(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    """Cases of each, from two witnesses or more."""
    given = _given()
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


Case = tuple[str, str, Any, Mapping[str, float]]


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


def schedules(torch: Any, keras: Any) -> list[Recipe]:
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
