"""What every form of a spec file is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

# A dimension: a number, a size name, a sum of those ("units + features"), or "..." for any axes.
Axes = list[int | str]


class Strict(BaseModel):
    """Unknown keys are errors, types are not converted, instances do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Documented(Strict):
    """The part that all definitions have: what each says about itself."""

    summary: str
    source: str
