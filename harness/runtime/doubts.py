"""What a backend has that nobody will ever call: most likely a misspelling."""

from __future__ import annotations

from difflib import get_close_matches

from harness.errors import did_you_mean, shorten
from harness.program.fused import FUSED, IN_PLACE
from harness.program.primitives import EVERY
from harness.runtime.backend import Backend
from harness.runtime.promises import LONGEST, MOST_TEXTS

# So alike must two names be: a helper of a backend's own may be called nearly anything.
ALIKE = 0.85
OFFERS = frozenset(name for name in dir(Backend) if not name.startswith("_"))


def doubts(backend: object) -> list[str]:
    """In words: methods and attributes with nearly the name of one of the contract that is left
    out, and entries of the tables that are no operations. Nothing of what is no backend."""
    if not isinstance(backend, Backend):
        return []
    kinds = [kind for kind in type(backend).__mro__ if kind not in Backend.__mro__]
    own = {name for kind in (*kinds, backend) for name in vars(kind)}
    found = []
    for name in sorted(own - OFFERS):
        near = get_close_matches(name, OFFERS - own, 1, ALIKE) if name[0] != "_" else []
        if near:
            hint = f"did you mean {near[0]!r}?"
            found.append(f"{name!r} is no method of a backend, and never called; {hint}")
    for what, given, known in (
        ("the table", backend.primitives, EVERY),
        ("fused", backend.fused, {**FUSED, **IN_PLACE}),
    ):
        for name in given:
            if name not in known:
                hint = did_you_mean(name, [one for one in known if one not in given])
                found.append(f"{name!r} of {what} is no operation, and never called{hint}")
    return [shorten(text, LONGEST) for text in found[:MOST_TEXTS]]
