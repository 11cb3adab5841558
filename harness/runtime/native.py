"""Types for claims: a backend claims a layer, loss or optimizer, i.e. it offers to run its
framework's own implementation.

Functions here get and return tensors by name. The tensors that they get belong to the harness,
which may pass them again. A function writes into them only if its docstring allows it. Floats have
the dtype of the session. Indices have the dtype that :meth:`harness.runtime.backend.Backend.tensor`
gives int64 arrays.
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
# Variables are floats. The function does not write into its arguments.
Function = Callable[[Tensors, Tensors], Tensors]
# (variables, constants) -> (results, gradient of results["scalar"] for every variable).
GradientFunction = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
F = TypeVar("F", Function, GradientFunction)
# One whole step: (carried, fixed, batch) -> (next carried, results). The step may write only into
# the carried tensors. If an optimizer is claimed, carried["optimizer"] is its state, any object.
Advance = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]


@dataclass(frozen=True)
class ClaimableCall:
    """A call of a layer or loss that a backend may claim (offer to run with the framework's own
    implementation), with everything on which the decision depends.

    The batch size and sequence length are not included: one claim serves all of them.

    Attributes:
        node: The call. Its ``attributes`` describe it: ``kind`` (``layer`` or ``loss``),
            ``definition``, ``attributes``, ``roles`` (the roles of its inputs, in order) and
            ``results`` (the names of its results, in order). A layer also has ``instance``, its
            name in the model. These attributes have the spec's names of definitions and functions.
            The properties below translate them to the names of the equal definitions that ship with
            the harness.
        phase: ``training`` or ``inference``. The harness asks for a claim in each phase separately.
        shapes: The shapes of the spec's parameters and statistics, by their names in the layer. An
            LSTM has ``W_i`` ``[features, units]`` and ``b_i`` ``[units]``; a loss has no shapes.
        sizes: The model's sizes by name.
        calls: The number of calls of this layer in the model. Calls of a layer with statistics run
            in order. Each call starts from the statistics that the previous call returned.
    """

    node: Node
    phase: Phase
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    calls: int = 1

    @classmethod
    def of(cls, program: Program, node: Node, phase: Phase | None = None) -> Self:
        """Return the claimable call for a node (a call) of a program. ``phase`` defaults to the
        program's own phase."""
        return cls(node, phase or program.phase, local_shapes(program, node), program.sizes)

    @property
    def definition(self) -> str:
        """The name of the definition of this layer or loss, such as ``lstm``.

        If the user's definition has the same equations as a definition that ships with the harness,
        it is the shipped name, whatever the user's name is. If the user gave a shipped name to
        different equations, it is e.g. ``lstm@`` and a checksum. Otherwise it is the user's name.
        """
        meaning = self._meaning
        return meaning.name if meaning else str(self.node.attributes["definition"])

    @property
    def checksum(self) -> str:
        """The checksum of the definition's equations and of the functions that they call.

        ``harness explain`` prints the checksum. A backend may decide by the checksum instead of the
        definition's name, which a user can change.
        """
        return self._meaning.checksum if self._meaning else ""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The call's attributes by name: numbers, booleans and names of shipped functions. An
        attribute with one value per axis is a tuple of integers or of pairs, or ``"same"``."""
        given = self.node.attributes["attributes"].items()
        numbers = {n: _resolved(v, self.sizes) for n, v in given}
        return {**numbers, **(self._meaning.functions if self._meaning else {})}

    @property
    def _meaning(self) -> Meaning | None:
        """The definition to which the call's definition is equal, and its checksum; None if the
        program was made without a spec."""
        meaning = self.node.attributes.get("meaning")
        return meaning if isinstance(meaning, Meaning) else None


def _resolved(value: Any, sizes: Mapping[str, int]) -> Any:
    """Return an attribute with numbers instead of the names of sizes. This also applies to the
    entries of tuples."""
    if isinstance(value, tuple):
        return tuple(_resolved(item, sizes) for item in value)
    return value.resolve(sizes) if isinstance(value, Dim) else value


def calls_by_layer(
    program: Program, phase: Phase | None = None
) -> dict[str, tuple[ClaimableCall, ...]]:
    """Return a dictionary from each layer (by its name in the model) or loss to its calls, for
    those that a backend can claim, i.e. offer to run.

    Layers that share parameters have one entry. A layer is left out if its calls differ, for
    example in a function, in strides or in the definition.

    Args:
        program: The program.
        phase: The phase of the calls, if it is not the program's own.
    """
    calls_by_key: dict[str, list[ClaimableCall]] = {}
    for node in program.calls:
        calls_by_key.setdefault(call_key(node), []).append(ClaimableCall.of(program, node, phase))
    kinds = {key: (calls[0].definition, calls[0].attributes) for key, calls in calls_by_key.items()}
    return {
        key: tuple(replace(call, calls=len(calls)) for call in calls)
        for key, calls in calls_by_key.items()
        if all((call.definition, call.attributes) == kinds[key] for call in calls)
    }


@dataclass(frozen=True)
class Chain:
    """A framework's way to run consecutive layers in one call, as ``torch.lstm`` runs several LSTM
    layers.

    The first input of each later layer is the first result of the layer before it. No other
    operation reads that result.

    Attributes:
        kind: Only layers with equal kinds can be in one chain.
        run: A function of one list: the arguments (values, packed) of :attr:`Native.run` for each
            layer, in order. Inputs that the chain itself computes are missing. The function returns
            the first result of the last layer, then the other results of each layer, in order.
    """

    kind: Hashable
    run: Callable[[Sequence[tuple[Tensors, Tensors]]], Sequence[Any]]


@dataclass(frozen=True)
class Native:
    """A layer or loss of the framework itself, which a backend offers to run.

    ``run(values, packed)`` is the call. ``values`` holds inputs, states and statistics by role. An
    LSTM has ``x`` ``[batch, time, features]``, ``h`` and ``c`` ``[batch, units]``. A loss has
    ``logits`` ``[..., classes]`` and ``target``. ``packed`` holds the parameters by the names of
    ``packing``. The call does not write into its arguments.

    The call returns a list or a tuple with one tensor for each name in
    ``node.attributes["results"]``. The order is: the output, the last states, the new statistics
    (in inference the old ones). A loss returns one number for each example, not their mean. The
    backend's own automatic differentiation differentiates the call.

    Attributes:
        label: The framework's class or function, as the record shows it: ``torch.lstm``.
        run: The call, as above.
        packing: The map from the spec's parameters to the framework's tensors.
        chain: How consecutive layers of this kind run as one call, if the framework can do that.
    """

    label: str
    run: Callable[[Tensors, Tensors], Sequence[Any]]
    packing: Packing
    chain: Chain | None = field(default=None, kw_only=True)


class Layout:
    """The map between the spec's parameters and the framework's packed tensors (a packed tensor may
    hold several parameters).

    A parameter such as ``rnn.W`` is a part of a packed tensor such as ``rnn/kernel``. If the
    framework does not run its layer, the parameter stays as it is. ``natives`` maps the name of a
    layer in the model to the framework's own implementation.
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
        """The names of the packed tensors that are not trained."""
        return frozenset(f"{i}/{n}" for i, packing in self.claimed.items() for n in packing.frozen)

    @property
    def joined(self) -> bool:
        """True if a packed tensor holds more than one parameter."""
        pieces = (piece for packing in self.claimed.values() for piece in packing.pieces.values())
        return any(isinstance(piece, Join | Stack) for piece in pieces)

    def pack(self, neutral: Arrays) -> ArrayDict:
        """Convert arrays of the spec's parameters to arrays in the layout of the framework's
        tensors."""
        return in_order(self.packed(HOST, neutral, frozen=True))

    def unpack(self, packed: Arrays) -> ArrayDict:
        """Convert arrays in the layout of the framework's tensors back to arrays of the spec's
        parameters. Parameters whose packed array is missing are left out."""
        return in_order(self.unpacked(HOST, packed))

    def packed(self, table: Table, neutral: Mapping[str, Any], *, frozen: bool = False) -> Tensors:
        """Convert the spec's parameters to packed tensors, by calling the primitives in ``table``.

        With ``frozen``, the result also has the tensors of zeros that are never trained.
        """
        packed = {n: neutral[n] for n in self.plain}
        for instance, packing in self.claimed.items():
            own = {n: neutral[f"{instance}.{n}"] for n in self._local[instance]}
            for name, piece in packing.pieces.items():
                if frozen or not isinstance(piece, FrozenZeros):
                    packed[f"{instance}/{name}"] = piece.pack(table, own)
        return packed

    def unpacked(self, table: Table, packed: Mapping[str, Any]) -> Tensors:
        """Convert packed tensors back to the spec's parameters, by calling the primitives in
        ``table``. Parameters whose tensor is missing are left out."""
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
    """A framework's own object for a whole model, such as a Keras model.

    It computes most of a session's program. A backend assigns it to the attribute ``whole`` of the
    session that :meth:`harness.runtime.backend.Backend.session` returns.
    """

    @abstractmethod
    def build(self, phase: Phase, sizes: Mapping[str, int]) -> None:
        """Make the object if it does not exist yet. The harness calls this method before a compiler
        traces a call.

        Args:
            phase: ``training`` or ``inference``.
            sizes: A number for every size of the program, including the sizes of a batch.
        """

    @abstractmethod
    def run(
        self, phase: Phase, sizes: Mapping[str, int], values: dict[int, Any], variables: Tensors
    ) -> frozenset[int]:
        """Compute the object's part of the program. The harness then runs the remaining operations.

        Args:
            phase: As in :meth:`build`.
            sizes: As in :meth:`build`.
            values: The program's input tensors, by value number. The method adds its results.
            variables: The parameters by their packed names; the method does not write into them.

        Returns:
            The numbers of the values that the harness no longer needs to compute.
        """


class NativeOptimizer(ABC):
    """A framework's own optimizer for variables that have names.

    The variables are the trained parameters, as packed tensors (which may hold several parameters)
    under the framework's names.

    Attributes:
        label: The framework's class, as the record shows it: ``torch.optim.Adam``.
        clips: Whether :meth:`update` does the :func:`~harness.program.clipping.clipping` of the
            rule. If true, the gradients are passed unclipped.
    """

    label: str
    clips: bool = False

    @abstractmethod
    def start(self, variables: Tensors) -> Any:
        """Return the optimizer state before the first step. It may be any object.

        Args:
            variables: The variables by name, with their initial values; the method does not write
                into them.
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
        """Make one optimizer step. :meth:`harness.runtime.backend.Backend.advance` may trace this
        method.

        Args:
            state: The state from :meth:`start` or from the previous step. The method may overwrite
                it.
            variables: The variables by name.
            gradients: The gradients under the same names, in the same shapes and dtype.
            learning_rate: The learning rate of this step, which may differ from the previous
                step's. It is a tensor of shape ``[]`` if the model has a learning-rate schedule.
            donate: Whether the method may overwrite the variables and gradients too.

        Returns:
            The next state, and the next value of every variable by name.
        """

    @abstractmethod
    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """Return the optimizer slots that a state contains, under the names of the spec's
        definition of the optimizer.

        Args:
            state: A state of :meth:`update`. The harness uses it again afterwards.

        Returns:
            A mapping from slot (``m``, ``v``) to a tensor for every variable, in the variable's
            shape. Before the first step the tensors hold the initial values. The mapping is empty
            if the optimizer has no slots.
        """
