"""The random numbers of a user's JAX model: given by the spec, refused, or marked in a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from harness.extend import UsageError
from harness.extend.models import GivenNoise, current_place, parameters_of

# The random numbers of a dropout in a trace: a boolean array, true where a value is kept.
MASK = "random_mask"
_mask = Primitive(MASK)


_mask.def_abstract_eval(lambda *, shape, keep: jax.core.ShapedArray(shape, jnp.bool_))


def _others() -> list[str]:
    """Return the functions of ``jax.random`` that draw, other than ``bernoulli``."""
    no_draw = {"bernoulli", "split", "fold_in", "clone"}
    takes = {name: parameters_of(value) for name, value in vars(jax.random).items()}
    return [n for n, p in takes.items() if next(iter(p), "") == "key" and n not in no_draw]


def _replaced(
    bernoulli: Callable[[tuple[int, ...], Any], Any], other: Callable[[str], Any] | None
) -> AbstractContextManager[Any]:
    """Return a context that replaces functions of ``jax.random``: ``bernoulli`` gets a shape and a
    probability, and ``other`` returns the function in place of another one."""

    def drawn(key: Any, p: Any = 0.5, shape: Any = None, *_: Any, **__: Any) -> Any:
        return bernoulli(tuple(jnp.shape(p) if shape is None else shape), p)

    others = {} if other is None else {name: other(name) for name in _others()}
    return patch.multiple(jax.random, bernoulli=drawn, **others)


@contextmanager
def with_noise(given: GivenNoise, compiled: bool) -> Iterator[None]:
    """Replace the random numbers of ``jax.random.bernoulli`` in the block by the spec's. Other
    functions that draw raise :class:`NoiseMisfit`.

    JAX keeps the numbers in functions that it has compiled, so these are dropped. Unless
    ``compiled``, nothing is compiled, so that each step of a scan over layers has its own numbers.
    """

    def bernoulli(shape: tuple[int, ...], p: Any) -> Any:
        keep = float(p) if jnp.ndim(p) == 0 else None
        return jnp.asarray(given.take(shape, keep), bool)

    def refuse(name: str) -> Any:
        return lambda *_, **__: given.refuse(
            f"the model draws random numbers of jax.random.{name}, which the spec does not give"
        )

    jax.clear_caches()
    with given.checked(), _replaced(bernoulli, refuse), jax.disable_jit(not compiled):
        yield
    jax.clear_caches()


def without_noise() -> AbstractContextManager[Any]:
    """Refuse all random numbers in the block: a model in evaluation mode must draw none."""

    def refuse(name: str) -> Any:
        raise UsageError(
            f"{current_place()}: the model calls jax.random.{name} in evaluation mode: add an "
            "argument that turns this off, e.g. train=False, or key=None"
        )

    return _replaced(lambda *_: refuse("bernoulli"), lambda name: lambda *_, **__: refuse(name))


def with_marks() -> AbstractContextManager[Any]:
    """Mark the random numbers of ``jax.random.bernoulli`` in a trace by the primitive
    ``random_mask``, which has the probability and the shape as parameters."""
    return _replaced(lambda shape, p: _mask.bind(shape=shape, keep=float(p)), None)
