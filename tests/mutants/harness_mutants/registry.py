"""The registry of mutants: numpy backends with one fault each, and the check that detects it."""

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

# Most faults are hardest to detect in float32. Some faults exist in float64 only.
FLOAT32 = ("float32",)
FLOAT64 = ("float64",)
BOTH = ("float64", "float32")
S = TypeVar("S", bound=type[Session])
B = TypeVar("B", bound="type[Faulty]")
F = TypeVar("F", bound=Callable[..., Any])


class Faulty(Numpy):
    """The numpy backend with a faulty session class or a faulty table of primitives."""

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
    """A backend with one fault.

    The check ``check`` must report a difference on the model ``spec`` in each of ``dtypes``. If
    ``everywhere`` is true, the fault does not depend on the names in a model. If ``dear`` is true,
    only ``--thorough`` and ``--repeat`` detect the fault.
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
# Models of mutants that are not in lesson6/, and models that exist in the tests only.
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
    """Register a session class as a mutant; its docstring is the mutant's summary."""

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
