"""What a mutant is: the numpy backend with one fault, and the check that must catch it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness.backends.numpy.backend import Numpy
from harness.backends.numpy.primitives import PRIMITIVES
from harness.program.ir import Program
from harness.runtime.session import Session

# float32 is where a fault is hardest to see, unless the fault is one of float64.
FLOAT32 = ("float32",)
FLOAT64 = ("float64",)
BOTH = ("float64", "float32")
S = TypeVar("S", bound=type[Session])
B = TypeVar("B", bound="type[Faulty]")
F = TypeVar("F", bound=Callable[..., Any])


class Faulty(Numpy):
    """The numpy backend with another session, or another table of primitives."""

    def __init__(
        self,
        session: type[Session] = Session,
        primitives: Mapping[str, Callable[..., Any]] = PRIMITIVES,
    ) -> None:
        self.primitives = primitives
        self._session = session

    def session(self, training: Program, inference: Program, **choices: Any) -> Session:
        return self._session(self, training, inference, **choices)


@dataclass(frozen=True)
class Mutant:
    """One fault. ``check`` is the finding that must differ on ``spec``, in every dtype given.

    ``everywhere``: in the models of the harness' own, too. Most faults know the names of a model.
    ``dear``: a plain run passes it, and one with ``--thorough`` and ``--repeat`` does not.
    """

    name: str
    summary: str
    spec: str
    check: str
    dtypes: tuple[str, ...]
    make: Callable[[], Faulty]
    everywhere: bool = False
    dear: bool = False


MUTANTS: dict[str, Mutant] = {}
# Models of mutants that are not of Lesson 6, and those that ship nowhere.
OTHERS = (
    *("vae", "mlp", "lenet", "resnet", "gpt", "moe", "llama", "mamba", "vit"),
    *("bilstm_tagger", "bert"),
)
ODD = {"spoken": Path(__file__).parents[2] / "support" / "odd_models" / "spoken.yaml"}


def model_of(spec: str) -> str:
    return spec if spec in (*OTHERS, *ODD) else f"lesson6/{spec}"


def register(mutant: Mutant) -> None:
    """Add a mutant; a name may be used once."""
    if mutant.name in MUTANTS:
        raise ValueError(f"two mutants are named {mutant.name!r}")
    MUTANTS[mutant.name] = mutant


def backend(
    spec: str, check: str, dtypes: tuple[str, ...] = FLOAT32, everywhere: bool = False
) -> Callable[[B], B]:
    """Register a backend class, as :func:`session` does."""

    def add(cls: B) -> B:
        _add(cls, spec, check, dtypes, cls, everywhere)
        return cls

    return add


def session(
    spec: str, check: str, dtypes: tuple[str, ...] = FLOAT32, everywhere: bool = False
) -> Callable[[S], S]:
    """Register a session class: its name is the mutant's, its docstring the summary."""

    def add(cls: S) -> S:
        _add(cls, spec, check, dtypes, lambda: Faulty(cls), everywhere)
        return cls

    return add


def _add(
    cls: type,
    spec: str,
    check: str,
    dtypes: tuple[str, ...],
    make: Callable[[], Faulty],
    everywhere: bool,
) -> None:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
    summary = (cls.__doc__ or "").strip()
    register(Mutant(name, summary, model_of(spec), check, dtypes, make, everywhere))


def primitive(
    op: str, spec: str, check: str, dtypes: tuple[str, ...] = FLOAT32, everywhere: bool = False
) -> Callable[[F], F]:
    """Register a function in place of a primitive, under the function's name."""

    def add(function: F) -> F:
        name = function.__name__.strip("_").replace("_", "-")
        summary = (function.__doc__ or "").strip()
        table = {**PRIMITIVES, op: function}
        model = model_of(spec)
        make = partial(Faulty, primitives=table)
        register(Mutant(name, summary, model, check, dtypes, make, everywhere))
        return function

    return add
