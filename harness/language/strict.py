"""Building blocks of the forms of spec files."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# A dimension: a number, a size name, a sum of those ("units + features"), or "..." for any axes.
Axes = list[int | str]


def key(meaning: str, example: object, default: Any = ...) -> Any:
    """Return a field with its text and example for editors and docs/spec-reference.md."""
    return Field(default, description=meaning, examples=[example])


class Strict(BaseModel):
    """Base of all forms: immutable, without type conversion; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Documented(Strict):
    """The part that all definitions have: what each says about itself."""

    summary: str = key("one sentence about the definition", "A small GRU.")
    source: str = key("the origin, e.g. a paper or an API", "torch.nn.GRU")
