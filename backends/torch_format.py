"""Weights as a state_dict of torch, with a module in Python source beside it that takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.convert.checked import check_arrays
from harness.convert.generated import run_file
from harness.errors import UsageError
from harness.formats import Array, Arrays, Exported, Format, whole
from harness.hookspecs import hookimpl
from harness.layout import Layout
from harness.program import Program

if TYPE_CHECKING:
    import torch


class TorchFormat(Format):
    """``NAME.pt``, a plain state_dict, and ``NAME.py``, source that imports torch alone."""

    name = "torch"
    suffix = ".pt"

    def write(self, exported: Exported, path: Path) -> list[Path]:
        from .torch_module import Writer

        layout, keys = _layout(exported.training)
        arrays = {**layout.pack(exported.parameters), **exported.statistics}
        state = {keys[name]: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        module = path.with_suffix(".py")
        # An open file: torch would keep the name of the new one inside it.
        with whole(path) as new, new.open("wb") as file:
            torch.save(state, file)
        with whole(module) as new:
            new.write_text(Writer(exported, module.name).source(), encoding="utf-8")
        return [path, module]

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        layout, keys = _layout(training)
        found = _load(path)
        shapes = {n: a.shape for n, a in layout.pack(_empty(training)).items()}
        shapes |= {port.name: training.shape(port) for port in training.statistics}
        check_arrays(path, found, {key: shapes[name] for name, key in keys.items()})
        packed = {name: found[key] for name, key in keys.items()}
        for name in sorted(layout.frozen):
            if np.any(packed[name] != 0):
                raise UsageError(
                    f"{path}: {keys[name]} is not zero, and {training.name} has one bias there; "
                    "add it to the other bias of that layer, and make it zero"
                )
        statistics = {port.name: packed.pop(port.name) for port in training.statistics}
        return layout.unpack(packed), statistics

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        file = run_file(path.with_suffix(".py"))
        classes = [c for c in vars(file).values() if isinstance(c, type)]
        model = [c for c in classes if issubclass(c, torch.nn.Module)][-1]()
        model.load_state_dict(weights)
        model.eval()
        dtype = next((p.dtype for p in model.parameters()), torch.float32)

        def tensor(array: Array) -> Any:
            made = torch.from_numpy(np.array(array))
            return made.to(dtype) if made.is_floating_point() else made

        given = [tensor(inputs[name]) for name in file.INPUTS]
        with torch.no_grad():
            if file.STATE:
                results, after = model(*given, {n: tensor(state[n]) for n in file.STATE})
            else:
                results, after = model(*given), {}
        found = {f"output.{n}": t for n, t in results.items()}
        found |= {f"state.{n}": t for n, t in after.items()}
        return {n: np.array(t.numpy()) for n, t in found.items()}

    def versions(self) -> Mapping[str, str]:
        return {**super().versions(), "torch": str(torch.__version__)}


def _layout(training: Program) -> tuple[Layout, dict[str, str]]:
    """Where parameters live, and the key of every packed tensor and statistic."""
    from .torch_layers import attribute, natives

    layout = Layout(training, natives(training))
    names = [*layout.plain, *(port.name for port in training.statistics)]
    for instance, packing in layout.claimed.items():
        names += [f"{instance}/{piece}" for piece in packing.pieces]
    keys = {n: ".".join(attribute(part) for part in n.replace("/", ".").split(".")) for n in names}
    return layout, keys


def _empty(training: Program) -> dict[str, Array]:
    return {p.name: np.zeros(training.shape(p), np.float32) for p in training.parameters}


def _load(path: Path) -> dict[str, Array]:
    """The arrays of a state_dict by key."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make the reader raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path} cannot be read as a state_dict: {reason}; write one with "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    if not isinstance(found, Mapping) or not all(
        isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in found.items()
    ):
        raise UsageError(
            f"{path} holds {_kind(found)}, not tensors by name; write one with "
            "torch.save(model.state_dict(), FILE)"
        )
    # numpy has no bfloat16; what reads the arrays allows float32 and float64 only.
    odd = [f"{k} is {t.dtype}" for k, t in found.items() if t.dtype == torch.bfloat16]
    if odd:
        raise UsageError(f"{path}: {odd[0]}; allowed are float32 and float64")
    return {key: np.array(tensor.detach().numpy()) for key, tensor in found.items()}


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        odd = {type(v).__name__ for v in value.values() if not isinstance(v, torch.Tensor)}
        return f"a dict with {', '.join(sorted(odd))}"
    return f"a {type(value).__name__}"


@hookimpl
def harness_format(name: str) -> Format:
    # Imported here and not above: listing formats must stay cheap.
    global torch
    import torch

    return TorchFormat()
