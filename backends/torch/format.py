"""The format ``torch``: weights as a state_dict, and a Python module that loads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.extend import Array, Arrays, Program, UsageError, hookimpl
from harness.extend.executor import Layout
from harness.extend.formats import (
    Exported,
    Format,
    Script,
    archive,
    bytes_of,
    read_arrays,
    reading,
    run_file,
    whole,
)
from harness.extend.program import index_names
from harness.extend.source import literals, vetted

from .archive import tensors

if TYPE_CHECKING:
    import torch


class TorchFormat(Format):
    """The implementation of the format ``torch``: ``NAME.pt`` and ``NAME.py``."""

    name = "torch"
    suffix = ".pt"

    def write(self, exported: Exported, path: Path) -> list[Path]:
        from .module import Writer
        from .primitives_export import WORDS

        module = path.with_suffix(".py")
        source = vetted(Writer(exported, module.name).source(), WORDS, module.name)
        layout, keys = _layout(exported.training)
        arrays = {**layout.pack(exported.parameters), **exported.statistics}
        state = {keys[name]: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        # Pass an open file: if torch got a path, it would store the temporary name in the archive.
        with whole(path) as new, new.open("wb") as file:
            torch.save(state, file)
        with whole(module) as new:
            new.write_text(source, encoding="utf-8")
        return [path, module]

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        layout, keys = _layout(training)
        shapes = {n: a.shape for n, a in layout.pack(_empty(training)).items()}
        shapes |= {port.name: training.shape(port) for port in training.statistics}
        expected_shapes = {key: shapes[name] for name, key in keys.items()}
        hint = "write one with torch.save(model.state_dict(), FILE)"
        with reading(path, "a state_dict", hint), archive(path, "a state_dict") as parts:
            integers = {keys[name] for name in index_names(training)}
            arrays = read_arrays(
                path, tensors(parts, bytes_of(expected_shapes)), expected_shapes, integers
            )
        packed = {name: arrays[key] for name, key in keys.items()}
        for name in sorted(layout.frozen):
            if np.any(packed[name] != 0):
                raise UsageError(
                    f"{path}: {keys[name]} is not zero, but {training.name} has one bias "
                    "here; add these values to the layer's other bias, and set them to zero"
                )
        statistics = {port.name: packed.pop(port.name) for port in training.statistics}
        return layout.unpack(packed), statistics

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        from .primitives_export import WORDS

        weights = torch.load(path, map_location="cpu", weights_only=True)
        file = run_file(path.with_suffix(".py"), WORDS)
        classes = [c for c in vars(file).values() if isinstance(c, type)]
        model = [c for c in classes if issubclass(c, torch.nn.Module)][-1]()
        model.load_state_dict(weights)
        model.eval()
        dtype = next((p.dtype for p in model.parameters()), torch.float32)

        def tensor(array: Array) -> Any:
            converted = torch.from_numpy(np.array(array))
            return converted.to(dtype) if converted.is_floating_point() else converted

        arguments = [tensor(inputs[name]) for name in file.INPUTS]
        with torch.no_grad():
            if file.STATE:
                results, after = model(*arguments, {n: tensor(state[n]) for n in file.STATE})
            else:
                results, after = model(*arguments), {}
        by_name = {f"output.{n}": t for n, t in results.items()}
        by_name |= {f"state.{n}": t for n, t in after.items()}
        return {n: np.array(t.detach().numpy()) for n, t in by_name.items()}

    def script(self, path: Path, exported: Exported, gradients: Arrays) -> Script:
        from .module import Writer
        from .primitives_export import SCRIPT, WORDS

        module = path.with_suffix(".py")
        writer = Writer(exported, module.name)
        words = {"weights": literals.text(path.name), "dtype": exported.dtype}
        layout, keys = _layout(exported.training)
        packed = {n: a for n, a in layout.pack(gradients).items() if n not in layout.frozen}
        return Script(
            vetted(writer.source(), WORDS, module.name),
            SCRIPT.format(model=writer.name, **words),
            {keys[name]: array for name, array in packed.items()},
            tuple(writer.natives),
        )

    def versions(self) -> Mapping[str, str]:
        return {**super().versions(), "torch": str(torch.__version__)}


def _layout(training: Program) -> tuple[Layout, dict[str, str]]:
    """Return two things: how torch's tensors correspond to the spec's parameters, and a dictionary
    from the name of a tensor (e.g. ``rnn/weight_ih_l0``) or statistic to its key in the state_dict.
    """
    from .module import native_layers

    layout = Layout(training, {key: native for key, (_, native) in native_layers(training).items()})
    names = [*layout.plain, *(port.name for port in training.statistics)]
    for instance, packing in layout.claimed.items():
        names += [f"{instance}/{piece}" for piece in packing.pieces]
    return layout, {name: _key(name) for name in names}


def _key(name: str) -> str:
    """Return the key in the state_dict for the name of a parameter (``blocks.0.up.W``) or of a
    torch tensor that holds parameters (``blocks.0.up/weight``)."""
    from .module import attribute_name

    owner, _, local = name.rpartition("/" if "/" in name else ".")
    return f"{attribute_name(owner)}.{attribute_name(local)}"


def _empty(training: Program) -> dict[str, Array]:
    return {p.name: np.zeros(training.shape(p), np.float32) for p in training.parameters}


@hookimpl
def harness_format(name: str) -> Format:
    # Import it here, because listing formats must be fast.
    global torch
    import torch

    return TorchFormat()
