"""Names of sizes: a number of the spec gets the name that it has in the model's configuration."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from keyword import iskeyword
from typing import Any

WIDTHS = "hidden|embd|embed|dim|width|intermediate|inner|ffn|feature|unit|channel|d_model|d_ff"
# The names that a configuration may use for a number, by the number's attribute in the spec.
NAMES = {
    "repeat": "layer|depth|block",
    "rows": "vocab|token",
    "context": "position|context|ctx|block_size|max_len|seq",
    "heads": "head",
    "units": f"{WIDTHS}|vocab|label|class|out|^size",
    "length": f"{WIDTHS}|vocab|position",
}


class SizeNames:
    """The named sizes of a spec.

    Args:
        config: The whole numbers of the model's configuration.
        taken: Other names of the spec.

    Attributes:
        used: The sizes that the spec names.
    """

    def __init__(self, config: Mapping[str, int], taken: Collection[str]) -> None:
        valid = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
        self.config = {
            name: value
            for name, value in config.items()
            if valid.fullmatch(name) and not iskeyword(name) and name not in taken
        }
        self.used: dict[str, int] = {}

    def find(self, value: Any, attribute: str) -> str | None:
        """Return the name of an attribute's value. Return None if the configuration has no entry,
        or several entries, that this value may come from."""
        pattern = NAMES.get(attribute)
        names = [
            name
            for name, number in self.config.items()
            if number == value and pattern and re.search(pattern, name.lower())
        ]
        if len(names) != 1:
            return None
        self.used[names[0]] = self.config[names[0]]
        return names[0]
