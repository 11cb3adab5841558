"""Both sides of a match: the parameters of a spec, and the arrays of a user's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.program.ir import Program
from harness.program.signature import local_of, owner_of
from harness.runtime.layout import Layout
from harness.runtime.native import Native
from harness.runtime.own_model.contract import ModelArray
from harness.runtime.own_model.renames import ArrayPart, Rename, renamed, view_of


class Sides:
    """A program, and the ``entries`` of a model, which ``rules`` and names bring together.

    ``natives`` are the framework's own layers of the program. The ``layout`` has those whose
    tensors the model has (``rnn.weight_ih_l0``); of the others it has the spec's parameters
    (``rnn.W_z``). ``every`` is the layout with all of them, ``shapes`` are those of ``layout``;
    ``spelled`` is :attr:`.contract.OwnModel.spelled`.
    """

    def __init__(
        self,
        program: Program,
        natives: Mapping[str, Native],
        entries: Mapping[str, ModelArray],
        rules: Sequence[Rename],
        spelled: Mapping[str, str],
    ) -> None:
        self.spelled = spelled
        self.program, self.entries, self.rules = program, entries, tuple(rules)
        owners = {owner_of(port.name) for port in program.parameters}
        own = {k: n for k, n in natives.items() if k in owners and self._has_pieces(k, n)}
        self.layout, self.every = Layout(program, own), Layout(program, natives)
        zeros = {p.name: np.zeros(program.shape(p)) for p in program.parameters}
        self.shapes = {n: a.shape for n, a in self.layout.pack(zeros).items()}

    def _has_pieces(self, owner: str, native: Native) -> bool:
        """Whether the model has a layer's tensors, and not its parameters one by one."""
        pieces = [n for n in native.packing.pieces if n not in native.packing.frozen]
        return bool(pieces) and all(self.view(f"{owner}.{n}") is not None for n in pieces)

    def view(self, name: str) -> ArrayPart | None:
        """Where an array of the spec, or a tensor of its layer, is in the model, if anywhere."""
        text = renamed(name, self.rules)[0]
        found, other = view_of(text, self.entries), self.spelled.get(local_of(text))
        if found is None and other is not None:
            return view_of(f"{owner_of(text)}.{other}", self.entries)
        return found

    def names(self) -> list[str]:
        """All that rules may be about: parameters, tensors of layers, and statistics."""
        pieces = [f"{k}.{n}" for k, packing in self.every.claimed.items() for n in packing.pieces]
        ports = (*self.program.parameters, *self.program.statistics)
        return list(dict.fromkeys([*(port.name for port in ports), *pieces]))


def dotted(name: str) -> str:
    """A tensor's name in a layout as rules have it: ``rnn.kernel`` of ``rnn/kernel``."""
    return name.replace("/", ".")
