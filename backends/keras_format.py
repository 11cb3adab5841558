"""Keras: a ``.keras`` file that ``keras.models.load_model`` opens on any of its engines.

A functional model of Keras' own layers, under the names of the spec, on inputs of any batch and
length. Its outputs are a dict; state comes in and goes out as ``state.NAME``. What Keras has no
layer for is in a module NAME.py beside NAME.keras, which imports nothing but keras and is to be
imported before the model is loaded. Keras computes float64 in float64 on TensorFlow only: on torch
products are rounded to float32, and on JAX so is tanh, where its loops then stop with an error;
weights of float32 are for all engines. The archive's ``harness.json`` has the model's name, the
vocabulary and what else is known of the weights; Keras leaves it alone.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.convert.generated import run_file
from harness.errors import UsageError, shorten
from harness.formats import Array, Arrays, Exported, Format, whole
from harness.hookspecs import hookimpl
from harness.program import Program

from .keras import harness_environment

NOTES = "harness.json"
PARTS = frozenset({"config.json", "model.weights.h5"})
# The first line of a module that this format wrote, and may write again.
HEAD = '"""What {} needs and Keras itself does not have.'
FLOATS = ("float32", "float64")


class KerasFormat(Format):
    """See the module."""

    suffix = ".keras"

    def __init__(self, name: str) -> None:
        for variable, text in harness_environment(name).items():
            os.environ.setdefault(variable, text)
        self.name = name
        self.keras = import_module("keras")
        self.engine = self.keras.backend.backend()
        self.models = import_module("harness.backends.keras_model")
        self.backend = self.models.Claims(name, self.engine)

    def versions(self) -> Mapping[str, str]:
        return {n: version(n) for n in ("keras", self.engine, "numpy")}

    def write(self, exported: Exported, path: Path) -> list[Path]:
        module = path.with_suffix(".py")
        built = self.models.build(self.backend, exported.inference, exported.dtype)
        self._fill(built, exported)
        files = [path]
        if built.module.texts:
            self._check_module(exported.spec, module)
            with whole(module) as new:
                new.write_text(_module_text(path, built.module.texts), encoding="utf-8")
            files.append(module)
        notes = {
            "spec": exported.spec,
            "vocabulary": list(exported.vocabulary),
            "metadata": dict(exported.metadata),
        }
        with whole(path) as new:
            built.model.save(new)
            with zipfile.ZipFile(new, "a") as archive:
                archive.writestr(NOTES, json.dumps(notes, ensure_ascii=False))
        return files

    def _check_module(self, spec: str, module: Path) -> None:
        """That a module may be written, and imported."""
        if not module.stem.isidentifier():
            raise UsageError(
                f"{spec} needs a Python module beside its .keras file, and {module.name} could not "
                "be imported; choose a name of letters, digits and _ that begins with a letter"
            )
        if module.exists() and not _is_ours(module):
            raise UsageError(
                f"{spec} needs a Python module beside its .keras file, but {module} is there and "
                "was not written by an export; choose another name"
            )

    def _fill(self, built: Any, exported: Exported) -> None:
        """Set the variables of a model's layers."""
        given = {**exported.parameters, **exported.statistics}
        for instance in dict.fromkeys(name.partition(".")[0] for name in given):
            own = {n.partition(".")[2]: a for n, a in given.items() if n.startswith(f"{instance}.")}
            if instance not in built.layers:
                raise UsageError(
                    f"{exported.spec} cannot become a Keras model: no output depends on {instance}"
                )
            native = built.natives.get(instance)
            packed = {**own, **native.packing.pack(own)} if native else own
            for variable in built.layers[instance].weights:
                # What is left over is the random seed of a recurrent layer, which is never used.
                if variable.name in packed:
                    variable.assign(packed[variable.name])

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        config = _config(path)
        _check_notes(path, training)
        built = self.models.build(self.backend, training, _dtype(config))
        model = self._load(path, _customs(path, config, built.module.defined))
        found: dict[str, Array] = {}
        for instance in dict.fromkeys(p.name.partition(".")[0] for p in training.parameters):
            wanted = built.layers[instance]
            layer = next((x for x in model.layers if x.name == wanted.name), None)
            if layer is None:
                raise UsageError(
                    f"{path} has no layer {wanted.name!r}, which holds {instance} of "
                    f"{training.name}; it has {', '.join(x.name for x in model.layers)}"
                )
            tensors = self._tensors(path, wanted, layer)
            native = built.natives.get(instance)
            shapes = {
                p.name.partition(".")[2]: training.shape(p)
                for p in (*training.parameters, *training.statistics)
                if p.name.startswith(f"{instance}.")
            }
            local = {**tensors, **native.packing.unpack(tensors, shapes)} if native else tensors
            found.update({f"{instance}.{n}": local[n] for n in shapes})
        return (
            {p.name: found[p.name] for p in training.parameters},
            {p.name: found[p.name] for p in training.statistics},
        )

    def _tensors(self, path: Path, wanted: Any, layer: Any) -> dict[str, Array]:
        """The variables of a layer, which are to be as those of ``wanted``."""
        to_numpy = self.keras.ops.convert_to_numpy
        tensors = {v.name: np.array(to_numpy(v)) for v in layer.weights}
        for variable in wanted.weights:
            shape, array = tuple(variable.shape), tensors.get(variable.name)
            is_float = str(variable.dtype) in FLOATS
            if is_float and (
                array is None or array.shape != shape or str(array.dtype) not in FLOATS
            ):
                found = f"{list(array.shape)} of {array.dtype}" if array is not None else "none"
                raise UsageError(
                    f"{path}: layer {layer.name!r} is to have {variable.name} of shape "
                    f"{list(shape)}, float32 or float64, as a {type(wanted).__name__} has; found "
                    f"{found} in a {type(layer).__name__}"
                )
        return tensors

    def _load(self, path: Path, customs: Mapping[str, Any]) -> Any:
        try:
            return self.keras.models.load_model(path, customs, compile=False)
        # Of any kind: what a damaged or foreign file sets off in Keras is not listed anywhere.
        except Exception as error:
            # Each object wraps the error of the one inside; the innermost says what is wrong.
            cause = shorten(str(error).rpartition("Exception encountered: ")[2], 300)
            raise UsageError(
                f"Keras {version('keras')} cannot load {path}: {type(error).__name__}: {cause}"
            ) from error

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        config = _config(path)
        self.backend.use("cpu", _dtype(config))
        module = path.with_suffix(".py")
        # What this process has written and read before is not to stand in for the module.
        self.keras.saving.get_custom_objects().clear()
        if _registered(config):
            run_file(module)
        model = self._load(path, {})
        given = {**inputs, **{f"state.{n}": a for n, a in state.items()}}
        arrays = {t.name: np.asarray(given[t.name], t.dtype) for t in model.inputs}
        results = model(arrays if len(arrays) > 1 else next(iter(arrays.values())))
        to_numpy = self.keras.ops.convert_to_numpy
        return {
            n if n.startswith("state.") else f"output.{n}": np.array(to_numpy(t))
            for n, t in results.items()
        }


def _module_text(path: Path, texts: Mapping[str, str]) -> str:
    """The module beside ``path``."""
    head = (
        f'{HEAD.format(path.name)}\n\nImport it before keras.models.load_model("{path.name}").\n'
        '"""\n\nimport keras\nfrom keras import ops\n'
    )
    return "\n\n".join([head, *texts.values()])


def _is_ours(module: Path) -> bool:
    start, end = HEAD.split("{}")
    line = module.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return line.startswith(start) and line.endswith(end)


def _config(path: Path) -> str:
    """The text of a file's configuration; UsageError if it is no ``.keras`` file."""
    if not path.is_file():
        raise UsageError(f"{path} cannot be read: there is no such file")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise UsageError(
            f"{path} is no .keras file, which is an archive that model.save('NAME.keras') writes"
        )
    with zipfile.ZipFile(path) as archive:
        missing = PARTS.difference(archive.namelist())
        if missing:
            raise UsageError(f"{path} is no .keras file: it has no {' and no '.join(missing)}")
        return archive.read("config.json").decode("utf-8", "replace")


def _check_notes(path: Path, program: Program) -> None:
    """That a file, if it says whose it is, is of this program. One saved anew by Keras does not."""
    with zipfile.ZipFile(path) as archive:
        if NOTES in archive.namelist():
            spec = json.loads(archive.read(NOTES))["spec"]
            if spec != program.name:
                raise UsageError(f"{path} is of {spec}, not of {program.name}")


def _dtype(config: str) -> str:
    return "float64" if '"float64"' in config else "float32"


def _registered(config: str) -> dict[str, str]:
    """What a configuration names that is not Keras' own: registered name -> name."""
    names = re.findall(r'"(?:registered_name|config)": "([^"]*>[^"]*)"', config)
    return {name: name.rpartition(">")[2] for name in names}


def _customs(path: Path, config: str, defined: Mapping[str, Any]) -> dict[str, Any]:
    """What this format defines for what a configuration names, by registered name."""
    names = _registered(config)
    unknown = [name for name in names.values() if name not in defined]
    if unknown:
        raise UsageError(
            f"{path} has {', '.join(unknown)}, which is neither Keras' own nor written by an "
            "export of this model"
        )
    return {registered: defined[name] for registered, name in names.items()}


@hookimpl
def harness_format(name: str) -> Format:
    return KerasFormat(name)
