"""One golden case: which kernel is the witness of which definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.program.ir import Phase


@dataclass(frozen=True)
class Recipe:
    """One golden case still to be computed."""

    kind: str
    name: str
    source: str
    kernel: Any
    attributes: Mapping[str, Any] = field(default_factory=dict)
    phase: Phase = "training"
    given: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    gradients: bool = True  # False where the kernel's are another function's, or less precise

    @property
    def title(self) -> str:
        """Seeds the material: the same for two witnesses of one definition and its attributes."""
        return f"{self.kind}/{self.name}/{sorted(self.attributes.items())}"
