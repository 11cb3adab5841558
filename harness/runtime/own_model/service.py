"""Serve the calls of a worker for a user's model: describe, attach, load, forward, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError
from harness.program.dims import resolve_shape
from harness.program.serial import decode, decoded
from harness.program.signature import (
    call_key,
    check_batch,
    noise_in_order,
    noise_ports,
    result_ports,
)
from harness.runtime.answers import (
    AttachedModel,
    DescribedModel,
    Gradients,
    ReadWeights,
    RecordedModules,
    Tensors,
)
from harness.runtime.backend import Backend
from harness.runtime.claimed_calls import claims
from harness.runtime.own_model.contract import (
    ModelFile,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    run_user_code,
)
from harness.runtime.own_model.exported import load_format
from harness.runtime.own_model.graph import TracedGraph
from harness.runtime.own_model.matching import ModelWeights, Sides, find_weights
from harness.runtime.own_model.names import Results, placing
from harness.runtime.own_model.noise import GivenNoise
from harness.runtime.own_model.recorder import Recorder
from harness.runtime.own_model.renames import expected_arrays, read_rules, renamed
from harness.runtime.own_model.steps import ModelSteps
from harness.runtime.paths import OWN_PATHS
from harness.runtime.precision import host_dtype

Payload = dict[str, Any]
CALLED = "raised an error when called"


class OwnModelService:
    """The service for one model of a user. Its methods take and return plain data.

    Args:
        name: The name of the backend or the format, for messages.
        served: The backend, or a format that has ``own_models``.
    """

    def __init__(self, name: str, served: Any) -> None:
        self.name, self.served = name, served
        opener = served.own_models()
        if opener is None:
            raise UsageError(f"{name} cannot run models of users; choose another with --backend")
        self.opener: OwnModels = opener
        self._file: ModelFile | None = None
        self._loaded: tuple[Any, Any] = (None, None)

    def __call__(self, verb: str, payload: Payload) -> Any:
        """Answer one call to the process."""
        return getattr(self, verb)(**(payload or {}))

    def versions(self) -> Mapping[str, str]:
        """Return the versions that the process reports at its start."""
        return self.served.versions()  # type: ignore[no-any-return]

    def devices(self) -> Sequence[str]:
        """Return the devices that the process reports at its start."""
        return self.served.devices() if isinstance(self.served, Backend) else ("cpu",)

    def dtypes(self) -> Sequence[str]:
        """Return the dtypes in which users' models can run."""
        narrow = OWN_PATHS["autocast"] if "autocast" in self.opener.paths() else ()
        return (*self.opener.dtypes, *narrow)

    def paths(self) -> dict[str, str]:
        """Return the paths of users' models; see :meth:`OwnModels.paths`."""
        return dict(self.opener.paths())

    def operators(self) -> list[str]:
        """Return the operators that can be ported; see :meth:`OwnModels.operators`."""
        return list(self.opener.operators())

    def describe(
        self, path: str, name: str, parameters: str, sizes: Mapping[str, int]
    ) -> DescribedModel:
        """Return the names of the ``sizes`` for which the model accepts any number."""
        self._load(path, name, parameters)
        return {"sizes": list(self.opener.sizes(*self._loaded, sizes))}

    def default_inputs(self, path: str, name: str, parameters: str) -> dict[str, str]:
        """Return declarations of the model's inputs; see :meth:`OwnModels.default_inputs`."""
        file = self._load(path, name, parameters)
        return self.opener.default_inputs(file, *self._loaded)

    def trace(self, path: str, name: str, parameters: str, inputs: Arrays) -> TracedGraph:
        """Return the graph of the model's forward pass; see :meth:`OwnModels.trace`."""
        file = self._load(path, name, parameters)
        return self.opener.trace(file, *self._loaded, inputs)

    def read_weights(self) -> ReadWeights:
        """Return the values of the attached model's weights, by the spec's names."""
        fixed = {n: p.total(self.model.read) for n, p in self.weights.constants.items()}
        statistics = {**self.weights.moved(self.model), **fixed}
        return {"parameters": self.weights.values(self.model), "statistics": statistics}

    def read_arrays(self) -> Tensors:
        """Return the float arrays of the attached model, by the model's own names."""
        arrays = {name: np.asarray(self.model.read(name)) for name in self.model.entries()}
        return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}

    def read_file(self, path: str) -> Tensors:
        """Return the arrays in a file of weights; see :meth:`OwnModel.read_file`."""
        return dict(self.model.read_file(Path(path)))

    def put_arrays(self, arrays: Arrays) -> None:
        """Set arrays of the attached model, by the model's own names."""
        self.model.put(arrays)

    def _load(self, path: str, name: str, parameters: str) -> ModelFile:
        file = ModelFile(Path(path), name, parameters)
        if self._file != file:
            self._loaded = file.load() if file.name else (None, None)
            self._file = file
        return file

    def attach(
        self,
        path: str,
        name: str,
        parameters: str,
        training: Any,
        inference: Any,
        dtype: str,
        device: str,
        maps: Sequence[str] = (),
        takes: Sequence[str] = (),
        returns: Sequence[str] = (),
        execution: str = "native",
    ) -> AttachedModel:
        """Make the model and find the spec's weights in it; describe the model and the weights.
        ``execution`` is the path on which the model runs."""
        file = self._load(path, name, parameters)
        if isinstance(self.served, Backend):
            self.served.use(device, host_dtype(dtype))
        self.dtype = host_dtype(dtype)
        self.training, self.inference = decode(training), decode(inference)
        self.rules = rules = read_rules(maps)
        expected = expected_arrays(self.training, rules)
        model = self.opener.open(file, *self._loaded, self.training.sizes, expected)
        self.model: OwnModel = model.on_path(execution, dtype)
        backend = self.served if isinstance(self.served, Backend) else None
        natives = {} if backend is None else claims(backend, self.training, "training")
        sides = Sides(self.training, natives, self.model.entries(), rules, self.model.spelled)
        self.weights: ModelWeights = find_weights(sides)
        self.noise = tuple(port.name for port in noise_ports(self.training))
        self.placing: Placing = placing(self.inference, self.model.takes, takes, self.noise)
        self.results = Results(self.training, self.inference, tuple(returns))
        return {
            "label": self.model.label,
            "weights": self.weights.described(),
            "kept": list(self.weights.kept),
            "takes": list(self.placing.names),
            "differentiates": self.model.differentiates,
            "trains": self.model.trains,
        }

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        """Copy the spec's parameters and statistics into the model."""
        self.weights.put(self.model, parameters, statistics)

    def forward(
        self, phase: str, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> Tensors:
        """Return the model's results by the spec's names; in training also its statistics."""
        arguments, shapes = self._call_arguments(inputs, state)
        naming = self._make_naming(shapes)
        training = phase == "training"
        with self._replace_noise(inputs, training):
            results = self._run_user_code(
                lambda: self.model.run(arguments, self.placing, naming, training)
            )
        moved = self.weights.moved(self.model) if training else {}
        statistics = {f"statistics.{name}": array for name, array in moved.items()}
        return self._check_dtypes({**results, **statistics})

    def modules(self, inputs: Arrays, state: Arrays) -> RecordedModules:
        """Run a forward pass, and return the calls of the model's modules.

        ``weights`` are the spec's weights that each module owns. ``named`` are the modules that
        ``--map`` names for a whole layer of the spec.
        """
        arguments, _ = self._call_arguments(inputs, state)
        recorder = Recorder(self.model.to_array)
        self._run_user_code(lambda: self.model.record(recorder, arguments, self.placing))
        weights: dict[str, list[str]] = {}
        for name, keys in self.weights.keys().items():
            for module in {m: None for key in keys for m in self.model.modules_with(key)}:
                weights.setdefault(module, []).append(name)
        calls = [call for call in recorder.calls if call["end"] >= 0]
        modules = {call["module"] for call in calls}
        layers = {call_key(node) for node in self.inference.calls}
        chosen = {layer: renamed(layer, self.rules) for layer in layers}
        return {
            "arrays": recorder.arrays,
            "calls": calls,
            "weights": weights,
            "named": {k: text for k, (text, rule) in chosen.items() if rule and text in modules},
        }

    def narrow_places(self, inputs: Arrays, state: Arrays) -> list[str]:
        """Return the places of the code that compute in a dtype narrower than float64."""
        arguments, _ = self._call_arguments(inputs, state)
        return self._run_user_code(  # type: ignore[no-any-return]
            lambda: self.model.narrow_places(arguments, self.placing)
        )

    def gradients(
        self, phase: str, inputs: Arrays, state: Arrays, targets: Arrays, cotangents: Arrays
    ) -> Gradients:
        """Return ``results``, and ``gradients`` of their inner product with ``cotangents``."""
        results, gradients = self._differentiate(inputs, state, cotangents, phase == "training")
        noise = {f"input.{name}" for name in self.noise}
        crossing = {
            n: a for n, a in gradients.items() if n in self.placing.names and n not in noise
        }
        return {
            "results": self._check_dtypes(results),
            "gradients": self.weights.take(gradients) | crossing,
        }

    def use_optimizer(self, rule: Any) -> str:
        """Use the framework's own optimizer for a rule, from its first step on. Return its name; ""
        if there is none."""
        backend = self.served if isinstance(self.served, Backend) else None
        optimizer = backend.claim_optimizer(decoded(rule).by_meaning()) if backend else None
        if backend is None or optimizer is None:
            return ""
        self.steps = ModelSteps(backend, optimizer)
        return optimizer.label

    def train(
        self, inputs: Arrays, state: Arrays, cotangents: Arrays, learning_rate: float
    ) -> Tensors:
        """Make one optimizer step of the attached model, with the gradients of its results along
        ``cotangents``. Return the new weights by the spec's names."""
        _, gradients = self._differentiate(inputs, state, cotangents, True)
        self.steps.advance(self.model, gradients, learning_rate)
        return self.steps.weights(self.model, self.weights, gradients)

    def _differentiate(
        self, inputs: Arrays, state: Arrays, cotangents: Arrays, training: bool
    ) -> tuple[ArrayDict, ArrayDict]:
        """Run the model; return its results by the spec's names, and all gradients by the model's
        names."""
        arguments, shapes = self._call_arguments(inputs, state)
        naming = self._make_naming(shapes)
        with self._replace_noise(inputs, training):
            found: tuple[ArrayDict, ArrayDict] = self._run_user_code(
                lambda: self.model.gradients(arguments, self.placing, naming, cotangents, training)
            )
        return found

    def _replace_noise(self, inputs: Arrays, training: bool) -> AbstractContextManager[None]:
        """Return a context in which the model uses the spec's noise that it does not accept, and
        draws no other random numbers."""
        if not training:
            return nullcontext()
        names = noise_in_order(self.training)
        own = [name for name in names if f"input.{name}" not in self.placing.names]
        laws = {port.name: port.init or {} for port in noise_ports(self.training)}
        keeps = [laws[name]["arguments"].get("keep") for name in own]
        noise = GivenNoise([inputs[name] for name in own], keeps)
        return self.model.with_noise(noise) if own or self.model.trains else nullcontext()

    def _run_user_code(self, work: Callable[[], Any]) -> Any:
        assert self._file is not None
        return run_user_code(self._file, CALLED, work)

    def _call_arguments(
        self, inputs: Arrays, state: Arrays
    ) -> tuple[ArrayDict, dict[str, tuple[int, ...]]]:
        """Return the arguments of the call by name, and the expected shape of every result."""
        program = self.inference
        own = {port.name: inputs[port.name] for port in program.inputs}
        bound = check_batch(program, {"input": own, "state": state})
        noise = {name: inputs[name] for name in self.noise if name in inputs}
        every: ArrayDict = {f"input.{n}": np.asarray(a) for n, a in {**own, **noise}.items()}
        every |= {f"state.{n}": np.asarray(a) for n, a in state.items()}
        sizes = {**program.sizes, **bound}
        shapes = {
            name: resolve_shape(program.types[value].shape, sizes)
            for name, value in result_ports(program, "forward").items()
        }
        return {name: every[name] for name in self.placing.names}, shapes

    def _make_naming(self, shapes: Mapping[str, tuple[int, ...]]) -> Naming:
        def named(returned: Any) -> dict[str, Any]:
            found = self.results.named(returned)
            for name, tensor in found.items():
                if not isinstance(tensor, self.model.tensor):
                    raise UsageError(
                        f"{name.removeprefix('output.')} is {type(tensor).__name__} in the model: "
                        f"return a {self.model.tensor.__name__}"
                    )
                self._check_dtype(name, tensor.dtype)
            return {n: self.model.shaped(n, t, shapes[n]) for n, t in found.items()}

        return named

    def _check_dtypes(self, results: Mapping[str, Array]) -> ArrayDict:
        for name, array in results.items():
            self._check_dtype(name, array.dtype)
        return dict(results)

    def _check_dtype(self, name: str, dtype: Any) -> None:
        """Raise :class:`UsageError` if a tensor has floats of another dtype than the session's."""
        dtype_name = getattr(dtype, "name", str(dtype).rpartition(".")[2])
        if "float" in dtype_name and dtype_name != self.dtype:
            other = f", or use --dtype {dtype_name}" if dtype_name in self.opener.dtypes else ""
            raise UsageError(
                f"{name.removeprefix('output.')} is {dtype_name} in the model, expected "
                f"{self.dtype}: compute in the dtype of the weights and inputs{other}"
            )


def handler(backend: Backend) -> Callable[[str, Payload], Any]:
    """Return the service that answers calls to the worker of a backend."""
    return OwnModelService(backend.name, backend)


def of_format(name: str) -> OwnModelService:
    """Return the service that answers calls to the process of a format."""
    return OwnModelService(name, load_format(name))
