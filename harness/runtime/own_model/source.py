"""The file of a user's own model, and what it names: a module is imported, and nothing else is.

Only what the user names as ``FILE.py:NAME`` becomes code, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import UsageError, did_you_mean, shorten

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
