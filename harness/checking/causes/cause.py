"""The result of a search for causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.program.ir import Node

# In the order in which phases run. A primitive is wrong by itself, a result is wrong as it is
# returned, and a property is not a value.
Phase = Literal["primitive", "forward", "result", "backward", "update", "property"]
# The greatest number of causes that a search looks for; a backend with more is wrong throughout.
MOST = 4


@dataclass(frozen=True)
class Cause:
    """A wrong result whose inputs are all right.

    ``names`` are the names of the values, gradients or slots; ``place`` is ``file:line`` of the
    equation; ``hint`` is the change that would make it right.
    """

    phase: Phase
    what: str
    names: tuple[str, ...] = ()
    place: str = ""
    error: float | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        error = "" if self.error is None else f", off by {self.error:.2e}"
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.phase}: {self.what}{place}{error}{hint}"


@dataclass(frozen=True)
class Causes:
    """Causes in the order in which they occur; ``proof`` says what agrees once they are replaced.
    ``proved`` is true if everything else agrees with the right values in their places."""

    found: Sequence[Cause]
    proved: bool = False
    proof: str = ""

    @staticmethod
    def one(phase: Phase, what: str, names: Sequence[str] = (), proof: str = "") -> Causes:
        """Return a single cause without a proof."""
        return Causes([Cause(phase, what, tuple(names))], False, proof)

    def lines(self) -> list[str]:
        """Return the causes and the proof as lines of text."""
        return [*map(str, self.found), self.proof] if self.proof else [*map(str, self.found)]


def substituted(found: Sequence[Cause], values: str, rest: str, left: str) -> Causes:
    """Return causes that were replaced by the right ``values``. The ``rest`` then agrees, or
    ``left`` says what still differs."""
    its, they = "its place", "it is the cause"
    if len(found) > 1:
        its, they = "their places", "these are the causes"
    return Causes(found, not left, f"with the {values} in {its} {left or f'{rest}: {they}'}")


def label(node: Node) -> str:
    """Return the name and definition of a layer, or the name of an operation."""
    if node.op == "call":
        instance = node.attributes.get("instance", node.attributes["label"])
        return f"layer {instance} ({node.attributes['definition']})"
    return f"operation {node.op}"
