"""Rules for names in a spec; ``docs/spec-language.md#names`` describes them for users."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from harness.errors import shorten

LONGEST = 60
_NAME_PATTERN = f"[A-Za-z][A-Za-z0-9_]{{0,{LONGEST - 1}}}"
# A part of a model's name. A model's name may become a part of a path, so it must not leave a
# folder or look like an option of a command.
_PART = f"[A-Za-z0-9_][A-Za-z0-9_-]{{0,{LONGEST - 1}}}"
_PATH = f"{_PART}(/{_PART}){{0,3}}"


def _name_check(pattern: str, rule: str) -> tuple[Callable[[str], str], WithJsonSchema]:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            suggestion = re.sub(r"\s+", "_", value.strip())
            hint = f"; write {suggestion}" if compiled.fullmatch(suggestion) else ""
            raise ValueError(f"a name must be {rule}; found {shorten(value)!r}{hint}")
        return value

    return check, WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_check_free_name, _name_schema = _name_check(
    _NAME_PATTERN, f"letters, digits and '_', starting with a letter, at most {LONGEST} characters"
)
_check_model_name, _model_schema = _name_check(
    _PATH,
    f"one to four parts with '/' between them; each part has at most {LONGEST} letters, digits, "
    "'_' and '-', and does not start with '-'",
)


def _check_name(value: str) -> str:
    _check_free_name(value)
    if keyword.iskeyword(value):
        raise ValueError(
            f"{value!r} is a Python keyword, which equations cannot use: write "
            f"{value.lower()}_1, or choose a different name"
        )
    return value


# The name of anything that equations can name: a layer, parameter, size, input, state, output etc.
Name = Annotated[str, AfterValidator(_check_name), _name_schema]
# The name of something that equations do not name: a metric, or some definitions.
FreeName = Annotated[str, AfterValidator(_check_free_name), _name_schema]
ModelName = Annotated[str, AfterValidator(_check_model_name), _model_schema]


def is_name(value: str) -> bool:
    """Return whether a text is a valid name in equations."""
    return re.fullmatch(_NAME_PATTERN, value) is not None


def is_model_name(value: str) -> bool:
    """Return whether a text is a valid model name."""
    return re.fullmatch(_PATH, value) is not None
