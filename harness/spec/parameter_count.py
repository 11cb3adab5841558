"""How many numbers a model's layers hold in all, which a model may say to have it checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _no_declarations(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError(
            "of a model this is how many numbers its layers hold in all; a parameter is declared "
            "by a layer: write a definition with it, and name that under 'layers'"
        )
    return value


ParameterCount = Annotated[int, Field(gt=0), BeforeValidator(_no_declarations)]
