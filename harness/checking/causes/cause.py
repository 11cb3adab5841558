"""Causes that a search has found, and their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from harness.errors import EXIT_FAILED, EXIT_PASSED
from harness.program.ir import Node
from harness.results.cell import Cell
from harness.results.findings import Blame

# The phases of a pass in the order in which they run. Special cases: "primitive" means that a
# primitive is wrong by itself, "result" that only the returned value is wrong, and "property" that
# a check differs although the values of an ordinary pass are right.
Phase = Literal["primitive", "forward", "result", "backward", "update", "property"]
# The name of the reference if a backend is compared with no other backend.
ORACLE = "the oracle"
# A search stops after this many causes: a backend with more causes is wrong everywhere.
MAX_CAUSES = 4


@dataclass(frozen=True)
class Cause:
    """A layer or operation that computes a wrong result from right inputs.

    ``what`` names the layer or operation, and ``names`` are the wrong values, gradients or
    optimizer slots. ``place`` is the ``file:line`` of the equation. ``hint`` describes a mistake,
    or a change of the equation, with which the oracle gets the same wrong result.
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
    """Causes that a search has found, in the order of computation.

    The search has replaced the wrong values by right values and run the model again. ``proof`` is a
    text about what agrees after that. ``proved`` is true if everything else agrees.
    """

    items: Sequence[Cause]
    proved: bool = False
    proof: str = ""

    @staticmethod
    def single(phase: Phase, what: str, names: Sequence[str] = (), proof: str = "") -> Causes:
        """Return a single cause with ``proved`` false: the search has not replaced the wrong value
        and run the model again. ``phase``, ``what`` and ``names`` are the fields of :class:`Cause`,
        and ``proof`` is a text about the evidence."""
        return Causes([Cause(phase, what, tuple(names))], False, proof)

    def lines(self) -> list[str]:
        """Return the causes and the text ``proof`` (what agrees after the replacement) as lines of
        text."""
        return [*map(str, self.items), self.proof] if self.proof else [*map(str, self.items)]


@dataclass(frozen=True)
class Localised:
    """The result of ``harness localise``.

    ``against`` names what the backend was compared with: the oracle or a second backend. ``causes``
    is None if all checks agree, and ``differing`` has the names of the checks that differ.
    ``elsewhere`` names the second backend's device, if this is not the device of the cell.
    """

    cell: Cell
    against: str
    causes: Causes | None
    blame: Blame | None = None
    differing: list[str] = field(default_factory=list)
    elsewhere: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code: 0 if the cell agrees, 1 if it differs."""
        return EXIT_PASSED if self.causes is None else EXIT_FAILED

    def record(self) -> dict[str, object]:
        """Return the result as a dictionary that can be written as JSON."""
        causes = self.causes
        return {
            **self.cell.record(),
            "against": self.against,
            "against_device": self.elsewhere or None,
            "agrees": causes is None,
            "causes": [asdict(cause) for cause in causes.items] if causes else [],
            "proved": bool(causes and causes.proved),
            "proof": causes.proof if causes else "",
            "blame": self.blame.model_dump() if self.blame else None,
            "differing": self.differing,
        }

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        where = f" on its {self.elsewhere}" if self.elsewhere else ""
        what = f"{self.cell} against {self.against}{where}"
        if self.causes is None:
            return [f"{what}: agrees, so there is no cause to find"]
        lines = [f"{what}: differs", *(f"  {line}" for line in self.causes.lines())]
        if self.blame:
            lines.append(f"  {self.blame}")
        return lines


def replaced_causes(causes: Sequence[Cause], values: str, rest: str, remaining: str) -> Causes:
    """Return the causes that a search has found by replacing wrong values by right values.

    Three texts describe what happened. ``values`` names the right values, e.g. "values of the
    oracle". ``rest`` says what agrees after the replacement. ``remaining`` says what still differs;
    it is empty if everything agrees.
    """
    them, conclusion = "it", "it is the cause"
    if len(causes) > 1:
        them, conclusion = "them", "these are the causes"
    return Causes(
        causes,
        not remaining,
        f"if the {values} replace {them}, {remaining or f'{rest}: {conclusion}'}",
    )


def describe_node(node: Node) -> str:
    """Return a text for a layer, e.g. ``layer out (dense)``, or for an operation outside of layers,
    e.g. ``operation sum``."""
    if node.op == "call":
        instance = node.attributes.get("instance", node.attributes["label"])
        return f"layer {instance} ({node.attributes['definition']})"
    return f"operation {node.op}"
