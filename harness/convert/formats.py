"""Formats of weights: each format converts weights of the harness to a framework's files, and back.

A Python package lists its formats in the entry-point group ``harness.formats``. An entry point is a
module that implements :class:`harness.runtime.hookspecs.Hooks`. A format is imported only in a
separate process (:func:`launch`), so the harness process never imports a framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.files.user_file import displayed
from harness.program.ir import Program
from harness.program.serial import decode, encode
from harness.program.signature import input_sizes, noise_ports
from harness.runtime import answers, plugins
from harness.runtime.answers import ReadWeights, Scripted
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.plugins import BrokenPlugin, Origin, PluginKind
from harness.worker.launch import Launch


class UnknownFormat(UsageError):
    """Error: no installed package has a format of this name."""


class BrokenFormat(BrokenPlugin):
    """Error: an installed format cannot be used. ``traceback`` is the traceback of the format's own
    code."""


@dataclass(frozen=True)
class Exported:
    """A model with its weights, which a format writes to a file.

    Attributes:
        spec: The name of the model, such as ``lesson6/stateful_lstm``.
        training: The training program, at the sizes of the weights.
        inference: The inference program, at the same sizes. The format writes this program.
        parameters: Arrays by their names in the spec (``rnn.W``), in the order of the model. They
            are C-contiguous, of shape ``training.shape(port)``, and all float32 or all float64.
        statistics: Moving means and variances. The rules for ``parameters`` apply to them too.
        vocabulary: The characters by index; () if they are not known.
        metadata: JSON data: the fingerprint (checksum) of the spec, and how the weights were made.
    """

    spec: str
    training: Program
    inference: Program
    parameters: Arrays
    statistics: Arrays
    vocabulary: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The dtype of all floats: float32 or float64."""
        arrays = [*self.parameters.values(), *self.statistics.values()]
        return next((str(a.dtype) for a in arrays if a.dtype.kind == "f"), "float32")

    def payload(self) -> dict[str, object]:
        """Return a dictionary with all fields, as JSON values and arrays that can be sent to a
        worker process."""
        return {
            "spec": self.spec,
            "training": encode(self.training),
            "inference": encode(self.inference),
            "parameters": dict(self.parameters),
            "statistics": dict(self.statistics),
            "vocabulary": list(self.vocabulary),
            "metadata": dict(self.metadata),
        }

    @staticmethod
    def of(payload: Mapping[str, Any]) -> Exported:
        """Rebuild the model from ``payload``, the result of :meth:`payload`, with the arrays in the
        order of the model. Sizes that only inputs have get no number, like batch and time.

        Arrays arrive in any order, but a format must write the same bytes for the same weights.
        """
        programs = decode(payload["training"]), decode(payload["inference"])
        free = input_sizes(programs[0])
        training, inference = (_without_sizes(program, free) for program in programs)
        parameters, statistics = payload["parameters"], payload["statistics"]
        return Exported(
            payload["spec"],
            training,
            inference,
            {port.name: parameters[port.name] for port in training.parameters},
            {port.name: statistics[port.name] for port in training.statistics},
            tuple(payload["vocabulary"]),
            payload["metadata"],
        )


def _without_sizes(program: Program, names: Collection[str]) -> Program:
    """Return the program without the numbers of these sizes, which are then free, like batch."""
    sizes = {name: size for name, size in program.sizes.items() if name not in names}
    return replace(program, sizes=sizes)


@dataclass(frozen=True)
class Script:
    """Source code that runs an exported model with its framework, without the harness.

    Attributes:
        module: The source of the model itself; "" if the weights file contains the whole model.
        source: The source of one function ``run(inputs, state, cotangents)``. It uses the names of
            ``module``, ``np`` and ``FOLDER``, the :class:`~pathlib.Path` of the files. It returns
            arrays by name: ``output.NAME`` and ``state.NAME``. ``cotangents`` has arrays by the
            same names; if there are any, ``run`` also returns ``gradient.KEY``, the gradients of
            the inner product of cotangents and results.
        gradients: The expected gradients by KEY; empty if ``run`` returns none.
        layers: The layers of the model (e.g. ``gru``) that ``run`` computes with the framework's
            own functions, as the backend does. ``run`` computes the equations of all other layers.
    """

    module: str
    source: str
    gradients: Arrays = field(default_factory=dict)
    layers: Collection[str] = ()


def fitted(training: Program, inference: Program) -> Program:
    """Return the program whose parameters and statistics have the same names as the arrays in a
    file of weights.

    This is the training program, unless the model has noise (e.g. dropout). With noise, the
    training program has additional inputs, so the inference program is returned.
    """
    return inference if noise_ports(training) else training


class Format(ABC):
    """A format of weights. Its instances live in a separate worker process.

    If a method raises :class:`UsageError`, the user sees its message. Any other exception is
    reported as a fault of the format, with its traceback.

    Attributes:
        name: The name of the entry point.
        suffix: The suffix of the file on the command line, such as ``.pt``.
    """

    name: str
    suffix: str

    @abstractmethod
    def write(self, exported: Exported, path: Path) -> list[Path]:
        """Write the model; write each file atomically (:func:`harness.files.atomic.whole`).

        Args:
            exported: The model to write.
            path: The target file. Its folder is new and empty. The user chose its name, which ends
                in :attr:`suffix`.

        Returns:
            The files, ``path`` first. All are in the folder of ``path``, and their names begin with
            the stem of ``path``. The same model gives the same bytes.

        Raises:
            UsageError: the model cannot be written in this format.
        """

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        """Read parameters and statistics from an untrusted file as data; never run the file.

        Args:
            path: A regular file, of any name and content.
            training: The program that the arrays must fit, from :func:`fitted`: the training
                program, or for a model with noise the inference program.

        Returns:
            Parameters and statistics by their names in the spec, one array per port, of shape
            ``training.shape(port)``: all float32 or all float64, with exactly the file's values.
            Constants that hold indices are int64.

        Raises:
            UsageError: the file is not of this format or model, or the format cannot be imported.
        """
        raise UsageError(f"format {self.name!r} can only be exported, not imported")

    @abstractmethod
    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        """Run the exported model with its framework alone, in the dtype of its weights.

        Args:
            path: The path given to :meth:`write` in the same process; the other files are next to
                it.
            inputs: Arrays by name, ``[batch, ...]``: int64 indices or float64 values. Batch and
                time change between calls.
            state: Arrays by name, ``[batch, ...]``, float64: the state before the first step.

        Returns:
            A dictionary with ``output.NAME`` for every output and ``state.NAME`` for every new
            state.
        """

    def doubt(self, dtype: str) -> str:
        """Explain why outputs in ``dtype`` may differ although nothing is wrong; "" if no reason is
        known.

        The text says what the framework does with the dtype, and what the user can do instead.
        """
        return ""

    def script(self, path: Path, exported: Exported, gradients: Arrays) -> Script:
        """Return source code that runs the exported model, for a bug report to the framework's
        authors.

        Args:
            path: The path given to :meth:`write`, in the same process and with the same model.
            exported: The model.
            gradients: The expected gradients by parameter name in the spec. The returned script has
                them by the framework's names.

        Returns:
            The sources. They contain text from the spec only as literals, as in an export.

        Raises:
            UsageError: the format writes no source code that runs its models.
        """
        raise UsageError(f"format {self.name!r} writes no source that runs its models")

    def own_models(self) -> Any:
        """Return the :class:`harness.extend.models.OwnModels` that runs users' own models, or None.

        ``harness check --against`` uses the result if no backend with the name of this format runs
        users' models.
        """
        return None

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the packages that write and run the files, by name; at most
        100."""
        return {"numpy": np.__version__}


FORMATS = PluginKind("format", FORMATS_GROUP, UnknownFormat, BrokenFormat)


def available() -> dict[str, Origin]:
    """Return a dictionary from format name to its package, for every installed format, sorted by
    name. No format is imported."""
    return plugins.available(FORMATS_GROUP)


def launch(name: str, **options: Any) -> Launch:
    """Return the settings with which the worker process of the format ``name`` is started.

    ``options`` are further fields of :class:`~harness.worker.launch.Launch`, e.g. ``python``.

    Raises:
        UnknownFormat: no format of this name is installed.
        BrokenFormat: two packages have a format of this name.
    """
    FORMATS.find(name)
    return Launch(name, handler="harness.convert.formats:handler", **options)


def load(name: str) -> Format:
    """Import format ``name`` and its framework.

    Raises:
        UnknownFormat: no format of this name is installed.
        BrokenFormat: its module or framework fails to import, or implements no hook.
    """
    format_: Format = FORMATS.load(name, "harness_format")
    return format_


class FormatService:
    """The methods of a format that the harness calls in the format's process. Arguments and results
    are JSON values and arrays, which can be sent between processes."""

    def __init__(self, format_: Format) -> None:
        self.format, self.name = format_, format_.name

    def __call__(self, verb: str, payload: dict[str, Any]) -> Any:
        return getattr(self, verb)(**(payload or {}))

    def versions(self) -> Mapping[str, str]:
        """Return the versions of libraries by name, which the process reports when it starts."""
        return self.format.versions()

    def suffix(self) -> str:
        """Return the suffix of the format's files, e.g. ``.pt``."""
        return self.format.suffix

    def write(self, exported: Mapping[str, Any], path: str) -> list[str]:
        """Write the model with :meth:`Format.write`, and return the paths of the files.

        ``exported`` is the result of :meth:`Exported.payload`.

        Raises:
            UsageError: the disk is full.
        """
        target = Path(path)
        try:
            return [str(file) for file in self.format.write(Exported.of(exported), target)]
        except Exception as error:
            full = _full_disk(error)
            if full is None:
                raise
            raise UsageError(f"cannot write {displayed(target.name)}: {full.lower()}") from None

    def doubt(self, dtype: str) -> str:
        """Return a text that explains why outputs in ``dtype`` may differ although nothing is
        wrong, from :meth:`Format.doubt`."""
        return self.format.doubt(dtype)

    def runs_alone(self) -> bool:
        """Return whether the format has scripts (:meth:`Format.script`)."""
        return type(self.format).script is not Format.script

    def script(self, exported: Mapping[str, Any], path: str, gradients: Arrays) -> Scripted:
        """Return the result of :meth:`Format.script` as a dictionary, e.g. ``{"module": ...,
        "source": ...}``."""
        script = self.format.script(Path(path), Exported.of(exported), gradients)
        return {
            "module": script.module,
            "source": script.source,
            "gradients": dict(script.gradients),
            "layers": list(script.layers),
        }

    def read(self, path: str, training: Any) -> ReadWeights:
        """Read a file with :meth:`Format.read`. Return a dictionary with two keys, ``parameters``
        and ``statistics``, each with arrays by name."""
        program: Program = decode(training)
        program = _without_sizes(program, input_sizes(program))  # as when the file was written
        parameters, statistics = self.format.read(Path(path), program)
        return {"parameters": parameters, "statistics": statistics}

    def outputs(self, path: str, inputs: Arrays, state: Arrays) -> answers.Arrays:
        """Return outputs and new state by name from :meth:`Format.outputs`."""
        return self.format.outputs(Path(path), inputs, state)


def _full_disk(error: BaseException | None) -> str | None:
    """Return the system's message that the disk is full, or None if it is not full. The message is
    found even if ``error`` is a later error that hides it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EFBIG):
            return error.strerror
        error = error.__cause__ or error.__context__
    return None


def handler(name: str) -> Callable[[str, dict[str, Any]], Any]:
    """Return the function that answers calls in the worker process of the format ``name``.

    Raises:
        UnknownFormat: no format of this name is installed.
        BrokenFormat: its module or framework fails to import, or implements no hook.
    """
    return FormatService(load(name))
