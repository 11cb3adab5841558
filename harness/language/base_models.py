"""Base classes of the pydantic models of spec files."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# The axes of a shape. An axis is a number, the name of a size, an expression of these (such as
# "units + features"), or "..." for any number of axes.
Axes = list[int | str]


def key(meaning: str, example: object, default: Any = ...) -> Any:
    """Return a pydantic field for a key of a spec file. Editors and docs/spec-reference.md show its
    ``meaning`` and ``example``."""
    return Field(default, description=meaning, examples=[example])


class Strict(BaseModel):
    """Base class of all pydantic models of spec files. Objects are immutable, types are not
    converted, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Documented(Strict):
    """Base class of all definitions, which have a summary and a source."""

    summary: str = key("one sentence about the definition", "A small GRU.")
    source: str = key("the origin, e.g. a paper or an API", "torch.nn.GRU")
