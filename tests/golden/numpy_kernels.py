"""Optimizers by their papers, one number after the other, in Python's own floats.

Nothing is vectorised and no expression is shared with the definitions: loops over entries, running
products in place of powers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import hypot, sqrt
from typing import Any

import numpy as np

Numbers = Mapping[str, float]
# What is carried for one entry, by slot; the running products of betas are kept there too.
Entry = dict[str, float]
Rule = Callable[[Numbers, Entry, float, int], float]


def _moments(a: Numbers, e: Entry, g: float) -> tuple[float, float]:
    """Both moments, and what their corrections divide by."""
    e["m"] = e.get("m", 0.0) + (1 - a["beta_1"]) * (g - e.get("m", 0.0))
    e["v"] = e.get("v", 0.0) + (1 - a["beta_2"]) * (g * g - e.get("v", 0.0))
    e["one"] = e.get("one", 1.0) * a["beta_1"]
    e["two"] = e.get("two", 1.0) * a["beta_2"]
    return 1 - e["one"], 1 - e["two"]


def _adam(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    return (e["m"] / one) / (sqrt(e["v"] / two) + a["epsilon"])


def _adam_hat(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    return sqrt(two) / one * e["m"] / (sqrt(e["v"]) + a["epsilon"])


def _amsgrad(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    e["largest"] = max(e.get("largest", 0.0), e["v"])
    return (e["m"] / one) / (sqrt(e["largest"]) / sqrt(two) + a["epsilon"])


def _amsgrad_hat(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    e["largest"] = max(e.get("largest", 0.0), e["v"])
    return sqrt(two) / one * e["m"] / (sqrt(e["largest"]) + a["epsilon"])


def _amsgrad_corrected(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    e["largest"] = max(e.get("largest", 0.0), e["v"] / two)
    return (e["m"] / one) / (sqrt(e["largest"]) + a["epsilon"])


def _nadam(a: Numbers, e: Entry, g: float, t: int) -> float:
    _, two = _moments(a, e, g)
    now, following = (
        a["beta_1"] - a["beta_1"] / 2 * 0.96 ** (step * a["momentum_decay"]) for step in (t, t + 1)
    )
    e["product"] = e.get("product", 1.0) * now
    ahead = following / (1 - e["product"] * following) * e["m"]
    return (ahead + (1 - now) / (1 - e["product"]) * g) / (sqrt(e["v"] / two) + a["epsilon"])


def _nadam_constant(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    ahead = a["beta_1"] * e["m"] / (1 - e["one"] * a["beta_1"])
    return (ahead + (1 - a["beta_1"]) * g / one) / (sqrt(e["v"] / two) + a["epsilon"])


def _rectified(a: Numbers, e: Entry, t: int) -> float | None:
    """The factor of rectification; None while too little is known."""
    most = (1 + a["beta_2"]) / (1 - a["beta_2"])
    known = most - 2 * t * e["two"] / (1 - e["two"])
    if known <= 5:
        return None
    return sqrt((known - 4) * (known - 2) * most / ((most - 4) * (most - 2) * known))


def _radam(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    factor = _rectified(a, e, t)
    plain = e["m"] / one
    return plain if factor is None else plain * factor / (sqrt(e["v"] / two) + a["epsilon"])


def _radam_hat(a: Numbers, e: Entry, g: float, t: int) -> float:
    one, two = _moments(a, e, g)
    factor = _rectified(a, e, t)
    plain = e["m"] / one
    return plain if factor is None else plain * factor * sqrt(two) / (sqrt(e["v"]) + a["epsilon"])


def _adagrad(a: Numbers, e: Entry, g: float, t: int) -> float:
    e["squares"] = e.get("squares", a["initial"]) + g * g
    return g / (sqrt(e["squares"]) + a["epsilon"])


def _adagrad_inside(a: Numbers, e: Entry, g: float, t: int) -> float:
    e["squares"] = e.get("squares", a["initial"]) + g * g
    return g / sqrt(e["squares"] + a["epsilon"])


def _adadelta(a: Numbers, e: Entry, g: float, t: int) -> float:
    e["squares"] = a["rho"] * e.get("squares", 0.0) + (1 - a["rho"]) * g * g
    before = e.get("steps", 0.0)
    step = g * sqrt((before + a["epsilon"]) / (e["squares"] + a["epsilon"]))
    e["steps"] = a["rho"] * before + (1 - a["rho"]) * step * step
    return step


def _lion(a: Numbers, e: Entry, g: float, t: int) -> float:
    before = e.get("m", 0.0)
    e["m"] = a["beta_2"] * before + (1 - a["beta_2"]) * g
    ahead = a["beta_1"] * before + (1 - a["beta_1"]) * g
    return float(ahead > 0) - float(ahead < 0)


RULES: Mapping[str, Rule] = {
    "adamw": _adam,
    "adamw_epsilon_hat": _adam_hat,
    "amsgrad": _amsgrad,
    "amsgrad_epsilon_hat": _amsgrad_hat,
    "amsgrad_corrected": _amsgrad_corrected,
    "nadam": _nadam,
    "nadam_constant": _nadam_constant,
    "radam": _radam,
    "radam_epsilon_hat": _radam_hat,
    "adagrad": _adagrad,
    "adagrad_epsilon_inside": _adagrad_inside,
    "adadelta": _adadelta,
    "lion": _lion,
    "lamb": _adam,
}


def optimizer(name: str, attributes: Numbers) -> Any:
    """Steps of an optimizer: entries one by one, but for LAMB's norms of all of them."""
    rule, decay = RULES[name], attributes.get("weight_decay", 0.0)

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        p = [float(x) for x in given["p"]]
        entries: list[Entry] = [{} for _ in p]
        history: dict[str, list[list[float]]] = {"p": []}
        rows = zip(given["gradients"], given["learning_rates"], strict=True)
        for t, (row, rate) in enumerate(rows, start=1):
            pairs = zip(entries, row, strict=True)
            steps = [rule(attributes, entry, float(g), t) for entry, g in pairs]
            steps = [step + decay * x for step, x in zip(steps, p, strict=True)]
            if name == "lamb":
                ratio = hypot(*p) / hypot(*steps)
                steps = [ratio * step for step in steps]
            p = [x - rate * step for x, step in zip(p, steps, strict=True)]
            history["p"].append(p)
            for slot in entries[0].keys() - {"one", "two"}:
                history.setdefault(slot, []).append([entry[slot] for entry in entries])
        return {slot: np.array(values) for slot, values in history.items()}

    return run
