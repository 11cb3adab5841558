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
    """Error: a backend failed while it generated text."""


@dataclass(frozen=True)
class GenerateRequest:
    """Options of a text to generate.

    With ``temperature`` 0, the most likely character is always chosen. With ``top_k`` 0, all
    characters are allowed. With ``cache``, the model stores values of earlier characters, so that
    it reads each character only once; some models do not allow that. ``environment`` has the
    environment variables of every backend, and ``environments`` maps a backend to its own
    variables.
    """

    spec: str = shared.spec()
    backends: tuple[str, ...] = option(
        MISSING,
        "Backends that generate text. If you name several, the command compares their texts.",
        word="--backend",
        kind="backend",
        python="Names of ``harness list``. If you name several, their texts are compared.",
    )
    weights: Path = option(MISSING, "Weights file that train or import wrote.")
    prompt: str = option(MISSING, "Text to continue.")
    length: int = option(200, "Number of characters to generate.", allowed=LENGTH, shown=True)
    temperature: float = option(
        0.0,
        "Sampling temperature. At 0, the most likely character is always chosen.",
        allowed=TEMPERATURE,
        shown=True,
    )
    top_k: int = option(
        0, "Choose only from this many most likely characters. Default: from all.", allowed=TOP_K
    )
    seed: int = shared.seed("Seed of the sampling.")
    device: str = shared.device()
    dtype: str = shared.dtype("float64", "float32, bfloat16, float16 and tf32")
    path: str = shared.path("native")
    cache: bool = option(
        True,
        "Read the whole window again for each new character, without a cache.",
        word="--no-cache",
        python="Read each character once, and cache values for later characters, if the model "
        "allows it.",
    )
    folders: tuple[Path, ...] = shared.folders()
    environment: Mapping[str, str] = option(
        {}, "Environment variables for the processes of all backends.", word=""
    )
    pythons: Mapping[str, str] = shared.pythons()
    environments: Mapping[str, Mapping[str, str]] = shared.environment()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class GenerateOptions(GenerateRequest):
    """Continue a prompt with SPEC and trained weights.

    Without --temperature, the most likely character is always chosen, so all backends generate the
    same text. If you name several backends, the command compares their texts.

    The exit code is 0 for success, 1 if the texts of backends differ, 2 for wrong usage or a wrong
    file, and 3 if a backend failed.
    """

    as_json: bool = shared.as_json()
