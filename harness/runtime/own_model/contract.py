"""The contract of a framework that runs users' own models (``harness check --against``)."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import UsageError, did_you_mean, shorten
from harness.runtime.own_model.graph import TracedGraph
from harness.runtime.own_model.noise import GivenNoise, NoiseMisfit
from harness.runtime.own_model.recorder import Recorder

# Only a file that the user names as ``FILE.py:NAME`` runs as code. It runs in a separate process.

T = TypeVar("T")
MODULE = "model_of_a_user"


@dataclass(frozen=True)
class ModelFile:
    """The file of a user's model: ``FILE.py:NAME``, or a file that holds a whole model.

    ``name`` is empty for a whole model. If the model is a function, ``parameters`` names an object
    in the file, which is passed as the first argument.
    """

    path: Path
    name: str = ""
    parameters: str = ""

    def __str__(self) -> str:
        return ":".join(filter(None, (self.path.name, self.name, self.parameters)))

    def load(self) -> tuple[Any, Any]:
        """Import the file and return its objects ``name`` and ``parameters``; None for an empty
        name.

        Raises:
            UsageError: the file raises, or has no object of that name.
        """
        # The file may import modules beside it; they do not hide installed modules.
        sys.path.append(str(self.path.parent))
        spec = importlib.util.spec_from_file_location(MODULE, self.path)
        assert spec is not None
        loader = spec.loader
        assert loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[MODULE] = module
        run_user_code(self, "raised an error during import", lambda: loader.exec_module(module))
        return self._named(module, self.name), self._named(module, self.parameters)

    def _named(self, module: Any, name: str) -> Any:
        if not name:
            return None
        if not hasattr(module, name):
            own = [n for n, v in vars(module).items() if _is_own(module, n, v)]
            raise UsageError(
                f"{self.path.name} has no {name!r}{did_you_mean(name, own)} "
                f"(it has: {shorten(', '.join(own), 300) or 'nothing'})"
            )
        return getattr(module, name)


def _is_own(module: Any, name: str, value: Any) -> bool:
    if name.startswith("_") or inspect.ismodule(value):
        return False
    return getattr(value, "__module__", MODULE) == MODULE


def run_user_code(file: ModelFile, when: str, work: Callable[[], T]) -> T:
    """Run the user's code and return its result.

    ``when`` is a part of the error message, e.g. ``raised an error during import``.

    Raises:
        UsageError: the user's code raised; the message has the error and the line in the file.
    """
    try:
        return work()
    except MemoryError:
        raise
    except UsageError:
        raise
    # The user's code may raise anything, including SystemExit.
    except (Exception, SystemExit) as error:
        if "OutOfMemory" in type(error).__name__:
            raise
        message = shorten(str(error), 300)
        raise UsageError(
            f"{file} {when}: {type(error).__name__}{': ' if message else ''}{message}"
            f"{_place(error, file.path)}"
        ) from error


def _place(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def sizes_taken(made_by: Any, sizes: Iterable[str]) -> tuple[str, ...]:
    """Return the names in ``sizes`` that are parameters of a class or function."""
    return tuple(name for name in sizes if name in parameters_of(made_by))


def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function; empty if they cannot be determined."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def names_taken(function: Any, skip: int = 0) -> tuple[str, ...] | None:
    """Return the argument names of a function, in order, without the first ``skip``.

    Return None if the names cannot be determined, or if the function takes ``*arguments``.
    """
    kinds = parameters_of(function)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not kinds or any(p.kind is variadic[0] for p in kinds.values()):
        return None
    return tuple(n for n, p in kinds.items() if p.kind not in variadic)[skip:]


def check_arguments(takes: Sequence[str] | None, inputs: Iterable[str]) -> None:
    """Raise :class:`UsageError` if a model has no argument of an input's name. ``takes`` are the
    names of its arguments; None if they cannot be determined."""
    if takes is None:
        return
    problems = [
        f"--input {name}: the model has no such argument{did_you_mean(name, takes)} "
        f"(it has: {', '.join(takes)})"
        for name in inputs
        if name not in takes
    ]
    if problems:
        raise UsageError("\n".join(problems))


def made(file: ModelFile, name: str, function: Any, sizes: Mapping[str, int], **more: Any) -> Any:
    """Call a user's class or function with the sizes that it takes, and return the result.

    ``more`` holds further arguments that it may take.

    Raises:
        UsageError: it has another required argument, or it raises.
    """
    parameters = parameters_of(function)
    arguments = {n: v for n, v in {**sizes, **more}.items() if n in parameters}
    empty, unnamed = inspect.Parameter.empty, ("VAR_POSITIONAL", "VAR_KEYWORD")
    missing = [
        n
        for n, p in parameters.items()
        if p.default is empty and p.kind.name not in unnamed and n not in arguments
    ]
    if missing:
        raise UsageError(
            f"{name} takes {', '.join(missing)}, but the spec has no size of that name (it has: "
            f"{', '.join(sizes) or 'none'}): add a default value, or name a function that makes "
            "the model"
        )
    return run_user_code(
        file, f"raised an error in the call of {name}", lambda: function(**arguments)
    )


# A function that converts the return value of a call to tensors by name (``output.NAME``).
Naming = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Placing:
    """The names of the tensors (``input.x``) that a call gets, by position and by keyword.

    A keyword argument may be a dictionary of several tensors, e.g. the whole state by the spec's
    names.
    """

    positional: tuple[str, ...]
    keywords: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors that the call gets."""
        names = list(self.positional)
        for value in self.keywords.values():
            names += [value] if isinstance(value, str) else value.values()
        return tuple(names)

    def call(self, function: Callable[..., Any], tensors: Mapping[str, Any], *first: Any) -> Any:
        """Call a function with the arguments ``first``, followed by these tensors."""
        more = {
            name: tensors[value]
            if isinstance(value, str)
            else {inner: tensors[tensor_name] for inner, tensor_name in value.items()}
            for name, value in self.keywords.items()
        }
        return function(*first, *(tensors[name] for name in self.positional), **more)


@dataclass(frozen=True)
class ModelArray:
    """An array of a user's model.

    If it is ``trained``, the spec must set all of its entries. Otherwise (a buffer, a constant of a
    graph) it keeps its values if the spec has no counterpart.
    """

    shape: tuple[int, ...]
    trained: bool = True


class OwnModel(ABC):
    """A model that a user has written or trained, in the dtype and on the device of the session.

    Attributes:
        label: The model's description in the record: ``torch.nn.Module Gru``.
        takes: The names of the model's arguments, in order; None if they cannot be determined.
        differentiates: Whether :meth:`gradients` is implemented.
        trains: Whether the model has a training mode, in which it updates its moving statistics.
        tensor: The type that the model's results must have.
        spelled: The framework's name of each moving statistic, by its name in the shipped
            definitions.
    """

    label: str
    takes: tuple[str, ...] | None = None
    differentiates: bool = True
    trains: bool = False
    tensor: type[Any] = object
    spelled: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def entries(self) -> Mapping[str, ModelArray]:
        """Return the model's arrays by name (``rnn.weight_ih_l0``), each shared array once."""

    def modules_with(self, name: str) -> Collection[str]:
        """Return the modules that own an array of the model, by the names that :meth:`record`
        uses. By default, the name of the array starts with the name of its only module."""
        return (name.rpartition(".")[0],)

    def to_array(self, value: Any) -> Array | None:
        """Copy a tensor to an array; return None for other objects, and for tensors that have no
        values yet."""
        return None

    def record(self, recorder: Recorder, given: Arrays, placing: Placing) -> None:
        """Run a forward pass as :meth:`run` in evaluation mode, and record the calls of modules. By
        default, record nothing."""
        return

    def narrow_places(self, given: Arrays, placing: Placing) -> list[str]:
        """Run a forward pass in evaluation mode and float64; return the places of the code that
        compute in a narrower dtype, such as ``net.py:12``. Return an empty list if the framework
        cannot tell."""
        return []

    @abstractmethod
    def read(self, name: str) -> Any:
        """Return a copy of an array of the model, or a tensor that the caller may overwrite."""

    def read_file(self, path: Path) -> ArrayDict:
        """Return the arrays in a file of weights, by the model's names.

        Args:
            path: A file in the framework's own format; not ``.safetensors`` or ``.npz``.

        Raises:
            UsageError: the framework has no such format, or the file is damaged.
        """
        raise UsageError(f"{path.name}: allowed are .safetensors and .npz")

    @abstractmethod
    def put(self, arrays: Arrays) -> None:
        """Set arrays of the model to new values, by the model's own names."""

    @abstractmethod
    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        """Return the results of a forward pass by name.

        Args:
            given: Arrays by name, of dtype int64, bool, or float64 for all floats.
            placing: The positions and keywords of the arrays in the call.
            naming: A function that names the tensors in the call's return value.
            training: Whether to run the model in its training mode.
        """

    def on_path(self, path: str, dtype: str) -> OwnModel:
        """Return the model as it runs on a path that :meth:`OwnModels.paths` has. ``dtype`` is the
        dtype of matrix products on the path ``autocast``. By default, return the model itself."""
        return self

    def shaped(self, name: str, tensor: Any, wanted: tuple[int, ...]) -> Any:
        """Return a result in the spec's shape; raise :class:`UsageError` if that is impossible."""
        return reshaped(name, tensor, wanted, lambda t, shape: t.reshape(shape))

    def with_noise(self, noise: GivenNoise) -> AbstractContextManager[None]:
        """Return a context in which the model uses ``noise`` instead of its own random numbers.

        Args:
            noise: The spec's noise that the model does not accept as an argument, in the order in
                which the spec uses it.

        Raises:
            NoiseMisfit: the model draws other random numbers, or the framework cannot replace
                them. The context may raise it too.
        """
        raise NoiseMisfit("the framework cannot replace the random numbers of a model")

    def gradients(
        self, given: Arrays, placing: Placing, naming: Naming, cotangents: Arrays, training: bool
    ) -> tuple[ArrayDict, ArrayDict]:
        """Return results, and the gradients of their inner product with ``cotangents``.

        Returns:
            The results as in :meth:`run`. The gradients have the names of the model's arrays, and
            the names of the float arrays in ``given``.
        """
        raise NotImplementedError


class OwnModels(ABC):
    """A framework's way to open the models of users.

    A backend returns this object from :meth:`harness.runtime.backend.Backend.own_models`, and a
    format returns it from its own method ``own_models``.
    """

    dtypes: tuple[str, ...] = ("float64", "float32")

    @abstractmethod
    def sizes(self, found: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        """Return the names of the spec's sizes for which the model accepts any number.

        Args:
            found: The object ``NAME`` in the user's file; None if the file holds a whole model.
            parameters: The object ``PARAMETERS`` in the user's file; None if the user named none.
            sizes: The spec's sizes by name.
        """

    @abstractmethod
    def open(
        self,
        file: ModelFile,
        found: Any,
        parameters: Any,
        sizes: Mapping[str, int],
        wanted: Mapping[str, ModelArray],
    ) -> OwnModel:
        """Make the model, with the sizes of the session if the model takes them.

        Args:
            file: The model's file, which exists.
            found: As in :meth:`sizes`.
            parameters: As in :meth:`sizes`.
            sizes: The sizes of the session.
            wanted: The spec's arrays under the model's names. They are needed if the model is a
                function of its parameters.

        Raises:
            UsageError: the framework cannot run this kind of model.
        """

    def paths(self) -> Mapping[str, str]:
        """Return the paths on which models run, such as ``compiled``: name -> the reason why the
        path cannot run here, or an empty text. See :data:`harness.runtime.paths.OWN_PATHS`."""
        return {"native": ""}

    def operators(self) -> Collection[str]:
        """Return the framework's names of the operators that :meth:`trace` translates."""
        return ()

    def default_inputs(self, file: ModelFile, target: Any, parameters: Any) -> dict[str, str]:
        """Return declarations of the model's inputs, e.g. ``{"ids": "batch,time:86"}``.

        Return an empty dictionary if the framework cannot determine them. See
        :mod:`harness.porting.inputs` for the form of a declaration.
        """
        return {}

    def trace(self, file: ModelFile, target: Any, parameters: Any, inputs: Arrays) -> TracedGraph:
        """Return the graph of one forward pass in training mode.

        Args:
            file: The model's file, which exists.
            target: As in :meth:`sizes`.
            parameters: As in :meth:`sizes`.
            inputs: The model's arguments by name, of dtype float64, int64 or bool.

        Raises:
            UsageError: the framework cannot trace this model.
        """
        raise UsageError(f"{file} cannot be traced: its framework has no tracer")


def reshaped(name: str, tensor: Any, wanted: tuple[int, ...], reshape: Any) -> Any:
    """Return a tensor in the spec's shape. The shape of a state may differ in axes of length 1.

    Raises:
        UsageError: the tensor has another shape.
    """
    shape = tuple(int(n) for n in tensor.shape)
    if shape == wanted:
        return tensor
    if name.startswith("state.") and [n for n in shape if n != 1] == [n for n in wanted if n != 1]:
        return reshape(tensor, wanted)
    order = "; the axes have another order" if sorted(shape) == sorted(wanted) else ""
    raise UsageError(
        f"{name.removeprefix('output.')} is {list(wanted)} in the spec, but the model returns "
        f"{list(shape)}{order}"
    )
