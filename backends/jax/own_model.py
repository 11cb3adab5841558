"""Run a user's JAX model: a function ``apply(params, x)``, or an object with such a method.

Modules of flax.linen are such objects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.extend import Array, ArrayDict, Arrays, UsageError
from harness.extend.models import (
    ModelArray,
    ModelFile,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    made,
    names_taken,
    sizes_taken,
)


class JaxModels(OwnModels):
    """The JAX functions in a user's file.

    ``PARAMETERS`` in ``FILE.py:NAME:PARAMETERS`` is the tree of parameters, or a function that
    makes the tree. Without it, the parameters are nested dictionaries with the spec's names:
    ``params["out"]["W"]``.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def sizes(self, found: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        if parameters is None:
            return tuple(sizes)
        return sizes_taken(parameters, sizes) if callable(parameters) else ()

    def open(
        self,
        file: ModelFile,
        found: Any,
        parameters: Any,
        sizes: Mapping[str, int],
        wanted: Mapping[str, ModelArray],
    ) -> OwnModel:
        if not file.name:
            raise UsageError(
                f"{file} is not a Python file: jax needs FILE.py:NAME, where NAME is a function of "
                "parameters and inputs"
            )
        function = getattr(found, "apply", found)
        if not callable(function):
            raise UsageError(
                f"{file} is a {type(found).__name__}: name a function of parameters and inputs"
            )
        tree = parameters
        if parameters is None:
            parts = [name for name in wanted if "[" in name or "(" in name]
            if parts:
                raise UsageError(
                    f"--map: {parts[0]} is part of an array whose shape is unknown: name the "
                    f"parameters too, as in {file}:PARAMETERS"
                )
            tree = _nested({n: np.zeros(entry.shape) for n, entry in wanted.items()})
        elif callable(parameters):
            key = jax.random.PRNGKey(0)
            tree = made(file, file.parameters, parameters, sizes, key=key, rng=key)
        return JaxModel(function, tree, self.backend)


def _nested(arrays: Arrays) -> dict[str, Any]:
    """Convert arrays with dotted names to nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *owners, local = name.split(".")
        place = tree
        for owner in owners:
            place = place.setdefault(owner, {})
        place[local] = array
    return tree


class JaxModel(OwnModel):
    """A function and its tree of parameters, in the session's dtype."""

    def __init__(self, function: Any, tree: Any, backend: Any) -> None:
        self.function, self.backend = function, backend
        self.label = f"jax function {getattr(function, '__qualname__', type(function).__name__)}"
        self.takes = names_taken(function, skip=1)
        found, self.form = jax.tree_util.tree_flatten_with_path(tree)
        self.leaves = {_name(path): self._leaf(leaf) for path, leaf in found}

    def _leaf(self, leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        floats = jnp.issubdtype(array.dtype, jnp.floating)
        return array.astype(jnp.result_type(float)) if floats else array

    def entries(self) -> Mapping[str, ModelArray]:
        return {n: ModelArray(a.shape, self._is_float(a)) for n, a in self.leaves.items()}

    def _is_float(self, array: Any) -> bool:
        return bool(jnp.issubdtype(array.dtype, jnp.floating))

    def read(self, name: str) -> Array:
        return self.backend.numpy(self.leaves[name])

    def put(self, arrays: Arrays) -> None:
        for name, array in arrays.items():
            self.leaves[name] = jnp.asarray(np.array(array), self.leaves[name].dtype)

    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        returned = placing.call(self.function, self._tensors(given), self._tree(self.leaves))
        return {n: self.backend.numpy(jnp.asarray(t)) for n, t in naming(returned).items()}

    def _tree(self, leaves: Mapping[str, Any]) -> Any:
        return self.form.unflatten([leaves[name] for name in self.leaves])

    def _tensors(self, given: Arrays) -> dict[str, Any]:
        narrow = jnp.result_type(float)
        return {
            n: jnp.asarray(np.array(a), narrow if a.dtype.kind == "f" else None)
            for n, a in given.items()
        }

    def gradients(
        self, given: Arrays, placing: Placing, naming: Naming, cotangents: Arrays, training: bool
    ) -> tuple[ArrayDict, ArrayDict]:
        tensors, directions = self._tensors(given), self._tensors(cotangents)
        every = {**self.leaves, **tensors}
        floats = {n: a for n, a in every.items() if self._is_float(a)}

        def scalar(changed: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
            now = {**every, **changed}
            results = naming(placing.call(self.function, now, self._tree(now)))
            return sum(jnp.vdot(results[n], directions[n]) for n in results), results

        (_, results), found = jax.value_and_grad(scalar, has_aux=True)(floats)
        numpy = self.backend.numpy
        return {n: numpy(a) for n, a in results.items()}, {n: numpy(a) for n, a in found.items()}


def _name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf of a tree: its keys, joined by dots."""
    keys = (getattr(k, "key", getattr(k, "idx", getattr(k, "name", k))) for k in path)
    return ".".join(map(str, keys))
