"""A user's own torch model: a module, a module class, or a function that returns a module."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from harness.extend import Array, ArrayDict, Arrays, UsageError
from harness.extend.formats import archive, bytes_of, reading
from harness.extend.models import (
    ExportedModel,
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
    check_arguments,
    made,
    names_taken,
    parameters_of,
    place_of,
    run_user_code,
    sizes_taken,
)

from .archive import tensors
from .model_noise import with_noise
from .own_paths import WAYS, compiled, export_to_onnx, missing_parts, with_autocast
from .trace import default_inputs, operators, trace_module

STATISTICS = {"moving_mean": "running_mean", "moving_variance": "running_var"}


class TorchModels(OwnModels):
    """The loader of torch models in a user's Python file."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def sizes(self, target: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        return () if isinstance(target, torch.nn.Module) else sizes_taken(target, sizes)

    def open(
        self,
        file: ModelFile,
        target: Any,
        parameters: Any,
        sizes: Mapping[str, int],
        expected: Mapping[str, ModelArray],
    ) -> OwnModel:
        return TorchModel(*self._module(file, target, sizes), self.backend)

    def _module(
        self, file: ModelFile, target: Any, sizes: Mapping[str, int]
    ) -> tuple[torch.nn.Module, torch.dtype]:
        """Return the user's module in the session's dtype, and the dtype."""
        if not file.name:
            raise UsageError(
                f"{file} is not a Python file: torch needs FILE.py:NAME, where NAME is a module, a "
                "module class, or a function that returns a module"
            )
        torch.manual_seed(0)
        dtype = torch.float64 if self.backend.double else torch.float32
        module = target
        if not isinstance(target, torch.nn.Module):
            if not callable(target):
                raise UsageError(
                    f"{file} is a {type(target).__name__}: name a torch.nn.Module, a module class, "
                    "or a function that returns a module"
                )
            with _default_dtype(dtype):
                module = made(file, file.name, target, sizes)
        if not isinstance(module, torch.nn.Module):
            raise UsageError(
                f"{file} returns {type(module).__name__}, not a torch.nn.Module: name a module, "
                "a module class, or a function that returns a module"
            )
        lazy = [n for n, p in module.named_parameters() if torch.nn.parameter.is_lazy(p)]
        if lazy:
            raise UsageError(
                f"{file} has parameters without a shape ({lazy[0]}): call the model once "
                "when you create it, so that its lazy modules get their shapes"
            )
        _return_no_cache(module)
        return module.to(self.backend.device, dtype), dtype

    def paths(self) -> Mapping[str, str]:
        return missing_parts()

    def operators(self) -> Collection[str]:
        return operators()

    def default_inputs(self, file: ModelFile, target: Any, parameters: Any) -> dict[str, str]:
        module, _ = self._module(file, target, {})
        return default_inputs(module)

    def trace(self, file: ModelFile, target: Any, parameters: Any, inputs: Arrays) -> TracedGraph:
        module, _ = self._module(file, target, {})
        takes = parameters_of(module.forward)
        if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            check_arguments(names_taken(module.forward), inputs)
        return run_user_code(
            file, "cannot be traced: torch.export", lambda: trace_module(module, inputs, file)
        )


def _return_no_cache(module: torch.nn.Module) -> None:
    """Let modules of transformers return no cache of keys and values for later calls: such a cache
    is an object and not a tensor, and adds nothing to the outputs."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if getattr(config, "use_cache", None) is True:
            config.use_cache = False  # type: ignore[union-attr]


class TorchModel(OwnModel):
    """A user's module, in the session's dtype and on the session's device."""

    trains = True
    tensor = torch.Tensor
    spelled = STATISTICS

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype, backend: Any) -> None:
        self.module, self.dtype, self.backend = module, dtype, backend
        self.label = f"torch.nn.Module {type(module).__name__}"
        # What runs in place of the module, e.g. the compiled module.
        self.function: Callable[..., Any] = module
        self.path = "native"
        self.takes = names_taken(module.forward)
        # A parameter that several modules share is listed only under its first name.
        self.trained = dict(module.named_parameters())
        self.tensors = {**self.trained, **dict(module.named_buffers())}

    def entries(self) -> Mapping[str, ModelArray]:
        return {n: ModelArray(tuple(t.shape), n in self.trained) for n, t in self.tensors.items()}

    def read(self, name: str) -> Array:
        return self.backend.numpy(self.tensors[name])

    def read_file(self, path: Path) -> ArrayDict:
        hint = "write one with torch.save(model.state_dict(), FILE)"
        size = bytes_of({n: tuple(t.shape) for n, t in self.tensors.items()})
        with reading(path, "a state_dict", hint), archive(path, "a state_dict") as parts:
            return {n: declared.load() for n, declared in tensors(parts, size).items()}

    def put(self, arrays: Arrays) -> None:
        with torch.no_grad():
            for name, array in arrays.items():
                self.tensors[name].copy_(torch.from_numpy(np.array(array)))

    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        returned = self._call(given, placing, training)
        return {n: self.backend.numpy(t) for n, t in naming(self._widened(returned)).items()}

    def with_noise(self, noise: GivenNoise) -> AbstractContextManager[None]:
        if self.path == "compiled" and noise.is_empty:
            return nullcontext()
        if self.path == "compiled":
            raise NoiseMisfit("torch.compile cannot use the spec's random numbers")
        return with_noise(noise)

    def _call(self, given: Arrays, placing: Placing, training: bool = False) -> Any:
        """Run a forward pass without gradients, and return what the module returns."""
        self.module.train(training)
        with torch.no_grad(), _default_dtype(self.dtype):
            return placing.call(self.function, self._tensors(given))

    def on_path(self, path: str, dtype: str) -> OwnModel:
        if path == "onnx":
            return ExportedModel(self, "onnx", self._export)
        if path == "compiled":
            self.function = compiled(self.module)
        elif path == "autocast":
            self.function = with_autocast(self.module, self.backend.device, dtype)
        if path != "native":
            self.label += f" ({WAYS[path]})"
        self.path = path
        return self

    def _export(self, path: Path, given: Arrays, placing: Placing) -> None:
        self.module.eval()
        export_to_onnx(self.module, path, self._tensors(given), placing)

    def _widened(self, returned: Any) -> Any:
        """Return what the module returns, with float32 in the session's dtype: a module may compute
        its last layers in float32."""
        return tree_map(
            lambda t: t.to(self.dtype) if getattr(t, "dtype", None) == torch.float32 else t,
            returned,
        )

    def modules_with(self, name: str) -> Collection[str]:
        tensor = self.tensors[name]
        return [
            module_name
            for module_name, module in self.module.named_modules()
            for own in (module._parameters, module._buffers)
            if any(each is tensor for each in own.values())
        ]

    def to_array(self, value: Any) -> Array | None:
        is_dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
        return self.backend.numpy(value.detach().clone()) if is_dense else None

    def record(self, recorder: Recorder, given: Arrays, placing: Placing) -> None:
        under_way: list[Any] = []

        def start(name: str, arguments: Any, keywords: Any) -> None:
            under_way.append(recorder.start(name, arguments, keywords))

        def finish(returned: Any) -> None:
            recorder.finish(under_way.pop(), returned)

        hooks = []
        for name, module in self.module.named_modules():
            before = partial(lambda name, _, *given: start(name, *given), name)
            hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(module.register_forward_hook(lambda _module, _given, out: finish(out)))
        # The fast path of torch's own encoders calls no submodules.
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            self._call(given, placing)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for hook in hooks:
                hook.remove()

    def narrow_places(self, given: Arrays, placing: Placing) -> list[str]:
        with _NarrowOperations() as operations:
            self._call(given, placing)
        return list(operations.places)

    def _tensors(self, given: Arrays) -> dict[str, torch.Tensor]:
        tensors = {
            n: torch.from_numpy(np.array(a)).to(self.backend.device) for n, a in given.items()
        }
        return {n: t.to(self.dtype) if t.is_floating_point() else t for n, t in tensors.items()}

    def gradients(
        self, given: Arrays, placing: Placing, naming: Naming, cotangents: Arrays, training: bool
    ) -> tuple[ArrayDict, ArrayDict]:
        self.module.train(training)
        tensors = self._tensors(given)
        leaves = {n: p.requires_grad_() for n, p in self.trained.items()}
        leaves |= {n: t.requires_grad_() for n, t in tensors.items() if t.is_floating_point()}
        with torch.enable_grad(), _default_dtype(self.dtype), _differentiable(training):
            results = naming(self._widened(placing.call(self.function, tensors)))
            directions = self._tensors({n: cotangents[n] for n in results})
            scalar = sum((results[n] * directions[n]).sum() for n in results)
            target = self.backend.gradients_of(scalar, leaves)
        arrays = {n: self.backend.numpy(t) for n, t in results.items()}
        return arrays, {n: self.backend.numpy(t) for n, t in target.items()}


# Operators whose derivative is a float32 number, also in float64: 1/6 (harness defaults).
NARROW_DERIVATIVES = frozenset({"hardsigmoid", "hardsigmoid_"})


class _NarrowOperations(TorchDispatchMode):
    """The places of the operations that return floats narrower than float64, or have such
    derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        narrow = getattr(returned, "dtype", None) in (torch.float32, torch.bfloat16, torch.float16)
        if narrow or func.overloadpacket.__name__ in NARROW_DERIVATIVES:
            stack = traceback.extract_stack()
            place = place_of((frame.filename, frame.lineno or 0) for frame in stack)
            self.places[place or str(func)] = None
        return returned


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype inside this context, for tensors that the user's code creates, e.g.
    masks."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _differentiable(training: bool) -> Iterator[None]:
    """Disable cuDNN inside this context unless ``training``: cuDNN cannot differentiate recurrent
    layers in evaluation mode."""
    was_enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = was_enabled and training
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = was_enabled
