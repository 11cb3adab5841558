"""The form of a cell's options, which somebody else may have written."""

from __future__ import annotations

from pydantic import Field

from harness.files.forms import Form


class OptionsForm(Form):
    """The options of a cell as plain data; whether their values can be, a request says."""

    dtypes: list[str] = Field(default_factory=list)
    folders: list[str] = Field(default_factory=list)
    sizes: dict[str, int] = Field(default_factory=dict)
    pythons: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, dict[str, str]] = Field(default_factory=dict)
    timeout: float = 0
    start_timeout: float | None = None
    memory_limit: int | None = None
    checks: list[str] = Field(default_factory=list)
    thorough: bool = False
    repeat: int = 0
    deterministic: bool = False
    seed: int = 0
    handler: str | None = None
    service: str = ""
