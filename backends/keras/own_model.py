"""A user's own Keras model: a ``.keras`` file, or in a Python file a model or a function that
returns a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from harness.extend import Array, ArrayDict, Arrays, Tensors, UsageError, shorten
from harness.extend.models import (
    GivenNoise,
    ModelArray,
    ModelFile,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    Recorder,
    TracedGraph,
    made,
    names_taken,
    reshaped,
    run_user_code,
    sizes_taken,
)

from .call_graph import record_places, takes_training
from .layer_names import variable_paths
from .layers import WAYS
from .model_noise import with_noise
from .trace import declarations, operators, trace_model

# Functions of TensorFlow whose constants have float32 precision only.
NARROW = frozenset(["leaky_relu", "gelu"])
# Layers that compute in float32 in a float64 model, e.g. the softmax of attention.
NARROW_LAYERS = frozenset(["MultiHeadAttention", "GroupedQueryAttention", "Resizing"])
# Layers that do so on engines with inexact normalisations.
NORMS = frozenset(["BatchNormalization", "LayerNormalization", "GroupNormalization"])


class KerasOwnModels(OwnModels):
    """The loader of users' Keras models. It loads ``.keras`` files in Keras' safe mode, which runs
    no code of the file."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.keras = backend, backend.keras
        record_places(self.keras)

    def sizes(self, target: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        return sizes_taken(target, sizes) if self._is_factory(target) else ()

    def _is_factory(self, target: Any) -> bool:
        """Return whether the object is a class or function that must be called to create the
        model."""
        return callable(target) and not isinstance(target, self.keras.Model)

    def open(
        self,
        file: ModelFile,
        target: Any,
        parameters: Any,
        sizes: Mapping[str, int],
        expected: Mapping[str, ModelArray],
    ) -> KerasModel:
        self.keras.utils.set_random_seed(0)
        if self._is_factory(target):
            # Layers without a name have the same names in each call of the user's function.
            self.keras.utils.clear_session()
        if not file.name:
            model = self._load_file(file)
        else:
            model = made(file, file.name, target, sizes) if self._is_factory(target) else target
        if not isinstance(model, self.keras.Model):
            raise UsageError(
                f"{file} returns {type(model).__name__}, not a keras.Model: name a model, or "
                "a function that returns a model"
            )
        if not model.built:
            raise UsageError(
                f"the model of {file} has no weights yet: build it with keras.Input, or call it "
                "once when you create it"
            )
        return KerasModel(model, self.backend)

    def paths(self) -> Mapping[str, str]:
        return {"native": "", "compiled": self.backend.engine.jit_lacks()}

    def operators(self) -> Collection[str]:
        return operators()

    def default_inputs(self, file: ModelFile, target: Any, parameters: Any) -> dict[str, str]:
        model = self.open(file, target, parameters, {}, {})
        return declarations(model.model)

    def trace(self, file: ModelFile, target: Any, parameters: Any, inputs: Arrays) -> TracedGraph:
        model = self.open(file, target, parameters, {}, {})
        tensors = model.tensors(inputs)
        traced = run_user_code(
            file,
            "cannot be traced",
            lambda: trace_model(model.model, self.keras, model.label, model.variables, tensors),
        )
        if names := [n for n, v in model.variables.items() if id(v) in model.frozen]:
            traced["remarks"].append(f"the model does not train {shorten(', '.join(names), 200)}")
        return traced

    def _load_file(self, file: ModelFile) -> Any:
        try:
            return self.keras.models.load_model(str(file.path), compile=False, safe_mode=True)
        # Keras may raise any exception for a file of another program.
        except Exception as error:
            cause = shorten(str(error).rpartition("Exception encountered: ")[2], 300)
            raise UsageError(
                f"Keras cannot load it: {type(error).__name__}: {cause}; if it uses "
                "your own classes, name the Python file instead: FILE.py:NAME"
            ) from None


class KerasModel(OwnModel):
    """A user's Keras model, whose weights already exist."""

    trains = True

    def __init__(self, model: Any, backend: Any) -> None:
        self.model, self.backend, self.ops = model, backend, backend.keras.ops
        self.frozen = _unfreeze(model, backend.keras.layers.BatchNormalization)
        self.label = f"keras.Model {type(model).__name__}"
        functional = getattr(model, "_functional", None) or model
        inputs = getattr(functional, "inputs", None)
        self.symbolic = bool(inputs)
        self.takes = tuple(t.name for t in inputs) if inputs else names_taken(model.call)
        self.takes_training = takes_training(model)
        self.variables = _named_variables(model, backend.keras.layers.Bidirectional)
        self.jit: Callable[[Any], Any] | None = None  # compiles the calls on the path compiled

    def entries(self) -> Mapping[str, ModelArray]:
        return {n: ModelArray(tuple(v.shape), bool(v.trainable)) for n, v in self.variables.items()}

    def read(self, name: str) -> Array:
        return self.backend.numpy(self.variables[name].value)

    def read_file(self, path: Path) -> ArrayDict:
        before = {name: np.array(self.read(name)) for name in self.variables}
        try:
            self.model.load_weights(path)
        # Keras may raise any exception for a file of another model.
        except Exception as error:
            raise UsageError(f"Keras cannot load {path.name}: {shorten(str(error), 300)}") from None
        values = {name: np.array(self.read(name)) for name in self.variables}
        self.put(before)
        return values

    def put(self, arrays: Arrays) -> None:
        for name, array in arrays.items():
            self.variables[name].assign(array)

    def narrow_places(self, given: Arrays, placing: Placing) -> list[str]:
        # TensorFlow's leaky_relu and gelu have float32 constants in float64, too.
        functions = NARROW if self.backend.keras.backend.backend() == "tensorflow" else ()
        layers = NARROW_LAYERS | (NORMS if "normalization" in self.backend.inexact else set())
        return [
            f"layer {layer.name}"
            for layer in self.model._flatten_layers(include_self=False)
            if _function_of(layer) in functions or type(layer).__name__ in layers
        ]

    def shaped(self, name: str, tensor: Any, expected: tuple[int, ...]) -> Any:
        return reshaped(name, tensor, expected, self.ops.reshape)

    def on_path(self, path: str, dtype: str) -> OwnModel:
        if path == "compiled":
            self.jit = self.backend.engine.jit
            self.label += " (jit_compile)"
        return self

    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        if self.jit is None:
            returned = placing.call(self._wrap_call(self.model, training), self.tensors(given))
        else:
            returned = self._run_compiled(self.jit, given, placing, training)
        return {n: self.backend.numpy(t) for n, t in naming(returned).items()}

    def with_noise(self, noise: GivenNoise) -> AbstractContextManager[None]:
        return with_noise(self.backend.keras, noise)

    def _run_compiled(
        self, jit: Callable[[Any], Any], given: Arrays, placing: Placing, training: bool
    ) -> Any:
        def function(weights: Any, fixed: Any, tensors: Tensors) -> Any:
            call = self._wrap_call(self.model.stateless_call, training, weights, fixed)
            return placing.call(call, tensors)

        trained, fixed = self.model.trainable_variables, self.model.non_trainable_variables
        weights = [[v.value for v in each] for each in (trained, fixed)]
        returned, moved = jit(function)(*weights, self.tensors(given))
        for variable, value in zip(fixed, moved, strict=True):
            variable.assign(value)
        return returned

    def to_array(self, value: Any) -> Array | None:
        if not self.ops.is_tensor(value):
            return None
        try:
            return np.array(self.ops.convert_to_numpy(value))
        # The tensors of compiled loops have no values, and each engine raises its own exception.
        except Exception:
            return None

    def record(self, recorder: Recorder, given: Arrays, placing: Placing) -> None:
        names = variable_paths(self.model, self.variables)
        layer_class = self.backend.keras.layers.Layer
        call = layer_class.__call__

        def recorded_call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
            name = names.get(id(layer), layer.name)
            recorded = recorder.start(name, arguments, keywords)
            returned = call(layer, *arguments, **keywords)
            recorder.finish(recorded, returned)
            return returned

        with patch.object(layer_class, "__call__", recorded_call):
            placing.call(self._wrap_call(self.model, False), self.tensors(given))

    def _wrap_call(self, function: Any, training: bool, *first: Any) -> Any:
        """Wrap a function of the model to accept tensors by position and by name."""

        def called(*arguments: Any, **keywords: Any) -> Any:
            if not self.symbolic:
                mode = {"training": training} if self.takes_training else {}
                return function(*first, *arguments, **keywords, **mode)
            free = (name for name in self.takes or () if name not in keywords)
            every = {**dict(zip(free, arguments, strict=False)), **keywords}
            form = self.model.inputs if hasattr(self.model, "inputs") else ()
            one = next(iter(every.values())) if len(form) == 1 else self._structured_inputs(every)
            return function(*first, one, training=training)

        return called

    def _structured_inputs(self, every: Mapping[str, Any]) -> Any:
        """Return the inputs in the structure that the model takes, e.g. a dictionary or a list;
        ``every`` has them by name."""
        if isinstance(getattr(self.model, "input", None), Mapping):
            return dict(every)
        return [every[name] for name in self.takes or ()]

    def tensors(self, given: Arrays) -> Tensors:
        """Return arrays as tensors, floats in the dtype of the model's weights."""
        dtype = self.model.variables[0].dtype if self.model.variables else "float32"
        floats = next((v.dtype for v in self.variables.values()), dtype)
        return {
            n: self.ops.convert_to_tensor(np.array(a), floats if a.dtype.kind == "f" else None)
            for n, a in given.items()
        }

    def gradients(
        self, given: Arrays, placing: Placing, naming: Naming, cotangents: Arrays, training: bool
    ) -> tuple[ArrayDict, ArrayDict]:
        trained = {n: v for n, v in self.variables.items() if v.trainable}
        names = {id(v): n for n, v in trained.items()}
        order = [names[id(v)] for v in self.model.trainable_variables]
        fixed = [v.value for v in self.model.non_trainable_variables]
        tensors, directions = self.tensors(given), self.tensors(cotangents)
        floats = {n: t for n, t in tensors.items() if given[n].dtype.kind == "f"}

        def function(variables: Tensors, constants: Tensors) -> Tensors:
            weights = [variables[name] for name in order]
            call = self._wrap_call(self.model.stateless_call, training, weights, fixed)
            returned, _ = placing.call(call, {**constants, **variables})
            results = naming(returned)
            parts = [self.ops.sum(results[n] * constants[f"along.{n}"]) for n in results]
            return {**results, "scalar": sum(parts[1:], parts[0])}

        variables = {n: v.value for n, v in trained.items()} | floats
        constants = {n: t for n, t in tensors.items() if n not in floats}
        constants |= {f"along.{n}": t for n, t in directions.items()}
        run = self.backend.value_and_gradient(self.jit(function) if self.jit else function)
        results, target = run(variables, constants)
        numpy = self.backend.numpy
        values = {n: numpy(t) for n, t in results.items() if n != "scalar"}
        return values, {n: numpy(t) for n, t in target.items()}


def _unfreeze(model: Any, norm: type[Any]) -> set[int]:
    """Train all layers of a model, but no batch norm that is not trained: it uses its moving
    statistics also in training mode. Return the identities of the changed variables."""
    before = {id(v) for v in model.trainable_variables}
    parts = list(model._flatten_layers())
    frozen_norms = [part for part in parts if isinstance(part, norm) and not part.trainable]
    for part in parts:
        part.trainable = True
    for part in frozen_norms:
        part.trainable = False
    return {id(v) for v in model.trainable_variables} - before


def _function_of(layer: Any) -> str:
    """Return the name of a layer's activation function."""
    if type(layer).__name__ == "LeakyReLU":
        return "leaky_relu"
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _named_variables(model: Any, both_ways: type[Any]) -> dict[str, Any]:
    """Return the float variables of a model by the name ``LAYER.VARIABLE``, without the names of
    the model and of recurrent cells. In bidirectional layers, ``LAYER`` ends in ``.forward`` or
    ``.backward``."""
    ways = {
        (layer.name, wrapped.name): way
        for layer in model._flatten_layers()
        if isinstance(layer, both_ways)
        for way, attribute in WAYS.items()
        for wrapped in [getattr(layer, attribute)]
    }
    target: dict[str, Any] = {}
    for variable in model.variables:
        if "float" not in str(variable.dtype):
            continue
        parts = variable.path.split("/")
        if len(parts) > 2 and parts[0] == model.name:
            parts = parts[1:]
        parts = [parts[0], *(ways.get(pair, pair[1]) for pair in pairwise(parts))]
        short = [p for p in parts[:-1] if not p.endswith("_cell")] + parts[-1:]
        name = ".".join(short)
        target[name if name not in target else ".".join(parts)] = variable
    return target
