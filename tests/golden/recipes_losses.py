"""Losses: which kernel is the witness of which, with which attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.loss_kernels import FITTING, SHORT, ctc_in_optax, ctc_in_torch, focal, info_nce
from golden.recipe import Recipe


def losses(torch: Any, keras: Any, optax: Any) -> list[Recipe]:
    """By two frameworks each, but for those that no framework has whole."""
    import optax as o
    import torch as t

    sparse = o.losses.softmax_cross_entropy_with_integer_labels
    probabilities, target = _probabilities()
    clipped = {"probabilities": probabilities, "target": target}
    made = [
        Recipe("loss", "squared_error", "torch.nn.functional.mse_loss", torch.squared_error),
        Recipe(
            "loss",
            "squared_error",
            "optax.squared_error",
            optax.loss(o.squared_error, "prediction"),
        ),
    ]
    for name, function in (
        ("cross_entropy", o.losses.softmax_cross_entropy),
        ("sparse_cross_entropy", sparse),
    ):
        made += [
            Recipe("loss", name, "torch.nn.functional.cross_entropy", torch.cross_entropy),
            Recipe("loss", name, f"optax.{function.__name__}", optax.loss(function, "logits")),
        ]
    for epsilon in (1e-7, 2.0**-10):
        for source, kernel in (
            ("keras.losses.categorical_crossentropy", keras.clipped_cross_entropy(epsilon)),
            ("torch.nn.functional.nll_loss", torch.clipped_cross_entropy(epsilon)),
        ):
            made.append(
                Recipe(
                    "loss",
                    "clipped_cross_entropy",
                    source,
                    kernel,
                    {"epsilon": epsilon},
                    given=clipped,
                    # Keras divides by the sum first, and differentiates that too.
                    gradients=not source.startswith("keras"),
                )
            )
    return made + _contrasts(t) + _counted(torch, keras) + _unaligned(t)


def _probabilities() -> tuple[Any, Any]:
    """Rows that sum to exactly 1, certain ones too, and one-hot targets that meet all of them."""
    small = 2.0**-30
    rows = [
        [0.25, 0.5, 0.125, 0.0625, 0.03125, 0.015625, 0.015625],
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [1 - 6 * small, small, small, small, small, small, small],
    ]
    probabilities = np.stack([np.roll(rows, shift, axis=1) for shift in range(5)], axis=1)
    target = np.eye(7)[np.arange(15).reshape(3, 5) % 7]
    return probabilities, target


def _contrasts(torch: Any) -> list[Recipe]:
    """Losses that no framework has whole."""
    made = []
    for gamma in (2.0, 0.5):
        kernel = focal(torch, gamma)
        made.append(Recipe("loss", "focal", "torch.softmax", kernel, {"gamma": gamma}))
    for temperature in (0.1, 0.5):
        kernel, given = info_nce(torch, temperature), {"temperature": temperature}
        source = "torch.nn.functional.cross_entropy"
        made.append(Recipe("loss", "info_nce", source, kernel, given))
    return made


def _unaligned(torch: Any) -> list[Recipe]:
    """Both on rows that fit, torch on others too: optax has a large number there."""
    source, kernel = "torch.nn.functional.ctc_loss", ctc_in_torch(torch)
    return [
        Recipe("loss", "ctc", source, kernel, given=FITTING),
        Recipe("loss", "ctc", source, kernel, given=SHORT),
        Recipe("loss", "ctc", "optax.ctc_loss", ctc_in_optax, given=FITTING),
    ]


def _counted(torch: Any, keras: Any) -> list[Recipe]:
    """Their derivative is 0 wherever they have one."""
    theirs, other = "torch.argmax", "keras.metrics.sparse_categorical_accuracy"
    return [
        Recipe("loss", "accuracy", theirs, torch.accuracy, gradients=False),
        Recipe("loss", "accuracy", other, keras.accuracy, gradients=False),
    ]
