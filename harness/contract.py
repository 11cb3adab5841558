"""The backend contract: what a framework must give, and what it may.

A backend must give a table of primitives and the way of an array in and out; the rest of this
class then runs every program, trains it with the gradient that the program derives for itself,
and is checked like any other. All further methods are offers: automatic differentiation,
compilation, a loop of its own, native layers and optimizers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError
from harness.packing import Packing
from harness.program import Node, Phase, Program, UpdateRule
from harness.walk import Step, Table, loop

if TYPE_CHECKING:
    from harness.session import Session

Tensors = dict[str, Any]
# (variables, constants) -> results; all three map names to tensors.
Function = Callable[[Tensors, Tensors], Tensors]
# (variables, constants) -> (results, gradient of results["scalar"] for every variable).
GradientFunction = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


@dataclass(frozen=True)
class Layer:
    """A call that a backend may claim, with everything that decides whether it can.

    ``shapes`` are the neutral parameters' and statistics' by local name (``W_i``), in numbers.
    """

    node: Node
    phase: Phase
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def definition(self) -> str:
        """The definition's name, such as ``lstm``; a loss is ``sparse_cross_entropy``."""
        return str(self.node.attributes["definition"])

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Function names and numbers by attribute."""
        return self.node.attributes["attributes"]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Native:
    """A claimed layer or loss.

    ``run(values, packed)`` takes the inputs, states and statistics by role, and the packed
    parameters by the framework's names; it returns the outputs in the order of the call's
    results. ``label`` names the framework's own class, for the record.
    """

    label: str
    run: Callable[[Tensors, Tensors], Sequence[Any]]
    packing: Packing


class NativeOptimizer(ABC):
    """A framework's own optimizer over named variables."""

    label: str

    @abstractmethod
    def start(self, variables: Tensors) -> Any:
        """The state before the first step."""

    @abstractmethod
    def update(
        self, state: Any, variables: Tensors, gradients: Tensors, learning_rate: float
    ) -> tuple[Any, Tensors]:
        """One step: (next state, next variables)."""

    @abstractmethod
    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """The slots by the names of the definition, then by variable."""


class Backend(ABC):
    """One framework. Instances live in a worker process of their own."""

    name: str
    # Set while functions run a few times at many shapes, as in checks: compile quickly rather
    # than for speed, where the framework lets one choose.
    quick: bool = False

    @property
    @abstractmethod
    def primitives(self) -> Table:
        """A function for every name in :data:`harness.primitives.TABLE`."""

    @abstractmethod
    def tensor(self, array: npt.NDArray[Any]) -> Any:
        """A tensor on the session's device; dtypes are float64, float32, int64 and bool."""

    @abstractmethod
    def numpy(self, tensor: Any) -> npt.NDArray[Any]:
        """The values, in the tensor's own dtype, once they are there: this waits for the device."""

    def versions(self) -> Mapping[str, str]:
        """Distribution names and versions of what computes."""
        return {"numpy": np.__version__}

    def devices(self) -> Sequence[str]:
        """What ``--device`` may name."""
        return ("cpu",)

    def dtypes(self) -> Sequence[str]:
        """What ``--dtype`` may name."""
        return ("float64", "float32")

    def use(self, device: str, dtype: str) -> None:
        """Prepare for a session on a device, in a dtype; :class:`UsageError` if it has neither."""
        for what, value, offered in (
            ("device", device, self.devices()),
            ("dtype", dtype, self.dtypes()),
        ):
            if value not in offered:
                raise UsageError(f"{self.name} has no {what} {value!r} (has: {', '.join(offered)})")

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a loop over the first axis; see :func:`harness.walk.loop`."""
        return loop(self.primitives, step, carries, sequences, reverse)

    def compile(self, function: Function) -> Function:
        """The same function, faster."""
        return function

    def value_and_gradient(self, function: Function) -> GradientFunction | None:
        """Automatic differentiation of ``results["scalar"]``, or None: then it is derived."""
        return None

    def claim(self, layer: Layer) -> Native | None:
        """The framework's own layer or loss, if it is exactly this one.

        Answered before anything runs. A claim is a promise: a claimed call that fails is an error.
        """
        return None

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        """The framework's own optimizer, if its update is exactly this one."""
        return None

    def session(self, training: Program, inference: Program, **choices: Any) -> Session:
        """What runs one model; a backend with its own notion of a model overrides this."""
        from harness.session import Session

        return Session(self, training, inference, **choices)
