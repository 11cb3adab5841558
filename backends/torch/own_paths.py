"""The paths of a user's module: torch.compile, autocast, and its export to ONNX."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from harness.extend import UsageError
from harness.extend.models import Placing

from . import cuda
from .compiled import missing_compiler

WAYS = {"compiled": "torch.compile", "autocast": "torch.autocast"}


def missing_parts() -> Mapping[str, str]:
    """Return the paths, each with the reason why it cannot run here, or an empty text."""
    # Each name is a literal, so the checksum of this backend's code can follow its imports.
    module_specs = {"onnx": find_spec("onnx"), "onnxruntime": find_spec("onnxruntime")}
    missing = [name for name, spec in module_specs.items() if spec is None]
    return {
        "native": "",
        "compiled": missing_compiler(),
        "autocast": "",
        "onnx": f"pip install {' '.join(missing)}" if missing else "",
    }


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a module or function that ``torch.compile`` compiles at its first call."""
    # Compile in this process.
    compiled_function: Callable[..., Any] = torch.compile(function, options={"compile_threads": 1})
    return compiled_function


def with_autocast(module: torch.nn.Module, device: Any, dtype: str) -> Callable[..., Any]:
    """Return a function that calls a module under autocast, and returns float32 tensors."""
    kind, narrow = torch.device(device).type, getattr(torch, dtype)

    def widened(value: Any) -> Any:
        is_narrow = isinstance(value, torch.Tensor) and value.dtype == narrow
        return value.float() if is_narrow else value

    def call(*arguments: Any, **keywords: Any) -> Any:
        # Disable autocast's cache: after an in-place update, it would have old parameters.
        with torch.autocast(kind, narrow, cache_enabled=False):
            returned = module(*arguments, **keywords)
        return tree_map(widened, returned)

    return call


def export_to_onnx(
    module: torch.nn.Module, path: Path, tensors: Mapping[str, torch.Tensor], placing: Placing
) -> None:
    """Write a module as an ONNX file, with inputs of the shapes of these tensors. torch's exporter
    of torch.export needs onnxscript; without it, the exporter of TorchScript runs.

    Raises:
        UsageError: torch cannot export the module.
    """

    modern = find_spec("onnxscript") is not None

    def export(*arguments: Any, **keywords: Any) -> None:
        bound = inspect.signature(module.forward).bind(*arguments, **keywords)
        cuda.unify_tf32()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                bound.args,
                path,
                kwargs=bound.kwargs or None,
                input_names=list(bound.arguments),
                dynamo=modern,
                external_data=False,
                verbose=False,
            )

    try:
        placing.call(export, tensors)
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        line = str(cause).strip().partition("\n")[0]
        hint = "; torch's newer exporter needs onnxscript: pip install onnxscript"
        raise UsageError(
            f"torch.onnx.export raised {type(cause).__name__}: {line}{'' if modern else hint}"
        ) from None
