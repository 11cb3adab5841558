"""The format ``keras``: a ``.keras`` file that ``keras.models.load_model`` opens on any engine
(TensorFlow, torch or JAX).

The file contains a functional model whose layers have the names of the spec. The model accepts any
batch size and sequence length, and returns a dict of outputs. A state is an input and an output
named ``state.NAME``. Layers that Keras does not have are in a module NAME.py next to NAME.keras.
The module imports only keras, and must be imported before the model is loaded.

Use float64 weights on TensorFlow only. Keras on torch rounds products to float32. Keras on JAX
rounds tanh to float32, so loops fail with an error. float32 weights work on all engines. The file
``harness.json`` in the archive has the model's name, the vocabulary and other facts about the
weights; Keras ignores this file.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.extend import Array, Arrays, Program, UsageError, hookimpl, shorten
from harness.extend.formats import (
    DESCRIBED,
    Archive,
    Damaged,
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
from harness.extend.program import index_names, local_of, owner_of
from harness.extend.source import document, literals, vetted

from .archive import (
    PARTS,
    declare_variables,
    instances,
    is_stored,
    layers,
    spec_of,
    text,
    variables,
)
from .backend import harness_environment
from .primitives_export import WORDS
from .source import DIFFERENTIATED, PLAIN, SCRIPT

NOTES = "harness.json"
SHARED = re.compile(r'("shared_object_id": )(\d+)\b')
# The date in every saved file, in Keras' format.
SAVED = "1980-01-01@00:00:00"
# The first line of modules that this format has written and may overwrite.
HEAD = "What {} needs and Keras itself does not have."


class KerasFormat(Format):
    """The implementation of the format ``keras``."""

    suffix = ".keras"

    def __init__(self, name: str) -> None:
        for variable, value in harness_environment(name).items():
            os.environ.setdefault(variable, value)
        self.name = name
        self.keras = import_module("keras")
        self.engine = self.keras.backend.backend()
        self.models = import_module("harness.backends.keras.model")
        self.backend = self.models.Claims(name, self.engine)

    def versions(self) -> Mapping[str, str]:
        return {n: version(n) for n in ("keras", self.engine, "numpy")}

    def doubt(self, dtype: str) -> str:
        if dtype != "float64" or self.engine == "tensorflow":
            return ""
        return (
            f"on {self.engine}, Keras rounds float64 values to float32 "
            "(https://github.com/keras-team/keras/issues/23704): export with "
            "KERAS_BACKEND=tensorflow, or export float32 weights; every engine loads the file"
        )

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
            _finish(new, notes)
        return files

    def _check_module(self, spec: str, module: Path) -> None:
        """Check that the file ``module`` (Python source next to the weights file) may be written,
        and that its name can be imported.

        Raises:
            UsageError: the name cannot be imported, or another program wrote the module.
        """
        if not module.stem.isidentifier():
            raise UsageError(
                f"{spec} needs a Python module beside its .keras file, and {module.name} cannot "
                "be imported; choose a name of letters, digits and _ that begins with a letter"
            )
        if module.exists() and not _was_exported(module):
            raise UsageError(
                f"{spec} needs a Python module beside its .keras file, but {module} exists and "
                "was not written by an export; choose another name"
            )

    def _fill(self, built: Any, exported: Exported) -> None:
        arrays = {**exported.parameters, **exported.statistics}
        unused = [o for o in dict.fromkeys(map(owner_of, arrays)) if o not in built.layers]
        if unused:
            raise UsageError(
                f"{exported.spec} cannot become a Keras model: no output depends on {unused[0]}"
                ", and a Keras model has only layers that an output needs; make an output of "
                f"{unused[0]} with an equation (such as kept = 1 * weights), or export to "
                "torch, jax or onnx"
            )
        for instance, packed in self._pack(built, arrays):
            for variable in built.layers[instance].weights:
                # Skip the random seed of a recurrent layer, which is never used.
                if variable.name in packed:
                    variable.assign(packed[variable.name])

    def _pack(self, built: Any, arrays: Arrays) -> Iterator[tuple[str, dict[str, Array]]]:
        """Yield each layer of the spec, and its arrays by the names of Keras' variables."""
        for instance in dict.fromkeys(map(owner_of, arrays)):
            own = {local_of(n): a for n, a in arrays.items() if owner_of(n) == instance}
            native = built.natives.get(instance)
            yield instance, {**own, **native.packing.pack(own)} if native else own

    def script(self, path: Path, exported: Exported, gradients: Arrays) -> Script:
        module = path.with_suffix(".py")
        text = "import keras\n"
        if module.is_file():
            text = vetted(module.read_text(encoding="utf-8"), WORDS, module.name)
        layers = tuple(self.models.claimed(self.backend, exported.inference))
        weights = literals.text(path.name)
        if self.engine != "tensorflow":
            return Script(text, SCRIPT.format(weights=weights, **PLAIN), layers=layers)
        built = self.models.build(self.backend, exported.inference, exported.dtype)
        packed = {
            f"{built.layers[instance].name}/{name}": array
            for instance, own in self._pack(built, gradients)
            for name, array in own.items()
            if name in {v.name for v in built.layers[instance].trainable_weights}
        }
        source = SCRIPT.format(weights=weights, **DIFFERENTIATED)
        return Script(f"{text}import tensorflow as tf\n", source, packed, layers)

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        with _open(path) as parts:
            config = text(parts, "config.json")
            spec = spec_of(parts, NOTES)
            if spec not in (None, training.name):
                raise UsageError(f"{path} has weights of {spec}, not of {training.name}")
            built = self.models.build(self.backend, training, _dtype(config))
            expected_shapes = {
                f"{key}/{variable.name}": tuple(variable.shape)
                for key in instances(training)
                for variable in built.layers[key].weights
                if is_stored(variable, key, training)
            }
            integers = {f"{owner_of(name)}/{local_of(name)}" for name in index_names(training)}
            _check_known(path, config, built.module.defined)
            with variables(parts, bytes_of(expected_shapes)) as file:
                declared = declare_variables(path, training, built, layers(config), file)
                tensors = read_arrays(path, declared, expected_shapes, integers)
        by_name: dict[str, Array] = {}
        for key in instances(training):
            local = {n.partition("/")[2]: a for n, a in tensors.items() if n.startswith(f"{key}/")}
            native = built.natives.get(key)
            shapes = {
                local_of(p.name): training.shape(p)
                for p in (*training.parameters, *training.statistics)
                if owner_of(p.name) == key
            }
            if native:
                local = {**local, **native.packing.unpack(local, shapes)}
            by_name.update({f"{key}.{n}": local[n] for n in shapes})
        return (
            {p.name: by_name[p.name] for p in training.parameters},
            {p.name: by_name[p.name] for p in training.statistics},
        )

    def _load(self, path: Path) -> Any:
        """Load a file of this format with Keras, which creates all objects that the file names.

        Raises:
            UsageError: Keras cannot load the file.
        """
        try:
            return self.keras.models.load_model(path, compile=False)
        # Keras may raise any exception if a file is damaged or comes from another program.
        except Exception as error:
            # Keras wraps the errors of inner objects. Only the innermost error is informative.
            cause = shorten(str(error).rpartition("Exception encountered: ")[2], 300)
            raise UsageError(
                f"Keras {version('keras')} cannot load {path}: {type(error).__name__}: {cause}"
            ) from error

    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        with _open(path) as parts:
            config = text(parts, "config.json", 4 * DESCRIBED)
        self.backend.use("cpu", _dtype(config))
        module = path.with_suffix(".py")
        # Remove objects that this process has registered, so that the module's objects are used.
        self.keras.saving.get_custom_objects().clear()
        if _registered(config):
            run_file(module, WORDS)
        model = self._load(path)
        inputs_by_name = {**inputs, **{f"state.{n}": a for n, a in state.items()}}
        arrays = {t.name: np.asarray(inputs_by_name[t.name], t.dtype) for t in model.inputs}
        results = model(arrays if len(arrays) > 1 else next(iter(arrays.values())))
        to_numpy = self.keras.ops.convert_to_numpy
        return {
            n if n.startswith("state.") else f"output.{n}": np.array(to_numpy(t))
            for n, t in results.items()
        }


def _finish(path: Path, notes: Mapping[str, Any]) -> None:
    """Add ``notes`` (the file ``harness.json``) to a saved archive, and make its bytes the same in
    every export: the date is replaced by a constant, and the ids of shared objects (memory
    addresses) by counters."""
    with zipfile.ZipFile(path) as saved:
        parts = {name: saved.read(name) for name in saved.namelist()}
    known = json.loads(parts["metadata.json"])
    parts["metadata.json"] = json.dumps({**known, "date_saved": SAVED}).encode()
    seen: dict[str, str] = {}
    config = parts["config.json"].decode()
    numbered = SHARED.sub(lambda m: m[1] + seen.setdefault(m[2], str(len(seen) + 1)), config)
    parts["config.json"] = numbered.encode()
    parts[NOTES] = json.dumps(notes, sort_keys=True).encode()
    with zipfile.ZipFile(path, "w") as finished:
        for name, content in parts.items():
            # ZipInfo uses a constant date (1980) by default.
            finished.writestr(zipfile.ZipInfo(name), content)


def _module_text(path: Path, texts: Mapping[str, str]) -> str:
    told_of = [
        HEAD.format(literals.name_text(path.name)),
        "",
        f"Import it before keras.models.load_model({literals.text(path.name)}).",
    ]
    head = [*document.docstring(told_of), "", "import keras", "from keras import ops", ""]
    source = "\n\n".join(["\n".join(head), *texts.values()])
    return vetted(source, WORDS, path.with_suffix(".py").name)


def _was_exported(module: Path) -> bool:
    start, end = f'"""{HEAD}'.split("{}")
    line = module.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return line.startswith(start) and line.endswith(end)


@contextmanager
def _open(path: Path) -> Iterator[Archive]:
    hint = "it is an archive that model.save('NAME.keras') writes"
    with reading(path, "a .keras file", hint), archive(path, "a .keras file") as parts:
        missing = [name for name in PARTS if name not in parts.names]
        if missing:
            raise Damaged(f"it has no {' and no '.join(missing)}")
        yield parts


def _dtype(config: str) -> str:
    return "float64" if '"float64"' in config else "float32"


def _registered(config: str) -> dict[str, str]:
    """Return a dictionary of the custom objects in a configuration, from registered name to plain
    name."""
    names = re.findall(r'"(?:registered_name|config)": "([^"]*>[^"]*)"', config)
    return {name: name.rpartition(">")[2] for name in names}


def _check_known(path: Path, config: str, defined: Mapping[str, Any]) -> None:
    """Check that every custom object in a configuration is in ``defined``, the objects that this
    format defines.

    Raises:
        UsageError: the configuration has an object that this format does not define.
    """
    unknown = [name for name in _registered(config).values() if name not in defined]
    if unknown:
        raise UsageError(
            f"{path} has {', '.join(map(shorten, unknown))}, which neither Keras nor "
            "an export of this model defines"
        )


@hookimpl
def harness_format(name: str) -> Format:
    return KerasFormat(name)
