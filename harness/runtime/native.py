"""Layers, losses and optimizers that a backend may claim as the framework's own.

Tensors are passed by name. Tensors passed to a function here belong to the harness, which may pass
them again. A function writes into them only if its docstring says so. Floats have the dtype of the
session. Indices have the dtype that :meth:`harness.runtime.backend.Backend.tensor` gives int64
arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from harness.arrays import ArrayDict, Arrays
from harness.program.dims import Dim
from harness.program.ir import Meaning, Node, Phase, Program
from harness.program.signature import call_key, local_of, local_shapes, owner_of
from harness.runtime.interpreter import Table
from harness.runtime.packing import HOST, FrozenZeros, Join, Packing, Stack, in_order
from harness.runtime.packing import Tensors as Tensors

# (variables, constants) -> results; all three map names to tensors, see harness.runtime.session.
# Variables are floats. Arguments are not written into.
Function = Callable[[Tensors, Tensors], Tensors]
# (variables, constants) -> (results, gradient of results["scalar"] for every variable).
GradientFunction = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
F = TypeVar("F", Function, GradientFunction)
# One whole step: (carried, fixed, batch) -> (next carried, results). The step may write into the
# carried tensors, and into nothing else. If an optimizer is claimed, carried["optimizer"] is its
# state, in any form.
Advance = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]


@dataclass(frozen=True)
class ClaimableCall:
    """A call that a backend may claim, with everything that decides whether it can.

    The lengths of a batch are not included: one claim serves all of them.

    Attributes:
        node: The call. Its ``attributes`` describe it: ``kind`` (``layer`` or ``loss``),
            ``definition``, ``attributes``, ``roles`` (the roles of its inputs, in order) and
            ``results`` (the names of its results, in order). A layer also has ``instance``, its
            name in the model. Definitions and functions have the spec's names there; the properties
            below resolve them by meaning.
        phase: ``training`` or ``inference``. The harness asks separately for each.
        shapes: The shapes of the neutral parameters and statistics by local name, in numbers. An
            LSTM has ``W_i`` ``[features, units]`` and ``b_i`` ``[units]``; a loss has none.
        sizes: The model's sizes by name.
        calls: The number of calls of this layer in the model. Calls of a layer with statistics run
            in
            order: each begins with the statistics that the previous call returned.
    """

    node: Node
    phase: Phase
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    calls: int = 1

    @classmethod
    def of(cls, program: Program, node: Node, phase: Phase | None = None) -> Self:
        """Make the claimable call of a program's node, at the program's phase unless another is
        given."""
        return cls(node, phase or program.phase, local_shapes(program, node), program.sizes)

    @property
    def definition(self) -> str:
        """The definition's name by its meaning, such as ``lstm``.

        A definition that ships keeps its name, also as a copy under another name. A different
        definition under the name of one that ships is ``lstm@`` and its checksum. Other definitions
        keep the names that their authors gave them.
        """
        known = self._meaning
        return known.name if known else str(self.node.attributes["definition"])

    @property
    def checksum(self) -> str:
        """The checksum of the definition's meaning: its equations and the functions that they call.

        ``harness explain`` shows it. A claim by checksum holds whatever the definition's name is.
        """
        return self._meaning.checksum if self._meaning else ""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The call's attributes: numbers, sizes as whole numbers, functions' names by their
        meaning."""
        given = self.node.attributes["attributes"].items()
        numbers = {n: v.resolve(self.sizes) if isinstance(v, Dim) else v for n, v in given}
        return {**numbers, **(self._meaning.functions if self._meaning else {})}

    @property
    def _meaning(self) -> Meaning | None:
        """The meaning of the definition; None for a program that was made without a spec."""
        found = self.node.attributes.get("meaning")
        return found if isinstance(found, Meaning) else None


def calls_by_layer(
    program: Program, phase: Phase | None = None
) -> dict[str, tuple[ClaimableCall, ...]]:
    """Return all calls that can be one native layer: layers by instance, losses by name.

    Layers that share parameters are one instance. An instance is left out if its calls differ, for
    example in a function, in strides or in the definition.

    Args:
        program: The program.
        phase: Another phase than the program's own, as in :meth:`ClaimableCall.of`.
    """
    found: dict[str, list[ClaimableCall]] = {}
    for node in program.calls:
        found.setdefault(call_key(node), []).append(ClaimableCall.of(program, node, phase))
    kinds = {key: (calls[0].definition, calls[0].attributes) for key, calls in found.items()}
    return {
        key: tuple(replace(call, calls=len(calls)) for call in calls)
        for key, calls in found.items()
        if all((call.definition, call.attributes) == kinds[key] for call in calls)
    }


@dataclass(frozen=True)
class Chain:
    """A framework's way to run consecutive layers in one call, as ``torch.lstm`` does.

    The first input of each later layer is the first result of the layer before, which nothing else
    reads.

    Attributes:
        kind: Layers of equal kinds may be in one chain.
        run: A function of one list, with the arguments (values, packed) of :attr:`Native.run` for
            each layer, in order, without the inputs made inside the chain. It returns the first
            result of the last layer, followed by all other results of each layer, in order.
    """

    kind: Hashable
    run: Callable[[Sequence[tuple[Tensors, Tensors]]], Sequence[Any]]


@dataclass(frozen=True)
class Native:
    """A claimed layer or loss.

    ``run(values, packed)`` is the call. ``values`` holds inputs, states and statistics by role: an
    LSTM's ``x`` ``[batch, time, features]``, ``h`` and ``c`` ``[batch, units]``; a loss's
    ``logits`` ``[..., classes]`` and ``target``. ``packed`` holds the parameters by the names of
    ``packing``. The call does not write into its arguments. It returns a list or a tuple with one
    tensor for each name in ``node.attributes["results"]``. The order is the output, the last
    states, the new statistics (in inference the given ones). A loss returns one number for each
    example, not their mean. The backend's own automatic differentiation differentiates the call.

    Attributes:
        label: The framework's own class or function, for the record: ``torch.lstm``.
        run: The call, as above.
        packing: How the neutral parameters lie in the framework's tensors.
        chain: How consecutive layers of this kind run as one call, if the framework can do that.
    """

    label: str
    run: Callable[[Tensors, Tensors], Sequence[Any]]
    packing: Packing
    chain: Chain | None = field(default=None, kw_only=True)


class Layout:
    """The map between neutral parameters outside and packed tensors inside.

    ``rnn.W`` is a part of ``rnn/kernel``, or is kept as it is. ``natives`` are the layers that a
    framework runs, by instance.
    """

    def __init__(self, program: Program, natives: Mapping[str, Native]) -> None:
        self.shapes = {p.name: program.shape(p) for p in program.parameters}
        # In the order of the parameters, which is the order of an exported state_dict.
        owners = dict.fromkeys(map(owner_of, self.shapes))
        self.claimed = {key: natives[key].packing for key in owners if key in natives}
        self.plain = [name for name in self.shapes if owner_of(name) not in natives]
        self._local: dict[str, dict[str, tuple[int, ...]]] = {owner: {} for owner in self.claimed}
        for name, shape in self.shapes.items():
            if owner_of(name) in natives:
                self._local[owner_of(name)][local_of(name)] = shape

    @property
    def frozen(self) -> frozenset[str]:
        """The packed tensors that are not trained."""
        return frozenset(f"{i}/{n}" for i, packing in self.claimed.items() for n in packing.frozen)

    @property
    def joined(self) -> bool:
        """True if a packed tensor holds several parameters."""
        pieces = (piece for packing in self.claimed.values() for piece in packing.pieces.values())
        return any(isinstance(piece, Join | Stack) for piece in pieces)

    def pack(self, neutral: Arrays) -> ArrayDict:
        """Convert neutral arrays to the framework's packed arrays."""
        return in_order(self.packed(HOST, neutral, frozen=True))

    def unpack(self, packed: Arrays) -> ArrayDict:
        """Invert :meth:`pack`; missing tensors are skipped."""
        return in_order(self.unpacked(HOST, packed))

    def packed(self, table: Table, neutral: Mapping[str, Any], *, frozen: bool = False) -> Tensors:
        """Convert neutral tensors to packed ones with ``table``; with ``frozen``, include frozen
        zeros."""
        packed = {n: neutral[n] for n in self.plain}
        for instance, packing in self.claimed.items():
            own = {n: neutral[f"{instance}.{n}"] for n in self._local[instance]}
            for name, piece in packing.pieces.items():
                if frozen or not isinstance(piece, FrozenZeros):
                    packed[f"{instance}/{name}"] = piece.pack(table, own)
        return packed

    def unpacked(self, table: Table, packed: Mapping[str, Any]) -> Tensors:
        """Invert :meth:`packed`; missing tensors are skipped."""
        neutral = {n: packed[n] for n in self.plain if n in packed}
        for instance, packing in self.claimed.items():
            own: Tensors = {}
            for name, piece in packing.pieces.items():
                if f"{instance}/{name}" in packed:
                    tensor = packed[f"{instance}/{name}"]
                    piece.unpack(table, tensor, self._local[instance], own)
            neutral |= {f"{instance}.{n}": tensor for n, tensor in own.items()}
        return neutral


class WholeModel(ABC):
    """A framework's own object for a whole model, which computes most of a session's program.

    Its backend sets it as ``whole`` of the session that
    :meth:`harness.runtime.backend.Backend.session` returns.
    """

    @abstractmethod
    def build(self, phase: Phase, sizes: Mapping[str, int]) -> None:
        """Make the object if it does not exist yet: called before a compiler traces a run.

        Args:
            phase: ``training`` or ``inference``.
            sizes: A number for every size of the program, including the sizes of a batch.
        """

    @abstractmethod
    def run(
        self, phase: Phase, sizes: Mapping[str, int], values: dict[int, Any], variables: Tensors
    ) -> frozenset[int]:
        """Compute the object's part of the program; the harness interprets the rest.

        Args:
            phase: As in :meth:`build`.
            sizes: As in :meth:`build`.
            values: The program's input tensors, by number; results are added.
            variables: The parameters by their packed names; not written into.

        Returns:
            The numbers of the values that need no further computing.
        """


class NativeOptimizer(ABC):
    """A framework's own optimizer over named variables.

    The variables are the trained parameters, under the framework's packed names.

    Attributes:
        label: The framework's own class, for the record: ``torch.optim.Adam``.
        clips: Whether :meth:`update` does the :func:`~harness.program.clipping.clipping` of the
            rule. If true, the gradients are passed unclipped.
    """

    label: str
    clips: bool = False

    @abstractmethod
    def start(self, variables: Tensors) -> Any:
        """Return the state before the first step, in any form; the harness only passes it on.

        Args:
            variables: By name, with their first values; not written into.
        """

    @abstractmethod
    def update(
        self,
        state: Any,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: Any,
        donate: bool = False,
    ) -> tuple[Any, Tensors]:
        """Make one step. :meth:`harness.runtime.backend.Backend.advance` may trace it.

        Args:
            state: The state from :meth:`start` or from the previous step; given away.
            variables: By name, each of its own shape.
            gradients: By the same names, of the same shapes and dtype.
            learning_rate: The rate of this step, which may differ from the previous one. It is a
                tensor of shape ``[]`` if the model has a learning-rate schedule.
            donate: Whether the variables and gradients are given away as well, and may be written
                into. If not, they keep their values.

        Returns:
            The next state, and the next value of every variable by name.
        """

    @abstractmethod
    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """Return the slots of a state, as the definition has them.

        Args:
            state: As :meth:`update` takes it; it is used again afterwards.

        Returns:
            By slot (``m``, ``v``) a tensor for every variable, of the variable's shape. Before the
            first step these are the slot's initial values. Empty for an optimizer without slots.
        """
