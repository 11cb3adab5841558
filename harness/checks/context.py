"""What a check works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.case import Case, Expected
from harness.findings import Finding
from harness.material import Material
from harness.remote import Remote
from harness.tolerance import compare


@dataclass(frozen=True)
class Context:
    """One cell: a backend's session, opened on ``case``; ``own`` is the case at its own sizes."""

    case: Case
    own: Case
    remote: Remote
    path: str
    dtype: str
    device: str
    outputs: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def finding(
        self, check: str, found: Mapping[str, npt.NDArray[Any]], expected: Expected
    ) -> Finding:
        """Compare everything that was expected, and whatever else was found."""
        return Finding(check, compare(found, expected.values, expected.noise, self.dtype))

    def forward(self, material: Material) -> dict[str, npt.NDArray[Any]]:
        """An inference pass with the material's batch; parameters must be loaded."""
        return dict(self.remote.forward("inference", material.inputs, material.state))


def part(found: Mapping[str, npt.NDArray[Any]], *prefixes: str) -> dict[str, npt.NDArray[Any]]:
    """The entries whose names start so."""
    return {n: a for n, a in found.items() if n.startswith(prefixes)}


def time_major_names(case: Case) -> list[str]:
    """The outputs that have one row for each time step: ``[batch, time, ...]``."""
    program = case.inference
    names = []
    for port in program.outputs:
        axes = [str(dim) for dim in program.types[port.value].shape[:2]]
        if axes == ["batch", "time"]:
            names.append(f"output.{port.name}")
    return names


def equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """The same bits, NaN included."""
    return bool(np.array_equal(a, b, equal_nan=True))
