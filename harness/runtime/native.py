"""What a backend may claim as the framework's own: layers, losses and optimizers.

Tensors are passed by name. Those that a function here is given belong to the harness, which may
pass them again: they are written into only where it says so. Floats have the dtype of the session,
indices the one that :meth:`harness.runtime.backend.Backend.tensor` gives int64 arrays.
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
# Variables are floats. What is passed in is not written into.
Function = Callable[[Tensors, Tensors], Tensors]
# (variables, constants) -> (results, gradient of results["scalar"] for every variable).
GradientFunction = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
F = TypeVar("F", Function, GradientFunction)
# One whole step: (what is carried to the next, what stays, a batch) -> (next carried, results).
# What is carried is given away, and may be written into; nothing else is. Of a claimed optimizer it
# holds, under "optimizer", the state that the optimizer made: in any form.
Advance = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]


@dataclass(frozen=True)
class ClaimableCall:
    """A call that a backend may claim, with everything that decides whether it can.

    Lengths of a batch are not among it: one claim serves all of them.

    Attributes:
        node: The call. Its ``attributes`` say what it is: ``kind`` (``layer`` or ``loss``),
            ``definition``, ``attributes``, ``roles`` (what its inputs are, in order) and
            ``results`` (what it gives, in order); of a layer also ``instance``, its name in the
            model. Names of definitions and functions are there as the spec has them: what they
            mean is below.
        phase: ``training`` or ``inference``. Each is asked for apart.
        shapes: Those of the neutral parameters and statistics by local name, in numbers. An LSTM
            has ``W_i`` ``[features, units]`` and ``b_i`` ``[units]``; a loss has none.
        sizes: The model's sizes by name.
        calls: How many calls the model has of this layer. Those of one with statistics are in
            order: each begins with what the one before has made of them.
    """

    node: Node
    phase: Phase
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    calls: int = 1

    @classmethod
    def of(cls, program: Program, node: Node, phase: Phase | None = None) -> Self:
        """A call of a program, at the program's own phase unless another is given."""
        return cls(node, phase or program.phase, local_shapes(program, node), program.sizes)

    @property
    def definition(self) -> str:
        """The definition's name by what it means, such as ``lstm``.

        A definition that ships has its own, and so has a copy under another name. One that has the
        name of a definition that ships and means something else is ``lstm@`` and its checksum.
        Others have the names that their authors gave them.
        """
        known = self._meaning
        return known.name if known else str(self.node.attributes["definition"])

    @property
    def checksum(self) -> str:
        """What the definition means: its equations, and the functions that they call, as data.

        ``harness explain`` shows it. What is claimed by it is claimed whatever its name is.
        """
        return self._meaning.checksum if self._meaning else ""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """By attribute: numbers, sizes as whole numbers, and functions' names by what they mean."""
        given = self.node.attributes["attributes"].items()
        numbers = {n: v.resolve(self.sizes) if isinstance(v, Dim) else v for n, v in given}
        return {**numbers, **(self._meaning.functions if self._meaning else {})}

    @property
    def _meaning(self) -> Meaning | None:
        """None for a program that was made without a spec."""
        found = self.node.attributes.get("meaning")
        return found if isinstance(found, Meaning) else None


def calls_by_layer(
    program: Program, phase: Phase | None = None
) -> dict[str, tuple[ClaimableCall, ...]]:
    """All calls that can be one native layer: of a layer by its instance, of a loss by its name.

    Layers that share parameters are one instance. They are left out where they are not alike: one
    may have another function, other strides, or be of another definition.

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
    """How a framework runs layers one behind the other in one call, as ``torch.lstm`` does.

    The first input of each but the first is the first result of the one before, which nothing else
    reads.

    Attributes:
        kind: Layers of equal kinds may be in one chain.
        run: Is given for each layer, in order, what its :attr:`Native.run` would be: (values,
            packed), but for the inputs that are made in between. Returns the first result of the
            last layer, and behind it all other results of each layer, in order.
    """

    kind: Hashable
    run: Callable[[Sequence[tuple[Tensors, Tensors]]], Sequence[Any]]


@dataclass(frozen=True)
class Native:
    """A claimed layer or loss.

    ``run(values, packed)`` is the call. ``values`` holds inputs, states and statistics by role: an
    LSTM's ``x`` ``[batch, time, features]``, ``h`` and ``c`` ``[batch, units]``; a loss's
    ``logits`` ``[..., classes]`` and ``target``. ``packed`` holds the parameters by the names of
    ``packing``. Neither is written into. What comes back is a list or a tuple of as many tensors
    as ``node.attributes["results"]`` names, in that order: the output, the last states, the new
    statistics (in inference those that came in). A loss gives one number for each example, not
    their mean. The backend's own differentiation goes through all of it.

    Attributes:
        label: The framework's own class or function, for the record: ``torch.lstm``.
        run: The call, as above.
        packing: How the neutral parameters lie in the framework's tensors.
        chain: How layers of this kind run as one, where the framework has that.
    """

    label: str
    run: Callable[[Tensors, Tensors], Sequence[Any]]
    packing: Packing
    chain: Chain | None = field(default=None, kw_only=True)


class Layout:
    """Where parameters live: neutral names outside, packed tensors inside. ``rnn.W`` is a part of
    ``rnn/kernel``, or itself. ``natives`` are the layers that a framework runs, by instance.
    """

    def __init__(self, program: Program, natives: Mapping[str, Native]) -> None:
        self.shapes = {p.name: program.shape(p) for p in program.parameters}
        owners = {owner_of(name) for name in self.shapes}
        self.claimed = {key: native.packing for key, native in natives.items() if key in owners}
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
        """Whether a packed tensor holds several parameters."""
        pieces = (piece for packing in self.claimed.values() for piece in packing.pieces.values())
        return any(isinstance(piece, Join | Stack) for piece in pieces)

    def pack(self, neutral: Arrays) -> ArrayDict:
        """Neutral arrays as the framework's."""
        return in_order(self.packed(HOST, neutral, frozen=True))

    def unpack(self, packed: Arrays) -> ArrayDict:
        """The inverse of :meth:`pack`; tensors that are not there are skipped."""
        return in_order(self.unpacked(HOST, packed))

    def packed(self, table: Table, neutral: Mapping[str, Any], *, frozen: bool = False) -> Tensors:
        """Neutral tensors of a table as the framework's, those that are ``frozen`` if asked."""
        packed = {n: neutral[n] for n in self.plain}
        for instance, packing in self.claimed.items():
            own = {n: neutral[f"{instance}.{n}"] for n in self._local[instance]}
            for name, piece in packing.pieces.items():
                if frozen or not isinstance(piece, FrozenZeros):
                    packed[f"{instance}/{name}"] = piece.pack(table, own)
        return packed

    def unpacked(self, table: Table, packed: Mapping[str, Any]) -> Tensors:
        """The inverse of :meth:`packed`; tensors that are not there are skipped."""
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

    A backend that has one sets it as ``whole`` of the session that its
    :meth:`harness.runtime.backend.Backend.session` returns.
    """

    @abstractmethod
    def build(self, phase: Phase, sizes: Mapping[str, int]) -> None:
        """Make the object, if it is not there yet: asked before a compiler traces a run of it.

        Args:
            phase: ``training`` or ``inference``.
            sizes: A number for every size of the program, those of a batch included.
        """

    @abstractmethod
    def run(
        self, phase: Phase, sizes: Mapping[str, int], values: dict[int, Any], variables: Tensors
    ) -> frozenset[int]:
        """Compute what the object computes; all else of the program is interpreted.

        Args:
            phase: As in :meth:`build`.
            sizes: As in :meth:`build`.
            values: The tensors that came in, by the numbers of the program; results are added.
            variables: The parameters by their packed names; not written into.

        Returns:
            The numbers of the values that need not be computed any more.
        """


class NativeOptimizer(ABC):
    """A framework's own optimizer over named variables.

    The variables are the parameters that are trained, under the framework's packed names.

    Attributes:
        label: The framework's own class, for the record: ``torch.optim.Adam``.
        clips: Whether :meth:`update` does the :func:`~harness.program.clipping.clipping` of the
            rule: gradients then come as they are.
    """

    label: str
    clips: bool = False

    @abstractmethod
    def start(self, variables: Tensors) -> Any:
        """The state before the first step, in any form; the harness only hands it on.

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
        """One step. May be traced by :meth:`harness.runtime.backend.Backend.advance`.

        Args:
            state: What :meth:`start` or the step before returned; given away.
            variables: By name, each of its own shape.
            gradients: By the same names, of the same shapes and dtype.
            learning_rate: It may change from step to step; the state goes on. A tensor of shape
                ``[]`` where the model has a schedule, which depends on the step.
            donate: Whether the variables and gradients are given away as well, and may be written
                into. Else they keep their values.

        Returns:
            The next state, and the next value of every variable by name.
        """

    @abstractmethod
    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """The slots in a state, as the definition has them.

        Args:
            state: As :meth:`update` takes it; it is used again afterwards.

        Returns:
            By slot (``m``, ``v``) a tensor for every variable, of the variable's shape: what the
            slot starts as before the first step. Empty for an optimizer without slots.
        """
