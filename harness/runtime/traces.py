"""The named values of a pass, noted as they are made, and put in the place of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.arrays import Array

# One named value: its name, its time step where it was made in a loop, and the array.
Named = tuple[str, int | None, Array]


@dataclass
class Tracing:
    """A watch of an interpreter. Values of ``instead`` take the place of those that are made.

    ``names`` are those of the program's values; ``tensor`` makes a tensor of an array, and
    ``array`` an array of a tensor and its name.
    """

    names: Mapping[int, str]
    instead: Sequence[Named]
    tensor: Callable[[Array], Any]
    array: Callable[[Any, str], Array]
    values: list[Named] = field(default_factory=list)
    _seen: Counter[tuple[str, int | None]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._others = {(name, time): array for name, time, array in self.instead}

    def watch(self, value: int, tensor: Any, time: int | None) -> Any:
        """Note a value that has a name; the tensor that it goes on with."""
        name = self.names.get(value)
        if name is None:
            return None
        # A loss that is called twice makes values of one name twice.
        self._seen[name, time] += 1
        if (count := self._seen[name, time]) > 1:
            name = f"{name}#{count}"
        other = self._others.get((name, time))
        made = tensor if other is None else self.tensor(other)
        self.values.append((name, time, self.array(made, name)))
        return made
