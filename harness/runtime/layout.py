"""Where parameters live: neutral names outside, the framework's packed tensors inside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.program.ir import Phase, Program
from harness.program.signature import local_of, owner_of
from harness.runtime import promises
from harness.runtime.backend import Backend
from harness.runtime.native import ClaimableCall, Native, calls_by_layer
from harness.runtime.packing import Join, Packing, Stack


def claims(backend: Backend, program: Program, phase: Phase) -> dict[str, Native]:
    """The claims of a backend on a program: layers by instance, losses by name.

    A layer that is called several times is claimed only if every call is.
    """
    found: dict[str, Native] = {}
    for key, calls in calls_by_layer(program, phase).items():
        natives = [_claim(backend, call) for call in calls]
        if natives[0] is not None and None not in natives:
            found[key] = natives[0]
    return found


def _claim(backend: Backend, call: ClaimableCall) -> Native | None:
    claim = backend.claim(call)
    if claim is not None:
        source = f"claim() of {call.definition}"
        promises.instance(claim, Native, source, "a Native, or None,")
        promises.instance(claim.packing, Packing, f"the packing of {source}", "a Packing")
    return claim


class Layout:
    """The packings of a model's layers: ``rnn.W`` is a part of ``rnn/kernel``, or itself."""

    def __init__(self, program: Program, natives: Mapping[str, Native]) -> None:
        self.shapes = {p.name: program.shape(p) for p in program.parameters}
        self.claimed: dict[str, Packing] = {}
        self.plain: list[str] = []
        for name in self.shapes:
            instance = owner_of(name)
            if instance in natives:
                self.claimed[instance] = natives[instance].packing
            else:
                self.plain.append(name)

    @property
    def frozen(self) -> frozenset[str]:
        """The packed tensors that are not trained."""
        return frozenset(f"{i}/{n}" for i, packing in self.claimed.items() for n in packing.frozen)

    @property
    def joined(self) -> bool:
        """Whether a packed tensor holds several parameters."""
        pieces = (piece for packing in self.claimed.values() for piece in packing.pieces.values())
        return any(isinstance(piece, Join | Stack) for piece in pieces)

    def pack(self, neutral: Arrays) -> ArrayDict:
        """Neutral arrays as the framework's."""
        packed: ArrayDict = {n: np.asarray(neutral[n], order="C") for n in self.plain}
        own: dict[str, ArrayDict] = {instance: {} for instance in self.claimed}
        for name, array in neutral.items():
            if owner_of(name) in own:
                own[owner_of(name)][local_of(name)] = array
        for instance, packing in self.claimed.items():
            pieces = packing.pack(own[instance])
            packed.update({f"{instance}/{n}": a for n, a in pieces.items()})
        return packed

    def unpack(self, packed: Arrays) -> ArrayDict:
        """The inverse of :meth:`pack`; tensors that are not there are skipped."""
        neutral = {n: packed[n] for n in self.plain if n in packed}
        shapes: dict[str, dict[str, tuple[int, ...]]] = {instance: {} for instance in self.claimed}
        for name, shape in self.shapes.items():
            if owner_of(name) in shapes:
                shapes[owner_of(name)][local_of(name)] = shape
        for instance, packing in self.claimed.items():
            found = {
                n: packed[f"{instance}/{n}"] for n in packing.pieces if f"{instance}/{n}" in packed
            }
            local = packing.unpack(found, shapes[instance])
            neutral.update({f"{instance}.{n}": a for n, a in local.items()})
        return neutral
