"""What a framework must do with a model of a user's own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from harness.arrays import ArrayDict, Arrays
from harness.errors import UsageError, did_you_mean, shorten

# The file of a user's own model, and what it names: a module is imported, and nothing else is.
#
# Only what the user names as ``FILE.py:NAME`` becomes code, in a process of its own.

T = TypeVar("T")
MODULE = "model_of_a_user"


@dataclass(frozen=True)
class ModelFile:
    """``FILE.py:NAME``, or a file that holds a whole model (``NAME`` is then empty).

    ``parameters`` is a further name in the file, of the arrays that a function takes first.
    """

    path: Path
    name: str = ""
    parameters: str = ""

    def __str__(self) -> str:
        return ":".join(filter(None, (self.path.name, self.name, self.parameters)))

    def load(self) -> tuple[Any, Any]:
        """What the file's ``name`` and ``parameters`` are (None without a name).

        Raises:
            UsageError: the file raises, or has no such name.
        """
        # Modules beside it can be imported, and none of them hides one that is installed.
        sys.path.append(str(self.path.parent))
        spec = importlib.util.spec_from_file_location(MODULE, self.path)
        assert spec is not None
        loader = spec.loader
        assert loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[MODULE] = module
        told(self, "raised as it was imported", lambda: loader.exec_module(module))
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


def told(file: ModelFile, what: str, work: Callable[[], T]) -> T:
    """What ``work`` returns.

    Raises:
        UsageError: the user's code raised; the message says what, and where in the file.
    """
    try:
        return work()
    except MemoryError:
        raise
    except UsageError:
        raise
    # Of any kind, and SystemExit: it is anybody's code.
    except (Exception, SystemExit) as error:
        if "OutOfMemory" in type(error).__name__:
            raise
        said = shorten(str(error), 300)
        raise UsageError(
            f"{file} {what}: {type(error).__name__}{': ' if said else ''}{said}"
            f"{_place(error, file.path)}"
        ) from error


def _place(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def sizes_taken(made_by: Any, sizes: Iterable[str]) -> tuple[str, ...]:
    """The sizes that a class or a function can be called with, by keyword."""
    return tuple(name for name in sizes if name in parameters_of(made_by))


def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class or a function; none where they cannot be known."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def names_taken(function: Any, skip: int = 0) -> tuple[str, ...] | None:
    """The names that a call takes, in order, after the first ``skip``; None where there are
    ``*arguments``, which have none."""
    kinds = parameters_of(function)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not kinds or any(p.kind is variadic[0] for p in kinds.values()):
        return None
    return tuple(n for n, p in kinds.items() if p.kind not in variadic)[skip:]


def made(file: ModelFile, name: str, found: Any, sizes: Mapping[str, int], **more: Any) -> Any:
    """What a class or a function of the user's makes, called with the sizes that it takes.

    Raises:
        UsageError: it takes something else, or raises.
    """
    parameters = parameters_of(found)
    given = {n: v for n, v in {**sizes, **more}.items() if n in parameters}
    empty, unnamed = inspect.Parameter.empty, ("VAR_POSITIONAL", "VAR_KEYWORD")
    lacking = [
        n
        for n, p in parameters.items()
        if p.default is empty and p.kind.name not in unnamed and n not in given
    ]
    if lacking:
        raise UsageError(
            f"{name} takes {', '.join(lacking)}, and the spec has no size of that name (it has: "
            f"{', '.join(sizes) or 'none'}): give it a default, or name a function that makes the "
            "model"
        )
    return told(file, f"raised as {name} was called", lambda: found(**given))


# What a call has returned, in whatever form, as tensors by name: ``output.NAME``, ``state.NAME``.
Naming = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Placing:
    """How a call is given what it takes: names of tensors (``input.x``), in order and by keyword.

    A keyword may hold a dictionary of several: the state, by the spec's names.
    """

    positional: tuple[str, ...]
    keywords: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that a call takes."""
        found = list(self.positional)
        for value in self.keywords.values():
            found += [value] if isinstance(value, str) else value.values()
        return tuple(found)

    def call(self, function: Callable[..., Any], tensors: Mapping[str, Any], *first: Any) -> Any:
        """Call a function on ``first`` and these tensors."""
        more = {
            name: tensors[value]
            if isinstance(value, str)
            else {inner: tensors[one] for inner, one in value.items()}
            for name, value in self.keywords.items()
        }
        return function(*first, *(tensors[name] for name in self.positional), **more)


@dataclass(frozen=True)
class ModelArray:
    """An array of a model. One that is ``trained`` must be given by the spec as a whole; another
    one (a buffer, a constant of a graph) stays as it is where the spec has nothing for it."""

    shape: tuple[int, ...]
    trained: bool = True


class OwnModel(ABC):
    """A model that a user has written or trained, in the dtype and on the device of the session.

    Attributes:
        label: What it is, for the record: ``torch.nn.Module Gru``.
        takes: The names of what a call takes, in their order; None where they cannot be known.
        differentiates: Whether there is :meth:`gradients`.
        trains: Whether it has a training mode, in which it moves its own statistics.
        tensor: What it must return, where the framework takes nothing else.
        spelled: The framework's names of moving statistics, by those of the definitions that ship.
    """

    label: str
    takes: tuple[str, ...] | None = None
    differentiates: bool = True
    trains: bool = False
    tensor: type[Any] = object
    spelled: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def entries(self) -> Mapping[str, ModelArray]:
        """The model's arrays by its own names (``rnn.weight_ih_l0``); the same one once."""

    @abstractmethod
    def read(self, name: str) -> Any:
        """An array of the model as it is now, which the caller may write into."""

    @abstractmethod
    def put(self, arrays: Arrays) -> None:
        """Give arrays new values, by the model's own names."""

    @abstractmethod
    def run(self, given: Arrays, placing: Placing, naming: Naming, training: bool) -> ArrayDict:
        """The results of a forward pass, by name.

        Args:
            given: Arrays by name: int64, bool, and float64 for all floats.
            placing: Which of them go where.
            naming: Makes tensors by name of what the call returned.
            training: Whether the model is to be in its training mode.
        """

    def shaped(self, name: str, tensor: Any, wanted: tuple[int, ...]) -> Any:
        """A result in the shape that the spec has; :class:`UsageError` for another one."""
        return reshaped(name, tensor, wanted, lambda t, shape: t.reshape(shape))

    def gradients(
        self, given: Arrays, placing: Placing, naming: Naming, cotangents: Arrays, training: bool
    ) -> tuple[ArrayDict, ArrayDict]:
        """Results, and the gradients of their inner product with ``cotangents``.

        Returns:
            The results as :meth:`run` has them, and gradients by the model's own names and by
            those of ``given`` that are floats.
        """
        raise NotImplementedError


class OwnModels(ABC):
    """How a framework opens models of users; a backend returns it by
    :meth:`harness.runtime.backend.Backend.own_models`, a format by its own method of that name."""

    dtypes: tuple[str, ...] = ("float64", "float32")

    @abstractmethod
    def sizes(self, found: Any, parameters: Any, sizes: Mapping[str, int]) -> Collection[str]:
        """Those of the spec's sizes that the model takes any number for.

        Args:
            found: What the user has named in a module; None for a file of a whole model.
            parameters: What the user has named as its parameters, None without.
            sizes: The spec's own.
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
        """Make the model, at these sizes where it takes them.

        Args:
            file: Where it comes from; its path is that of a file that is there.
            found: As of :meth:`sizes`.
            parameters: As of :meth:`sizes`.
            sizes: The sizes of the session.
            wanted: The spec's arrays under the names that the model is asked for, for a model that
                is a function of arrays.

        Raises:
            UsageError: it is none that the framework runs.
        """


def reshaped(name: str, tensor: Any, wanted: tuple[int, ...], reshape: Any) -> Any:
    """A tensor in the shape that the spec has; of a state, axes of length 1 may be more.

    Raises:
        UsageError: it has another shape.
    """
    shape = tuple(int(n) for n in tensor.shape)
    if shape == wanted:
        return tensor
    if name.startswith("state.") and [n for n in shape if n != 1] == [n for n in wanted if n != 1]:
        return reshape(tensor, wanted)
    order = "; its axes stand in another order" if sorted(shape) == sorted(wanted) else ""
    raise UsageError(
        f"{name.removeprefix('output.')} is {list(wanted)} in the spec, and the model returns "
        f"{list(shape)}{order}"
    )
