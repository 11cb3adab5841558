"""Optimizers that do with matrices what they do with nothing else, by their papers in numpy.

Muon's polynomial is applied to the singular values, which is what its products of matrices are for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Numbers = Mapping[str, float]
Arrays = dict[str, Any]
# The step for a gradient, of the parameter, the slots (which it changes), the rate and t.
Step = Callable[[Numbers, Any, Any, Arrays, float, int], Any]
COEFFICIENTS = (3.4445, -4.775, 2.0315)


def adafactor(a: Numbers, p: Any, g: Any, slots: Arrays, rate: float, t: int) -> Any:
    """Algorithms 4 and 5 of Shazeer and Stern: sums of rows and columns over their sum."""
    share, squares = float(t) ** -a["power"], g**2 + a["epsilon"]

    def moved(slot: str, found: Any) -> Any:
        before = slots.get(slot, np.zeros_like(found))
        slots[slot] = before + share * (found - before)
        return slots[slot]

    if p.ndim == 2:
        rows = moved("of_rows", squares.sum(1, keepdims=True) / squares.shape[1])
        columns = moved("of_columns", squares.sum(0, keepdims=True) / squares.shape[0])
        v = np.outer(rows, columns) * len(rows) / rows.sum()
    else:
        v = moved("v", squares)
    u = g / v**0.5
    u = u / max(1.0, np.linalg.norm(u) / u.size**0.5 / a["threshold"])
    long = max(a["smallest"], np.linalg.norm(p) / p.size**0.5)
    return min(rate, t**-0.5) * long * u


def _near_one(x: Any, epsilon: float, coefficients: tuple[float, ...] = COEFFICIENTS) -> Any:
    left, values, right = np.linalg.svd(x, full_matrices=False)
    values = values / (np.linalg.norm(values) + epsilon)
    for _ in range(5):
        values = sum(c * values ** (2 * n + 1) for n, c in enumerate(coefficients))
    return left @ np.diag(values) @ right


def _adam(a: Numbers, g: Any, slots: Arrays, t: int, hat: bool) -> Any:
    one, two = 1 - a["beta_1"] ** t, 1 - a["beta_2"] ** t
    for slot, found, beta in (("m", g, "beta_1"), ("v", g**2, "beta_2")):
        before = slots.get(slot, 0.0 * g)
        slots[slot] = before + (1 - a[beta]) * (found - before)
    if hat:
        return slots["m"] * two**0.5 / one / (slots["v"] ** 0.5 + a["adam_epsilon"])
    return slots["m"] / one / ((slots["v"] / two) ** 0.5 + a["adam_epsilon"])


def muon(a: Numbers, p: Any, g: Any, slots: Arrays, rate: float, t: int) -> Any:
    """Jordan's: the mean of gradients, one step ahead."""
    if p.ndim != 2:
        step = _adam(a, g, slots, t, hat=False) + a["weight_decay"] * p
        return rate * a["adam_rate"] * step
    slots["m"] = slots.get("m", 0.0 * g) + (1 - a["momentum"]) * (g - slots.get("m", 0.0 * g))
    ahead = g + a["momentum"] * (slots["m"] - g)
    rows, columns = p.shape
    step = _near_one(ahead, a["epsilon"]) * max(1.0, columns / rows) ** 0.5
    return rate * (step + a["weight_decay"] * p)


def muon_matched(a: Numbers, p: Any, g: Any, slots: Arrays, rate: float, t: int) -> Any:
    """Liu's, with Keras' sum of gradients."""
    if p.ndim != 2:
        return rate * (_adam(a, g, slots, t, hat=True) + a["adam_weight_decay"] * p)
    slots["m"] = a["momentum"] * slots.get("m", 0.0 * g) + g
    step = _near_one(g + a["momentum"] * slots["m"], a["epsilon"])
    return rate * (a["scale"] * max(p.shape) ** 0.5 * step + a["weight_decay"] * p)


def optimizer(step: Step, attributes: Numbers) -> Any:
    """Steps of one of these, with its slots after each."""

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        p, slots = np.array(given["p"]), {}
        history: dict[str, list[Any]] = {}
        rows = zip(given["gradients"], given["learning_rates"], strict=True)
        for t, (g, rate) in enumerate(rows, start=1):
            p = p - step(attributes, p, np.array(g), slots, rate, t)
            for name, value in {"p": p, **slots}.items():
                history.setdefault(name, []).append(value)
        return {name: np.stack(values) for name, values in history.items()}

    return run
