"""Losses by torch's and optax's own parts: of labels not aligned with steps, and of contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Given = dict[str, Any]
Tensors = Mapping[str, Any]
Kernel = Callable[[Tensors], Tensors]
# One row is whole and has no label twice, one repeats a label and ends early, one has no labels.
FITTING = {
    "labels": np.array([[1, 3, 2, 4], [2, 2, 5, 5], [6, 1, 1, 1]]),
    "counts": np.array([4, 3, 0]),
    "lengths": np.array([5, 5, 2]),
}
# A row of a single label and step, one of more labels than steps, and one without a step.
SHORT = {
    "labels": np.array([[4, 3, 2, 4], [2, 2, 5, 5], [6, 1, 1, 1]]),
    "counts": np.array([1, 2, 1]),
    "lengths": np.array([1, 2, 0]),
}


def ctc_in_torch(torch: Any) -> Any:
    """``[batch]``; rows that do not fit are 0."""

    def kernel(v: Given) -> Given:
        scores = v["logits"].log_softmax(-1).transpose(0, 1)
        given = (scores, v["labels"], v["lengths"], v["counts"])
        loss = torch.nn.functional.ctc_loss
        return {"y": loss(*given, blank=0, reduction="none", zero_infinity=True)}

    return kernel


def ctc_in_optax(given: Given, cotangent: Any) -> Given:
    """Padding is marked entry by entry."""
    import jax
    import optax

    labels, logits = np.asarray(given["labels"]), jax.numpy.asarray(given["logits"])
    steps = np.arange(logits.shape[1]) >= np.asarray(given["lengths"])[:, None]
    behind = np.arange(labels.shape[1]) >= np.asarray(given["counts"])[:, None]

    def loss(logits: Any) -> Any:
        return optax.ctc_loss(logits, steps * 1.0, labels, behind * 1.0)

    y, pull = jax.vjp(loss, logits)
    return {"y": y, "gradient.logits": pull(jax.numpy.asarray(cotangent))[0]}


def focal(torch: Any, gamma: float) -> Kernel:
    """The paper's formula, of probabilities."""

    def kernel(v: Tensors) -> Tensors:
        p = torch.softmax(v["logits"], -1).gather(-1, v["target"][..., None])[..., 0]
        return {"y": -((1 - p) ** gamma) * torch.log(p)}

    return kernel


def info_nce(torch: Any, temperature: float) -> Kernel:
    """torch's cross-entropy, of which each row's class is its own number."""

    def kernel(v: Tensors) -> Tensors:
        scores = v["x"] @ v["partner"].T / temperature
        target = torch.arange(len(scores))
        return {"y": torch.nn.functional.cross_entropy(scores, target, reduction="none")}

    return kernel
