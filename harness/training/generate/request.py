"""The options of ``generate``, and the error for a failed backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import option
from harness.command.ranges import LENGTH, TEMPERATURE, TOP_K
from harness.errors import CouldNotRun


class GenerateError(CouldNotRun):
    """The error of a backend that fails."""


@dataclass(frozen=True)
class GenerateRequest:
    """Options of a text to generate.

    A ``temperature`` of 0 always takes the most likely character. A ``top_k`` of 0 allows all
    characters. With ``cache``, the model reads each character once if the model allows it.
    ``environment`` holds the variables of every backend, ``environments`` those of single backends.
    """

    spec: str = shared.spec()
    backends: tuple[str, ...] = option(
        MISSING,
        "Backends that write; the texts of several are compared.",
        word="--backend",
        kind="backend",
        python="Names of ``harness list``; one is enough. Greedy texts are the same on all.",
    )
    weights: Path = option(MISSING, "File of weights that train or import wrote.")
    prompt: str = option(MISSING, "The text to continue.")
    length: int = option(200, "Characters to write.", allowed=LENGTH, shown=True)
    temperature: float = option(
        0.0,
        "How freely to choose; at 0 the likeliest character is taken each time.",
        allowed=TEMPERATURE,
        shown=True,
    )
    top_k: int = option(
        0, "Choose among this many characters; among all if left out.", allowed=TOP_K
    )
    seed: int = shared.seed("Seed of the choice.")
    device: str = shared.device()
    dtype: str = shared.dtype("float64", "float32, bfloat16, float16 and tf32")
    path: str = shared.path("native")
    cache: bool = option(
        True,
        "Read the whole window anew for each character, and keep nothing of the last pass.",
        word="--no-cache",
        python="Read each character once, and keep what later ones need, if the model allows it.",
    )
    folders: tuple[Path, ...] = shared.folders()
    environment: Mapping[str, str] = option(
        {}, "Environment variables of all backends' processes.", word=""
    )
    pythons: Mapping[str, str] = shared.pythons()
    environments: Mapping[str, Mapping[str, str]] = shared.environment()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class GenerateOptions(GenerateRequest):
    """Continue a prompt with SPEC and weights that were trained.

    Greedy unless a temperature is given; then the same text comes from every backend, and several
    --backend prove it.

    Exit code 0: done; 1: the backends' texts differ; 2: wrong usage or a wrong file; 3: a backend
    failed.
    """

    as_json: bool = shared.as_json()
