"""A user's own JAX model: a function ``apply(params, x)``, an object with such a method, or a
module of flax.linen or flax.nnx.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.extend import Array, ArrayDict, Arrays, UsageError
from harness.extend.models import (
    GivenNoise,
    ModelArray,
    ModelFile,
    Naming,
    NoiseMisfit,
    OwnModel,
    OwnModels,
    Placing,
    Recorder,
    TracedGraph,
    made,
    place_of,
    run_user_code,
    sizes_taken,
)

from . import modes
from .flax_calls import recorded_calls
from .flax_models import FlaxModel, carries_in_session_dtype, in_session_dtype, open_flax
from .model_noise import with_noise


class JaxModels(OwnModels):
    """The loader of JAX functions in a user's Python file.

    In ``FILE.py:NAME:PARAMETERS``, ``PARAMETERS`` is the tree of parameters, or a function that
    returns the tree. If it is omitted, the tree consists of nested dictionaries with the spec's
    names, e.g. ``params["out"]["W"]``.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def sizes(self, target: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        if parameters is None:
            return tuple(sizes)
        return sizes_taken(parameters, sizes) if callable(parameters) else ()

    def open(
        self,
        file: ModelFile,
        target: Any,
        parameters: Any,
        sizes: Mapping[str, int],
        expected: Mapping[str, ModelArray] | None,
    ) -> JaxModel:
        """See :meth:`OwnModels.open`. If ``expected`` is None, the parameters must be in the user's
        file."""
        if not file.name:
            raise UsageError(
                f"{file} is not a Python file: jax needs FILE.py:NAME, where NAME is a function of "
                "parameters and inputs"
            )
        tree = parameters
        if callable(parameters):
            key = jax.random.PRNGKey(0)
            with carries_in_session_dtype():
                tree = made(file, file.parameters, parameters, sizes, key=key, rng=key)
        # Without a tree, the spec's names are the names of the variables.
        is_named = tree is None and expected is not None and hasattr(target, "apply")
        flax = None if is_named else open_flax(file, target, tree, sizes)
        if flax is not None:
            return JaxModel(flax.function, flax.tree, self.backend, flax)
        function = getattr(target, "apply", target)
        if not callable(function):
            raise UsageError(
                f"{file} is a {type(target).__name__}: name a function of parameters and inputs"
            )
        if tree is None and expected is None:
            raise UsageError(
                f"{file} needs its parameters: write {file}:PARAMETERS, where PARAMETERS is a tree "
                "of arrays, or a function of a key that returns it"
            )
        if tree is None and expected is not None:
            parts = [name for name in expected if "[" in name or "(" in name]
            if parts:
                raise UsageError(
                    f"--map: {parts[0]} is part of an array whose shape is unknown: name the "
                    f"parameters too, as in {file}:PARAMETERS"
                )
            tree = _nested_dict({n: np.zeros(entry.shape) for n, entry in expected.items()})
        return JaxModel(function, tree, self.backend)

    def paths(self) -> Mapping[str, str]:
        return {"native": "", "compiled": ""}

    def operators(self) -> Collection[str]:
        from .trace_model import operators

        return operators()

    def trace(self, file: ModelFile, target: Any, parameters: Any, inputs: Arrays) -> TracedGraph:
        from .trace_model import trace

        self.backend.use("cpu", "float64")
        model = self.open(file, target, parameters, {}, None)
        return run_user_code(file, "cannot be traced", lambda: trace(model, inputs, file))


def _nested_dict(arrays: Arrays) -> dict[str, Any]:
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
    """A user's function and its tree of parameters, with floats in the session's dtype."""

    def __init__(
        self, function: Any, tree: Any, backend: Any, flax: FlaxModel | None = None
    ) -> None:
        self.function, self.backend, self.flax = function, backend, flax
        # The function in training mode, which also returns the new tree of arrays.
        self.trained: Callable[..., Any] | None
        name = getattr(function, "__qualname__", type(function).__name__)
        self.label = f"jax function {name}" if flax is None else flax.label
        if flax is None:
            self.takes = modes.inputs_of(function, skip=1)
            self.function, self.drawing = modes.evaluated(function), modes.drawing(function)
            drawing = self.drawing
            self.trained = drawing and (lambda tree, *a, **k: (drawing(tree, *a, **k), tree))
        else:
            self.takes, self.trained, self.drawing = flax.takes, flax.trained, flax.drawing
        self.trains, self.compiled = self.trained is not None, False
        self.is_trained: Callable[[str], bool] = (
            (lambda name: True) if flax is None else flax.is_trained
        )
        target, self.form = jax.tree_util.tree_flatten_with_path(tree)
        self.leaves = {
            _dotted_name(path): in_session_dtype(jnp.asarray(leaf)) for path, leaf in target
        }

    def entries(self) -> Mapping[str, ModelArray]:
        return {
            n: ModelArray(a.shape, self._is_float(a) and self.is_trained(n))
            for n, a in self.leaves.items()
        }

    def _is_float(self, array: Any) -> bool:
        return bool(jnp.issubdtype(array.dtype, jnp.floating))

    def read(self, name: str) -> Array:
        return self.backend.numpy(self.leaves[name])

    def put(self, arrays: Arrays) -> None:
        for name, array in arrays.items():
            self.leaves[name] = jnp.asarray(np.array(array), self.leaves[name].dtype)

    def on_path(self, path: str, dtype: str) -> OwnModel:
        if path == "compiled":
            self.function, self.compiled = jax.jit(self.function), True
            self.trained = self.trained and jax.jit(self.trained)
            self.label += " (jax.jit)"
        return self

    def with_noise(self, noise: GivenNoise) -> AbstractContextManager[None]:
        if self.trained is None:
            raise NoiseMisfit(modes.ADVICE)
        return with_noise(noise, self.compiled)

    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        returned, new = self._call(placing, self._tensors(given), self.leaves, training)
        moved = {_dotted_name(p): a for p, a in jax.tree_util.tree_leaves_with_path(new)}
        self.leaves = {n: a if self.is_trained(n) else moved[n] for n, a in self.leaves.items()}
        return {n: self.backend.numpy(jnp.asarray(t)) for n, t in naming(returned).items()}

    def _call(
        self, placing: Placing, tensors: Any, leaves: Mapping[str, Any], training: bool
    ) -> tuple[Any, Any]:
        """Run the model; return what it returns, and its new tree of arrays."""
        tree = self.tree(leaves)
        if training and self.trained is not None:
            returned, new = placing.call(self.trained, tensors, tree)
            return returned, new
        return placing.call(self.function, tensors, tree), tree

    def narrow_places(self, given: Arrays, placing: Placing) -> list[str]:
        def run(leaves: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
            return placing.call(self.function, tensors, self.tree(leaves))

        jaxpr = jax.make_jaxpr(run)(self.leaves, self._tensors(given))
        return list(dict.fromkeys(_narrow_places(jaxpr.jaxpr)))

    def to_array(self, value: Any) -> Array | None:
        is_concrete = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
        is_key = is_concrete and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        return self.backend.numpy(value) if is_concrete and not is_key else None

    def record(self, recorder: Recorder, given: Arrays, placing: Placing) -> None:
        prefix = "params." if all(name.startswith("params.") for name in self.leaves) else ""
        # Without jit, also the modules inside jitted functions and loops have values.
        with recorded_calls(recorder, prefix), jax.disable_jit():
            placing.call(self.function, self._tensors(given), self.tree(self.leaves))

    def tree(self, leaves: Mapping[str, Any]) -> Any:
        """Return the user's tree with these arrays by name."""
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
            results = naming(self._call(placing, now, now, training)[0])
            return sum(jnp.vdot(results[n], directions[n]) for n in results), results

        (_, results), target = jax.value_and_grad(scalar, has_aux=True)(floats)
        numpy = self.backend.numpy
        return {n: numpy(a) for n, a in results.items()}, {n: numpy(a) for n, a in target.items()}


def _narrow_places(jaxpr: Any) -> Iterator[str]:
    """Yield the places of the operations of a jaxpr that return floats narrower than float64."""
    for operation in jaxpr.eqns:
        inner = [getattr(value, "jaxpr", value) for value in operation.params.values()]
        for each in inner:
            if hasattr(each, "eqns"):
                yield from _narrow_places(each)
        dtypes = [getattr(v.aval, "dtype", np.dtype(bool)) for v in operation.outvars]
        if any(jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 8 for dtype in dtypes):
            frames = getattr(operation.source_info.traceback, "frames", ())
            # JAX lists the innermost frame first.
            place = place_of((frame.file_name, frame.line_num) for frame in reversed(frames))
            yield place or str(operation.primitive)


def _dotted_name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf of a tree: its keys, joined by dots."""
    keys = (getattr(k, "key", getattr(k, "idx", getattr(k, "name", k))) for k in path)
    return ".".join(map(str, keys))
