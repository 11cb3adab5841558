"""What a search for causes says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.program.ir import Node

# In the order in which phases run. A primitive is wrong by itself, a result on its way out, and a
# property is not a value at all.
Phase = Literal["primitive", "forward", "result", "backward", "update", "property"]
# So many causes are looked for one after the other; what has more is wrong throughout.
MOST = 4


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong though all that it is made of is right.

    ``names`` are those of the values, gradients or slots; ``place`` is ``file:line`` of the
    equation; ``hint`` what would make up for it.
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
    """Causes in the order in which they come; ``proof`` says what agrees once they are made right.

    ``proved``: with the right values in their places, everything else agrees.
    """

    found: Sequence[Cause]
    proved: bool = False
    proof: str = ""

    @staticmethod
    def one(phase: Phase, what: str, names: Sequence[str] = (), proof: str = "") -> Causes:
        """One cause that nothing has proved."""
        return Causes([Cause(phase, what, tuple(names))], False, proof)

    def lines(self) -> list[str]:
        """All of it in words."""
        return [*map(str, self.found), self.proof] if self.proof else [*map(str, self.found)]


def substituted(found: Sequence[Cause], values: str, rest: str, left: str) -> Causes:
    """Causes for which right ``values`` were substituted: the ``rest`` then agrees, or what is
    ``left`` still does not."""
    its, they = "its place", "it is the cause"
    if len(found) > 1:
        its, they = "their places", "these are the causes"
    return Causes(found, not left, f"with the {values} in {its} {left or f'{rest}: {they}'}")


def label(node: Node) -> str:
    """A layer by its name and definition, or an operation."""
    if node.op == "call":
        instance = node.attributes.get("instance", node.attributes["label"])
        return f"layer {instance} ({node.attributes['definition']})"
    return f"operation {node.op}"
