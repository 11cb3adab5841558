"""A user's model whose exported file runs in its place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.arrays import ArrayDict, Arrays
from harness.runtime import plugins
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.own_model.contract import ModelArray, ModelFile, Naming, OwnModel, Placing

# A function that writes the model, for inputs of these shapes, to a file.
Exporter = Callable[[Path, Arrays, Placing], None]


class ExportedModel(OwnModel):
    """A model that is exported to a file, which the file's format runs. The model is exported again
    for each set of weights and shapes.

    Args:
        model: The model, which has the weights.
        format_: The name of the file's format, e.g. ``onnx``.
        export: A function that writes the file.
    """

    differentiates = False

    def __init__(self, model: OwnModel, format_: str, export: Exporter) -> None:
        self.model, self._format, self._export = model, format_, export
        self.label = f"{model.label} (exported to {format_})"
        self.takes, self.spelled = model.takes, model.spelled
        self._runs: dict[Any, OwnModel] = {}

    def entries(self) -> Mapping[str, ModelArray]:
        return self.model.entries()

    def read(self, name: str) -> Any:
        return self.model.read(name)

    def put(self, arrays: Arrays) -> None:
        self.model.put(arrays)
        self._runs.clear()

    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        shapes = tuple((name, array.shape) for name, array in given.items())
        if shapes not in self._runs:
            self._runs[shapes] = self._open(given, placing)
        return self._runs[shapes].run(given, placing, naming, training)

    def _open(self, given: Arrays, placing: Placing) -> OwnModel:
        """Export the model and open the file."""
        own_models = load_format(self._format).own_models()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model.{self._format}"
            self._export(path, given, placing)
            opened: OwnModel = own_models.open(ModelFile(path), None, None, {}, {})
        return opened


def load_format(name: str) -> Any:
    """Return the plugin of a file format.

    Raises:
        HarnessError: the format is not installed, or its plugin is broken.
    """
    kind = plugins.PluginKind(
        "format", FORMATS_GROUP, plugins.UnknownBackend, plugins.BrokenBackend
    )
    return kind.load(name, "harness_format")
