"""The arguments of a user's JAX function or module that choose its mode, and its random keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax

from harness.extend.models import names_taken, parameters_of

from .model_noise import without_noise

# Arguments that choose the mode, and their values in evaluation.
MODES = {
    **dict.fromkeys(("train", "training", "is_training", "is_train"), False),
    **dict.fromkeys(("deterministic", "evaluation", "eval"), True),
}
# Arguments for a key of ``jax.random``.
KEYS = ("key", "rng", "rngs", "prng", "prng_key", "rng_key", "dropout_key", "dropout_rng")
ADVICE = (
    "the model has no training mode: add an argument such as train or deterministic, or key=None, "
    "which turns its random numbers on"
)


def _keys(parameters: Mapping[str, Any]) -> list[str]:
    # Attention has a key that is an array.
    attends = {"query", "value"} & {*parameters}
    return [n for n in KEYS if n in parameters and not (attends and n == "key")]


def chosen(call: Any, training: bool, key: Any = None) -> dict[str, Any]:
    """Return the arguments that choose the mode of a call. A key that has a default value is given
    in training only; ``key`` replaces the default key."""
    parameters = parameters_of(call)
    modes = {n: MODES[n] != training for n in parameters if n in MODES}
    key = jax.random.PRNGKey(0) if key is None else key
    required = [n for n, p in parameters.items() if p.default is p.empty]
    return modes | {n: key for n in _keys(parameters) if training or n in required}


def evaluated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function in evaluation mode. If it needs a key also there, it must not draw."""
    modes = chosen(function, False)
    if not modes:
        return function

    def run(*arguments: Any, **keywords: Any) -> Any:
        with without_noise() if {*modes} - {*MODES} else nullcontext():
            return function(*arguments, **{**modes, **keywords})

    return run


def drawing(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a function in training mode; None if it has none."""
    modes = chosen(function, True)
    return partial(function, **modes) if modes else None


def inputs_of(call: Any, skip: int = 0) -> tuple[str, ...] | None:
    """Return the names of the other arguments of a call without the first ``skip``; None if they
    cannot be determined."""
    names = names_taken(call, skip)
    mode = chosen(call, True)
    return names if names is None else tuple(n for n in names if n not in mode)
