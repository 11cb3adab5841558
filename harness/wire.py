"""Programs and update rules as plain data, for the way to a worker and into a reproducer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from harness.dims import Dim
from harness.errors import HarnessError
from harness.program import Block, Node, Port, Program, Type, UpdateRule

CLASSES: Mapping[str, type] = {
    cls.__name__: cls for cls in (Dim, Type, Block, Node, Port, Program, UpdateRule)
}


def encode(value: Any) -> Any:
    """Lists, strings, numbers and None only. Lists come back as tuples."""
    if is_dataclass(value) and not isinstance(value, type):
        content = [encode(getattr(value, f.name)) for f in fields(value)]
        return {"class": type(value).__name__, "fields": content}
    if isinstance(value, Mapping):
        return {"map": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise HarnessError(f"a program cannot hold {value!r}")


def decode(data: Any) -> Any:
    """The value that :func:`encode` was given."""
    if isinstance(data, list | tuple):
        return tuple(decode(item) for item in data)
    if isinstance(data, Mapping):
        if "map" in data:
            return {decode(k): decode(v) for k, v in data["map"]}
        if data.get("class") not in CLASSES:
            raise HarnessError(
                f"a program holds no {data.get('class')!r}; another version wrote it"
            )
        return CLASSES[data["class"]](*(decode(item) for item in data["fields"]))
    return data
