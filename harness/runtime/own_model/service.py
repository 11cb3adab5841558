"""The verbs of a worker that runs a model of a user's: described, attached, given weights, run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError
from harness.program.dims import resolve_shape
from harness.program.ir import Program
from harness.program.serial import decode
from harness.program.signature import check_batch, noise_ports, result_ports
from harness.runtime import plugins
from harness.runtime.answers import AttachedModel, DescribedModel, Gradients, Tensors
from harness.runtime.backend import Backend
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.layout import claims
from harness.runtime.native import Native
from harness.runtime.own_model.contract import ModelArray, OwnModel, OwnModels, Placing
from harness.runtime.own_model.matching import Matching, ModelWeights
from harness.runtime.own_model.renames import Rename, renamed
from harness.runtime.own_model.results import Results, placing
from harness.runtime.own_model.sides import Sides
from harness.runtime.own_model.source import ModelFile, told

Payload = dict[str, Any]
CALLED = "raised as it was called"


class OwnModelService:
    """Holds one model of a user's. Every verb takes and gives plain data, as those of a backend's
    session do.

    Args:
        name: Of the backend or the format, for messages.
        served: The backend; or a format, which has ``own_models`` too.
    """

    def __init__(self, name: str, served: Any) -> None:
        self.name, self.served = name, served
        opener = served.own_models()
        if opener is None:
            raise UsageError(f"{name} runs no models of users; name another by --backend")
        self.opener: OwnModels = opener
        self._file: ModelFile | None = None
        self._loaded: tuple[Any, Any] = (None, None)

    def versions(self) -> Mapping[str, str]:
        """The versions for the greeting of the process."""
        return self.served.versions()  # type: ignore[no-any-return]

    def devices(self) -> Sequence[str]:
        """The devices for the greeting of the process."""
        return self.served.devices() if isinstance(self.served, Backend) else ("cpu",)

    def dtypes(self) -> Sequence[str]:
        """The dtypes that models run in."""
        return self.opener.dtypes

    def describe(
        self, path: str, name: str, parameters: str, sizes: Mapping[str, int]
    ) -> DescribedModel:
        """The ``sizes`` that the model takes any number for."""
        self._load(ModelFile(Path(path), name, parameters))
        return {"sizes": list(self.opener.sizes(*self._loaded, sizes))}

    def _load(self, file: ModelFile) -> None:
        if self._file != file:
            self._loaded = file.load() if file.name else (None, None)
            self._file = file

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
    ) -> AttachedModel:
        """Make the model, and find the spec's weights in it; says what was found."""
        file = ModelFile(Path(path), name, parameters)
        self._load(file)
        if isinstance(self.served, Backend):
            self.served.use(device, dtype)
        self.dtype = dtype
        self.training, self.inference = decode(training), decode(inference)
        rules = [Rename.of(text) for text in maps]
        sizes = self.training.sizes
        wanted = _wanted(self.training, rules)
        self.model: OwnModel = self.opener.open(file, *self._loaded, sizes, wanted)
        natives = self._natives()
        entries = self.model.entries()
        self.weights: ModelWeights = Matching(
            Sides(self.training, natives, entries, rules, self.model.spelled)
        ).weights()
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

    def _natives(self) -> dict[str, Native]:
        if not isinstance(self.served, Backend):
            return {}
        return claims(self.served, self.training, "training")

    def load(self, parameters: Arrays, statistics: Arrays) -> None:
        """Give the model the spec's parameters and statistics."""
        self.weights.put(self.model, parameters, statistics)

    def forward(
        self, phase: str, inputs: Arrays, state: Arrays, targets: Arrays | None = None
    ) -> Tensors:
        """What the model returns, by the names of the spec; in training its statistics too."""
        given, shapes = self._given(inputs, state)
        naming = self._naming(shapes)
        training = phase == "training"
        found = self._called(lambda: self.model.run(given, self.placing, naming, training))
        moved = self.weights.moved(self.model) if training else {}
        return self._checked({**found, **moved})

    def gradients(
        self, phase: str, inputs: Arrays, state: Arrays, targets: Arrays, cotangents: Arrays
    ) -> Gradients:
        """``results``, and ``gradients`` of their inner product with ``cotangents``."""
        given, shapes = self._given(inputs, state)
        naming, training = self._naming(shapes), phase == "training"
        results, found = self._called(
            lambda: self.model.gradients(given, self.placing, naming, cotangents, training)
        )
        noise = {f"input.{name}" for name in self.noise}
        crossing = {n: a for n, a in found.items() if n in given and n not in noise}
        return {"results": self._checked(results), "gradients": self.weights.take(found) | crossing}

    def _called(self, work: Callable[[], Any]) -> Any:
        assert self._file is not None
        return told(self._file, CALLED, work)

    def _given(self, inputs: Arrays, state: Arrays) -> tuple[ArrayDict, dict[str, tuple[int, ...]]]:
        """What the call takes, by name, and the shape of every result."""
        program = self.inference
        own = {port.name: inputs[port.name] for port in program.inputs}
        bound = check_batch(program, {"input": own, "state": state})
        noise = {name: inputs[name] for name in self.noise}
        every: ArrayDict = {f"input.{n}": np.asarray(a) for n, a in {**own, **noise}.items()}
        every |= {f"state.{n}": np.asarray(a) for n, a in state.items()}
        sizes = {**program.sizes, **bound}
        shapes = {
            name: resolve_shape(program.types[value].shape, sizes)
            for name, value in result_ports(program, "forward").items()
        }
        return {name: every[name] for name in self.placing.names}, shapes

    def _naming(self, shapes: Mapping[str, tuple[int, ...]]) -> Callable[[Any], dict[str, Any]]:
        def named(returned: Any) -> dict[str, Any]:
            found = self.results.named(returned)
            for name, tensor in found.items():
                if not isinstance(tensor, self.model.tensor):
                    raise UsageError(
                        f"{name.removeprefix('output.')} is {type(tensor).__name__} in the model: "
                        f"let it return a {self.model.tensor.__name__}"
                    )
                self._hold_dtype(name, tensor.dtype)
            return {n: self.model.shaped(n, t, shapes[n]) for n, t in found.items()}

        return named

    def _checked(self, results: Mapping[str, Array]) -> ArrayDict:
        for name, array in results.items():
            self._hold_dtype(name, array.dtype)
        return dict(results)

    def _hold_dtype(self, name: str, dtype: Any) -> None:
        """Raise :class:`UsageError` for floats of another dtype of any framework."""
        found = getattr(dtype, "name", str(dtype).rpartition(".")[2])
        if "float" in found and found != self.dtype:
            other = f", or ask for --dtype {found}" if found in self.opener.dtypes else ""
            raise UsageError(
                f"{name.removeprefix('output.')} is {found} in the model, asked for in "
                f"{self.dtype}: let it compute in the dtype of its weights and inputs{other}"
            )


def _wanted(program: Program, rules: Sequence[Rename]) -> dict[str, ModelArray]:
    """The spec's arrays under the names that the rules give them."""
    found = {}
    for port in (*program.parameters, *program.statistics):
        text, shape = renamed(port.name, rules)[0], program.shape(port)
        if text.endswith(".T"):
            text, shape = text.removesuffix(".T"), shape[::-1]
        found[text] = ModelArray(shape)
    return found


class Answering:
    """The service of a process, as its greeting and its calls want it."""

    def __init__(self, service: OwnModelService) -> None:
        self.name, self.versions = service.name, service.versions
        self.devices, self.dtypes = service.devices, service.dtypes
        self.service = service

    def __call__(self, verb: str, payload: Payload) -> Any:
        return getattr(self.service, verb)(**(payload or {}))


def handler(backend: Backend) -> Callable[[str, Payload], Any]:
    """What answers the calls that reach the worker of a backend."""
    return Answering(OwnModelService(backend.name, backend))


def of_format(name: str) -> Answering:
    """What answers the calls that reach the process of a format."""
    kind = plugins.PluginKind(
        "format", FORMATS_GROUP, plugins.UnknownBackend, plugins.BrokenBackend
    )
    return Answering(OwnModelService(name, kind.load(name, "harness_format")))
