"""Formats by name: each turns weights into what a framework's user expects, and back.

A distribution names its formats in the entry-point group ``harness.formats``; the entry point's
value is a module that implements :class:`harness.runtime.hookspecs.Hooks`. A format is listed
without being imported, and imported only in a process of its own (:func:`launch`): frameworks never
enter the parent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.files.user_file import displayed
from harness.program.ir import Program
from harness.program.serial import decode, encode
from harness.program.signature import noise_ports
from harness.runtime import answers, plugins
from harness.runtime.answers import ReadWeights, Scripted
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.plugins import BrokenPlugin, Origin, PluginKind
from harness.worker.launch import Launch


class UnknownFormat(UsageError):
    """No installed distribution names this format."""


class BrokenFormat(BrokenPlugin):
    """A format is installed and cannot be used; ``traceback`` is what its own code raised."""


@dataclass(frozen=True)
class Exported:
    """A model with its weights, as a format writes it.

    Attributes:
        spec: The name of the model, such as ``lesson6/stateful_lstm``.
        training: The program at that phase, in the sizes of the weights.
        inference: The program that is to be written, in the same sizes.
        parameters: By neutral name (``rnn.W``), in the model's own order. C-contiguous, of shape
            ``training.shape(port)``, float32 or float64, all of one dtype.
        statistics: Like them; moving means and such.
        vocabulary: The characters by index; () where they are not known.
        metadata: Plain JSON: the fingerprint of the spec, and how the weights came about.
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
        """The dtype of all arrays: float32 or float64."""
        every = [*self.parameters.values(), *self.statistics.values()]
        return str(every[0].dtype) if every else "float32"

    def payload(self) -> dict[str, object]:
        """All of it as plain data, for the way to a worker."""
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
        """The inverse of :meth:`payload`, with arrays in the model's own order: files of weights
        have them in any, and the same weights are to give the same bytes."""
        training = decode(payload["training"])
        parameters, statistics = payload["parameters"], payload["statistics"]
        return Exported(
            payload["spec"],
            training,
            decode(payload["inference"]),
            {port.name: parameters[port.name] for port in training.parameters},
            {port.name: statistics[port.name] for port in training.statistics},
            tuple(payload["vocabulary"]),
            payload["metadata"],
        )


@dataclass(frozen=True)
class Script:
    """How a written model is run by a script that has its framework, and nothing of the harness.

    Attributes:
        module: The source of the model itself; "" where the weights hold all of it.
        source: The source of one function ``run(inputs, state, cotangents)`` over what ``module``
            defines, ``np`` and ``FOLDER``, the :class:`~pathlib.Path` in which the files lie. It
            returns arrays by name: ``output.NAME``, ``state.NAME`` and, where there are cotangents
            by such names, ``gradient.KEY``: the gradients of their inner product with the results.
        gradients: The gradients that are expected, by KEY; none where ``run`` gives none.
        layers: The layers of the model, by instance, that ``run`` computes by the framework's own
            functions, as the backend does. It computes the equations of the others.
    """

    module: str
    source: str
    gradients: Arrays = field(default_factory=dict)
    layers: Collection[str] = ()


def fitted(training: Program, inference: Program) -> Program:
    """The program that the arrays of a file must fit: of a model with noise that of inference, as
    no file has noise."""
    return inference if noise_ports(training) else training


class Format(ABC):
    """One format. Instances live in a worker process of their own.

    A :class:`UsageError` that a method raises is told to the user as it is. Anything else is told
    as a fault of the format, with its traceback.

    Attributes:
        name: That of the entry point.
        suffix: That of the file that is named on the command line, such as ``.pt``.
    """

    name: str
    suffix: str

    @abstractmethod
    def write(self, exported: Exported, path: Path) -> list[Path]:
        """Write the model, each file whole (:func:`harness.files.atomic.whole`).

        Args:
            exported: What is written.
            path: Where. Its folder is new and empty; the name is the one that the user asked for,
                and ends in :attr:`suffix`.

        Returns:
            The files, ``path`` first. All lie in ``path``'s folder, and all names begin with its
            stem. The same model gives the same bytes.

        Raises:
            UsageError: the model cannot be written in this format.
        """

    def read(self, path: Path, training: Program) -> tuple[dict[str, Array], dict[str, Array]]:
        """Neutral parameters and statistics of a file of a stranger, read as data and never run.

        Args:
            path: A regular file, of any name and content.
            training: The program that the arrays must fit: that of training, but of a model with
                noise that of inference, which has the same parameters and statistics.

        Returns:
            By neutral name an array for every port, of shape ``training.shape(port)``: float32 or
            float64, all of one dtype, to the bit as the file has them.

        Raises:
            UsageError: the file is not of this format or model, or the format cannot be read back.
        """
        raise UsageError(f"format {self.name!r} is written only; it cannot be imported")

    @abstractmethod
    def outputs(self, path: Path, inputs: Arrays, state: Arrays) -> dict[str, Array]:
        """Run the written model with its framework alone, in the dtype of its weights.

        Args:
            path: As it was given to :meth:`write`, by the same process. The other files lie beside.
            inputs: By name, ``[batch, ...]``: int64 indices and float64 floats. Batch and time are
                others from call to call.
            state: By name, ``[batch, ...]``, float64: what the first step begins with.

        Returns:
            ``output.NAME`` for every output and ``state.NAME`` for every new state.
        """

    def doubt(self, dtype: str) -> str:
        """Why outputs in float64 or float32 may rightly differ: what the framework here does to
        that dtype, and what to do instead; "" if nothing is known."""
        return ""

    def script(self, path: Path, exported: Exported, gradients: Arrays) -> Script:
        """How a script runs the written model, for a report to the framework's authors.

        Args:
            path: As it was given to :meth:`write`, by the same process, with the same model.
            exported: The model.
            gradients: By neutral parameter, to be renamed as the framework has its own.

        Returns:
            The sources. Whatever of a spec stands in them is a literal, as in an export.

        Raises:
            UsageError: the format writes no source that runs its models.
        """
        raise UsageError(f"format {self.name!r} writes no source that runs its models")

    def own_models(self) -> Any:
        """Return the :class:`harness.extend.models.OwnModels` that runs models of users for
        ``harness check --against`` if no backend of this name does; None if nothing does."""
        return None

    def versions(self) -> Mapping[str, str]:
        """Distribution names and versions of what writes and runs, 100 at most."""
        return {"numpy": np.__version__}


FORMATS = PluginKind("format", FORMATS_GROUP, UnknownFormat, BrokenFormat)


def available() -> dict[str, Origin]:
    """Every installed format by name, sorted; none is imported."""
    return plugins.available(FORMATS_GROUP)


def launch(name: str, **options: Any) -> Launch:
    """How to start the process of a format; ``options`` are further fields of
    :class:`~harness.worker.launch.Launch`.

    Raises:
        UnknownFormat: nothing of this name is installed.
        BrokenFormat: two distributions claim the name.
    """
    FORMATS.find(name)
    return Launch(name, handler="harness.convert.formats:handler", **options)


def load(name: str) -> Format:
    """Import format ``name`` and its framework.

    Raises:
        UnknownFormat: nothing of this name is installed.
        BrokenFormat: its module or framework fails to import, or implements no hook.
    """
    found: Format = FORMATS.load(name, "harness_format")
    return found


class FormatService:
    """The verbs of the process of a format. Each takes and gives plain data."""

    def __init__(self, format_: Format) -> None:
        self.format, self.name = format_, format_.name

    def __call__(self, verb: str, payload: dict[str, Any]) -> Any:
        return getattr(self, verb)(**(payload or {}))

    def versions(self) -> Mapping[str, str]:
        """The versions for the greeting of the process."""
        return self.format.versions()

    def suffix(self) -> str:
        """The suffix of the format's files."""
        return self.format.suffix

    def write(self, exported: Mapping[str, Any], path: str) -> list[str]:
        """Return the files that :meth:`Format.write` made; ``exported`` is an
        :meth:`Exported.payload`.

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
        """What :meth:`Format.doubt` says."""
        return self.format.doubt(dtype)

    def script(self, exported: Mapping[str, Any], path: str, gradients: Arrays) -> Scripted:
        """The fields of the script that :meth:`Format.script` returns."""
        found = self.format.script(Path(path), Exported.of(exported), gradients)
        return {
            "module": found.module,
            "source": found.source,
            "gradients": dict(found.gradients),
            "layers": list(found.layers),
        }

    def read(self, path: str, training: Any) -> ReadWeights:
        """``parameters`` and ``statistics``, as :meth:`Format.read` has them."""
        parameters, statistics = self.format.read(Path(path), decode(training))
        return {"parameters": parameters, "statistics": statistics}

    def outputs(self, path: str, inputs: Arrays, state: Arrays) -> answers.Arrays:
        """Outputs and new state by name, as :meth:`Format.outputs` has them."""
        return self.format.outputs(Path(path), inputs, state)


def _full_disk(error: BaseException | None) -> str | None:
    """In the system's words, that a disk is full: a framework may have raised an error of its own
    after that."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EFBIG):
            return error.strerror
        error = error.__cause__ or error.__context__
    return None


def handler(name: str) -> Callable[[str, dict[str, Any]], Any]:
    """The function that answers the calls that reach the worker of a format.

    Raises:
        UnknownFormat: nothing of this name is installed.
        BrokenFormat: as :func:`load`.
    """
    return FormatService(load(name))
