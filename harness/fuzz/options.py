"""Options of ``fuzz``. The module imports nothing slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import HOW, KEEP, option
from harness.command.ranges import CASES, MINUTES


@dataclass(init=False, repr=False, eq=False)
class FuzzOptions:
    """Search for faults of backends with random functions, layers and models.

    Each case is a small random model. Its outputs and gradients are compared with the oracle's. A
    case that differs is made smaller, and cases with the same cause are one fault. The seed and the
    number of a case determine the case.

    The exit code is 0 if all faults are known differences, 1 if a fault is new, 2 for wrong usage,
    and 3 if a backend could not run.
    """

    backends: tuple[str, ...] = shared.backends()
    dtypes: tuple[str, ...] = option(
        ("float32", "float64"),
        "Dtypes: float64, float32, bfloat16, float16. Default: float32 and float64.",
        word="--dtype",
        kind="dtype",
    )
    path: str = shared.path("native", shared.COMPILED)
    device: str = shared.device()
    minutes: float = option(5.0, "Minutes to search.", allowed=MINUTES, shown=True)
    cases: int = option(
        0, "Number of cases to run. Default: 0, as many as the minutes allow.", allowed=CASES
    )
    seed: int = shared.seed("Seed of the cases.")
    folders: tuple[Path, ...] = option(
        (),
        "Folders with known differences of your own (known_differences.yaml).",
        word="--specs",
        kind="folder",
        metavar="FOLDER",
    )
    threads: tuple[int, ...] = option(
        (),
        "Numbers of threads. Each case also runs with each number of threads.",
        section=HOW,
        metavar="NUMBER",
    )
    instruction_sets: bool = option(
        False,
        "Also run each case with each smaller instruction set of the processor, e.g. avx2.",
        section=HOW,
    )
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(60.0, "case")
    records: Path | None = shared.records()
    resume: bool = shared.resume()
    reproducers: Path | None = option(
        None,
        "Write a reproducer and the text of an issue for each fault to this folder.",
        section=KEEP,
        kind="folder",
    )
    as_json: bool = shared.as_json()
