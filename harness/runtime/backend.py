"""The backend contract: what a framework must give, and what it may.

A backend must give a table of primitives and the way of an array in and out; the rest of this
class then runs every program, trains it with the gradient that the program derives for itself,
and is checked like any other. All further methods are offers: automatic differentiation,
compilation, a loop of its own, native layers and optimizers (:mod:`harness.runtime.native`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, did_you_mean, shorten
from harness.program.fused import FUSED, IN_PLACE
from harness.program.ir import Program
from harness.program.plan import Plan
from harness.program.primitives import EVERY
from harness.program.updates import UpdateRule
from harness.runtime.interpreter import Interpreter, Loop, Step, Table, loop, stack
from harness.runtime.native import (
    Advance,
    ClaimableCall,
    F,
    Function,
    GradientFunction,
    Native,
    NativeOptimizer,
    Tensors,
)
from harness.runtime.precision import host_dtype, with_products_in
from harness.runtime.promises import LONGEST, MOST_TEXTS


class Backend(ABC):
    """One framework. Instances live in a worker process of their own.

    Of a tensor nothing is asked but a ``shape``, a tuple of numbers. Tensors that a method is given
    belong to the harness, which may pass them again: they are written into only where it says that
    they are given away. What a method raises becomes the verdict of the check that asked: ``error``
    or ``out-of-memory``. What it returns is looked at, and where a promise is broken the harness
    raises :class:`harness.runtime.promises.ContractError`, which names the method.

    :meth:`versions`, :meth:`devices` and :meth:`dtypes` are asked when the worker starts. A session
    begins with :attr:`quick`, :attr:`deterministic`, :meth:`use`, :meth:`session`, then the claims.

    Attributes:
        name: That of the entry point.
        fused: Operations of :data:`harness.program.fused.FUSED`, and ``loose_max``, that are faster
            as one, called as primitives are. Plans hold none but those that are here.
        quick: Set by the harness where functions run a few times at many shapes, as in checks:
            compile quickly rather than for speed, where the framework lets one choose.
        exact: Set by the harness in a training: what is compiled gives the same bits each time.
        deterministic: Set by the harness where the same call is to give the same bits on any
            device, at any cost (``--deterministic``).
        fuses: Whether a step of a plan's loop is compiled as one, and then better left in a loop.
        rewrites: Whether :meth:`fill` can write into tensors, and so into their views.
        compiles: The paths for which there is a compiler on this machine: ``compiled``, for
            :meth:`compile_plan`, and ``native-compiled``, for :meth:`compile_native`.
        denormals: A promise to keep numbers below the smallest normal one, 1.2e-38 in float32,
            until :meth:`flush_denormals` is called; without it they may be 0.
    """

    name: str
    fused: Mapping[str, Callable[..., Any]] = {}
    quick: bool = False
    exact: bool = False
    deterministic: bool = False
    fuses: bool = False
    rewrites: bool = False
    compiles: Collection[str] = ()
    denormals: bool = False

    @property
    @abstractmethod
    def primitives(self) -> Table:
        """A function for every name in :data:`harness.program.primitives.TABLE`.

        Tensors come by position (``concat`` takes one list of them), attributes by keyword, as
        plain numbers, tuples and strings. Operands are not written into; a result may be a view.
        """

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """A tensor of an array's shape on the session's device.

        Floats keep their dtype, and integers get what the framework takes for indices.

        Args:
            array: ``[...]``, of any strides; int64, bool, float64 in a session of float64 and
                float32 in any other: in one of bfloat16 or float16 the harness has ``astype`` make
                what is narrower. To copy it is the safe way.
                Sessions keep nothing of what they pass, so a framework on the host's memory may
                keep it instead.
        """

    @abstractmethod
    def numpy(self, tensor: Any) -> Array:
        """The values of a tensor, once they are there: this waits for the device.

        Returns:
            An array of the tensor's shape and dtype. It is the caller's: no later call changes it.
        """

    def versions(self) -> Mapping[str, str]:
        """Distribution names and versions of what computes, 100 at most."""
        return {"numpy": np.__version__}

    def devices(self) -> Sequence[str]:
        """The devices that ``--device`` may name; a check on another is ``unsupported``."""
        return ("cpu",)

    def dtypes(self) -> Sequence[str]:
        """The names for ``--dtype``, of ``float64``, ``float32``, ``tf32``, ``bfloat16`` and
        ``float16``. With one of the last two, ``astype`` must make it of float32 and go back, and
        products must take it, with gradients: all else stays float32."""
        return ("float64", "float32")

    def lacks(self, dtype: str) -> Collection[str]:
        """The primitives of the table that the framework lacks in a dtype of :meth:`dtypes`, of
        :data:`harness.program.primitives.OFFERED`: a model that needs one is ``unsupported`` there.
        """
        return ()

    def use(self, device: str, dtype: str) -> None:
        """Prepare for the sessions to come, all on one device and in one dtype.

        Raises:
            UsageError: there is no such device or dtype.
        """
        for what, value, offered in (
            ("device", device, self.devices()),
            ("dtype", dtype, self.dtypes()),
        ):
            if value not in offered:
                raise UsageError(f"{self.name} has no {what} {value!r} (has: {', '.join(offered)})")

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a loop over the first axis. It holds inside of what the other methods compile.

        Args:
            step: From carried tensors and one slice ``[...]`` of each sequence to the next carried
                tensors, of the same shapes, and the outputs of the step.
            carries: The carried tensors before the first step.
            sequences: At least one, each ``[time, ...]``.
            reverse: Whether to go from the last time step to the first.

        Returns:
            The carried tensors after the last step, and each output ``[time, ...]``, in the order
            of time whichever way the loop went.
        """
        return loop(self.primitives, step, carries, sequences, reverse)

    def compile(self, function: F) -> F:
        """The same function, faster. Names are the same at every call, shapes may differ."""
        return function

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """Make what runs a plan; :meth:`advance` is applied to what calls it.

        Returns:
            A function from inputs to outputs, by the plan's names. An input has the shape
            ``plan.shape(plan.inputs[name])``, where ``plan.orders`` has been seen to. Those among
            ``plan.carried.values()`` are given away, others are not written into. Outputs are
            valid until the next run.
        """
        table = with_products_in({**self.primitives, **self.fused}, plan.products)
        return plan_script(plan, table, self.tensor, self.scan)

    def compile_plan(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """As :meth:`execute`, through the framework's own compiler: what the path ``compiled`` of
        bench and train runs, and what ``fastest`` tries where :attr:`compiles` names it.

        Raises:
            UsageError: there is no compiler, or not for this plan.
        """
        raise UsageError(f"{self.name} has no compiler of whole plans: take another path")

    def compile_native(self, function: F) -> F:
        """A function that calls the framework's own layers, with gradients or not, through its
        compiler: what the path ``native-compiled`` runs. Shapes stay those of the first call.

        Raises:
            UsageError: there is no compiler; from the function, that it is not for this one.
        """
        raise UsageError(f"{self.name} has no compiler of its own layers: take another path")

    def advance(self, step: Advance) -> Advance:
        """The same step, faster. Its shapes stay those of the first call."""
        return step

    def several(self, step: Advance) -> Advance | None:
        """Many steps in one call, if that is faster; None if not.

        Returns:
            A step whose batch holds several, each tensor ``[steps, ...]``, and so do its results.
            What it carries is that after the last one.
        """
        return None

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Tensors ``[...]`` of one shape as one ``[len(tensors), ...]``."""
        return stack(self.primitives, tensors)

    def unstack(self, tensor: Any) -> Sequence[Any]:
        """The tensors ``[...]`` along the first axis of one ``[count, ...]``, as views of it.

        Called where :attr:`rewrites` is true, and not otherwise.
        """
        table = self.primitives
        parts = (table["slice"](tensor, axis=0, start=i, stop=i + 1) for i in range(len(tensor)))
        return [table["squeeze"](part, axis=0) for part in parts]

    def fill(self, tensor: Any, array: Array) -> None:
        """Write an array into a tensor, and so into all its views.

        Args:
            tensor: What :meth:`tensor` or :meth:`unstack` made.
            array: Of the tensor's shape, in the dtypes of :meth:`tensor`; nothing of it is kept.

        Raises:
            NotImplementedError: :attr:`rewrites` is false.
        """
        raise NotImplementedError(f"tensors of {self.name} cannot be written to")

    def wait(self, tensors: Tensors) -> None:
        """Return when these are computed; left out, they are read."""
        for tensor in tensors.values():
            self.numpy(tensor)

    def flush_denormals(self, flush: bool = True) -> bool:
        """From here on take float32 numbers below 1.2e-38 as 0, or no longer, where the framework
        has a switch for it; whether it has.

        A training asks for it: moments of parameters that are rarely used sink that low, and the
        arithmetic of CPUs is many times slower there. XLA always does it.
        """
        return False

    def settings(self) -> Mapping[str, str]:
        """Settings that decide speed and digits beside versions, 100 at most: threads, TF32."""
        return {}

    def device_memory(self) -> int | None:
        """The most bytes of the device's memory in use since :meth:`forget_device_memory`; None if
        it has none of its own, or the framework cannot tell."""
        return None

    def forget_device_memory(self) -> None:  # noqa: B027 - an offer, nothing to do without a device
        """Count the peak of :meth:`device_memory` from now on."""

    def repeats(self) -> bool:
        """Whether a gradient has the same bits each time that it is made, in sessions of
        :meth:`use`. Not where a GPU adds up in an order of its own (atomics): there the checks ask
        for agreement within the yardstick."""
        return True

    def value_and_gradient(self, function: Function) -> GradientFunction | None:
        """Automatic differentiation, or None: then the gradient is derived on the program.

        It must hold inside of what :meth:`compile` and :meth:`advance` make.

        Args:
            function: Its ``results["scalar"]``, of shape ``[]``, is what is differentiated.

        Returns:
            A function of the same arguments. It gives all results, and by name the gradient of
            every variable, of the variable's shape: zeros where the scalar does not depend on it.
        """
        return None

    def claim(self, layer: ClaimableCall) -> Native | None:
        """The framework's own layer or loss, if it is exactly this one; else None.

        Asked for each call and phase before anything runs, on the path ``native`` only. A layer
        runs natively if all of its calls are claimed, in both phases. A claim is a promise: a
        claimed call that fails is an error. Its gradient needs :meth:`value_and_gradient`.
        """
        return None

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        """The framework's own optimizer, if its update is exactly this one; else None.

        Asked on the path ``native``. Whole steps, as timed, need :meth:`value_and_gradient`.
        """
        return None

    def session(self, training: Program, inference: Program, **choices: Any) -> Any:
        """The :class:`~harness.runtime.session.Session` of a model, for a backend with its own
        notion of one; None for the plain one.

        Args:
            training: The program at that phase.
            inference: The same model's program at the other.
            choices: The further arguments of a session: ``path``, ``dtype`` and ``rule``.
        """
        return None

    def own_models(self) -> Any:
        """Return the :class:`harness.extend.models.OwnModels` that runs models of users for
        ``harness check --against``; None if they are not."""
        return None


def plan_script(
    plan: Plan, table: Table, tensor: Callable[[Array], Any], scan: Loop
) -> Callable[[Tensors], Tensors]:
    """What runs a plan node by node: from its inputs to its outputs, both by the plan's names."""

    def scalar(value: float) -> Any:
        return tensor(np.asarray(value, host_dtype(plan.dtype)))

    interpreter = Interpreter(table, plan.sizes, plan.dtype, scalar, scan)
    script = interpreter.prepared(plan.nodes, plan.outputs.values())

    def run(inputs: Tensors) -> Tensors:
        values = script.run({v: inputs[n] for n, v in plan.inputs.items()})
        return {n: values[v] for n, v in plan.outputs.items()}

    return run


# What a backend has that nobody will ever call: most likely a misspelling.

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
