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
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError
from harness.program.ir import Node, Phase, Program, UpdateRule
from harness.program.plan import Plan
from harness.runtime.interpreter import Interpreter, Step, Table, loop, stack
from harness.runtime.packing import Packing

Tensors = dict[str, Any]
# (variables, constants) -> results; all three map names to tensors.
Function = Callable[[Tensors, Tensors], Tensors]
# (variables, constants) -> (results, gradient of results["scalar"] for every variable).
GradientFunction = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
F = TypeVar("F", Function, GradientFunction)
# One whole step: (what is carried to the next, what stays, a batch) -> (next carried, results).
Advance = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]


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
        self,
        state: Any,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: float,
        donate: bool = False,
    ) -> tuple[Any, Tensors]:
        """One step: (next state, next variables). Donated variables may be written into."""

    @abstractmethod
    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """The slots by the names of the definition, then by variable."""


def host_dtype(dtype: str) -> str:
    """The dtype of the float arrays that go in and out of a session of ``dtype``.

    numpy has no bfloat16, so those are float32.
    """
    return "float64" if dtype == "float64" else "float32"


class Backend(ABC):
    """One framework. Instances live in a worker process of their own."""

    name: str
    # Operations beyond the primitives, of harness.program.fused.FUSED, that are faster as one.
    fused: Mapping[str, Callable[..., Any]] = {}
    # Set while functions run a few times at many shapes, as in checks: compile quickly rather
    # than for speed, where the framework lets one choose.
    quick: bool = False
    # Whether tensors can be written to; `fill` then does, and what `unstack` gives are views.
    rewrites: bool = False

    @property
    @abstractmethod
    def primitives(self) -> Table:
        """A function for every name in :data:`harness.program.primitives.TABLE`."""

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """A tensor on the session's device; dtypes are float64, float32, int64 and bool.

        In a session of bfloat16, which numpy does not have, floats come and go as float32.
        """

    @abstractmethod
    def numpy(self, tensor: Any) -> Array:
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
        """Run a loop over the first axis; see :func:`harness.runtime.interpreter.loop`."""
        return loop(self.primitives, step, carries, sequences, reverse)

    def compile(self, function: F) -> F:
        """The same function, faster: a :data:`Function` or a :data:`GradientFunction`."""
        return function

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """What runs a plan: inputs by name to outputs by name.

        Inputs come with their axes in the plan's ``orders``. Those that the plan carries are given
        away: they may be written into. Results are valid until the next run. :meth:`advance` is
        applied to what calls it.
        """
        table = {**self.primitives, **self.fused}

        def scalar(value: float) -> Any:
            return self.tensor(np.asarray(value, host_dtype(plan.dtype)))

        interpreter = Interpreter(table, plan.sizes, plan.dtype, scalar, self.scan)
        script = interpreter.prepared(plan.nodes)

        def run(inputs: Tensors) -> Tensors:
            values = script.run({v: inputs[n] for n, v in plan.inputs.items()})
            return {n: values[v] for n, v in plan.outputs.items()}

        return run

    def advance(self, step: Advance) -> Advance:
        """The same step, faster; what is carried is given away."""
        return step

    def several(self, step: Advance) -> Advance | None:
        """Many steps in one call, on batches stacked on a new first axis, if that is faster.

        The results are those of the last step.
        """
        return None

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Tensors of one shape, on a new first axis."""
        return stack(self.primitives, tensors)

    def unstack(self, tensor: Any) -> Sequence[Any]:
        """The tensors along the first axis; views of it where :attr:`rewrites` is true."""
        table = self.primitives
        parts = (table["slice"](tensor, axis=0, start=i, stop=i + 1) for i in range(len(tensor)))
        return [table["squeeze"](part, axis=0) for part in parts]

    def fill(self, tensor: Any, array: Array) -> None:
        """Write an array of a tensor's shape into it and so into all its views.

        Raises :class:`NotImplementedError` where :attr:`rewrites` is false.
        """
        raise NotImplementedError(f"tensors of {self.name} cannot be written to")

    def wait(self, tensors: Tensors) -> None:
        """Return when these are computed; reads them all where a framework has no better way."""
        for tensor in tensors.values():
            self.numpy(tensor)

    def flush_denormals(self) -> bool:
        """From here on take float32 numbers below 1.2e-38 as 0, where the framework has a switch
        for it; whether it has.

        A training asks for it: moments of parameters that are rarely used sink that low, and the
        arithmetic of CPUs is many times slower there. XLA always does it.
        """
        return False

    def settings(self) -> Mapping[str, str]:
        """What decides speed and digits beside versions: threads, TF32, determinism."""
        return {}

    def device_memory(self) -> int | None:
        """The most bytes of the device's memory that were in use, if it has its own."""
        return None

    def value_and_gradient(self, function: Function) -> GradientFunction | None:
        """Automatic differentiation of ``results["scalar"]``, or None: then it is derived.

        It must hold inside of what :meth:`compile` and :meth:`advance` make.
        """
        return None

    def claim(self, layer: Layer) -> Native | None:
        """The framework's own layer or loss, if it is exactly this one.

        Answered before anything runs. A claim is a promise: a claimed call that fails is an error.
        """
        return None

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        """The framework's own optimizer, if its update is exactly this one."""
        return None

    def session(self, training: Program, inference: Program, **choices: Any) -> Any:
        """The :class:`~harness.runtime.session.Session` of a model, or None for the plain one.

        For a backend with its own notion of a model; ``choices`` are the arguments of a session.
        """
        return None
