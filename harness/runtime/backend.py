"""The backend contract: what a framework must give, and what it may.

A backend must give a table of primitives, and convert arrays to tensors and back. The rest of this
class then runs every program and trains it with the program's derived gradient. All further methods
are optional: automatic differentiation, compilation, a loop of its own, native layers and
optimizers (:mod:`harness.runtime.native`).
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
    """The base class of a backend: one framework, in a worker process of its own.

    A tensor needs only a ``shape``, a tuple of numbers. Tensors passed to a method belong to the
    harness, which may pass them again. A method writes into them only if its docstring says that
    they are given away. If a method raises, the check that called it gets the verdict ``error`` or
    ``out-of-memory``. The harness checks return values. If one breaks a promise, it raises
    :class:`harness.runtime.promises.ContractError`, which names the method.

    The worker calls :meth:`versions`, :meth:`devices` and :meth:`dtypes` when it starts. A session
    begins with :attr:`quick`, :attr:`deterministic`, :meth:`use`, :meth:`session`, then the claims.

    Attributes:
        name: The name of the entry point.
        fused: Faster implementations of operations of :data:`harness.program.fused.FUSED`, and of
            ``loose_max``, called as primitives are. Plans use only the fused operations listed
            here.
        quick: Set by the harness if functions run a few times at many shapes, as in checks. The
            framework should then compile quickly rather than for speed.
        exact: Set by the harness in a training: compiled functions must give the same bits each
            time.
        deterministic: Set by the harness with ``--deterministic``: the same call must give the same
            bits on any device, at any cost.
        fuses: Whether a step of a plan's loop is compiled as one, and is faster inside the loop.
        rewrites: Whether :meth:`fill` can write into tensors, and so into their views.
        compiles: The paths with a compiler on this machine: ``compiled``, for :meth:`compile_plan`,
            and ``native-compiled``, for :meth:`compile_native`.
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

        Tensors are passed by position (``concat`` takes one list of them). Attributes are passed by
        keyword, as plain numbers, tuples and strings. Operands are not written into; a result may
        be a view.
        """

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """Convert an array to a tensor of the same shape on the session's device.

        Floats keep their dtype. Integers get the dtype that the framework uses for indices.

        Args:
            array: ``[...]``, with any strides. Its dtype is int64, bool, or float64 in a session of
                float64 and float32 in any other. For bfloat16 and float16 the harness converts with
                ``astype``. Copying the array is always safe. Sessions do not keep the arrays that
                they pass, so a framework on the host's memory may keep the array instead of a copy.
        """

    @abstractmethod
    def numpy(self, tensor: Any) -> Array:
        """Wait for the device and return the values of a tensor.

        Returns:
            An array of the tensor's shape and dtype. It belongs to the caller: no later call
            changes it.
        """

    def versions(self) -> Mapping[str, str]:
        """Return the names and versions of the distributions that compute, 100 at most."""
        return {"numpy": np.__version__}

    def devices(self) -> Sequence[str]:
        """Return the devices for ``--device``; a check on any other device is ``unsupported``."""
        return ("cpu",)

    def dtypes(self) -> Sequence[str]:
        """Return the names for ``--dtype``.

        Allowed are ``float64``, ``float32``, ``tf32``, ``bfloat16`` and ``float16``. For the last
        two, ``astype`` must convert float32 to that dtype and back, and products must accept it,
        with gradients. Everything else stays float32.
        """
        return ("float64", "float32")

    def lacks(self, dtype: str) -> Collection[str]:
        """Return the primitives that the framework lacks in a dtype of :meth:`dtypes`.

        Only those of :data:`harness.program.primitives.OFFERED` may be missing. A model that needs
        a missing one is ``unsupported`` in this dtype.
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
        """Run a loop over the first axis. Functions that other methods compile may contain one.

        Args:
            step: A function of the carried tensors and one slice ``[...]`` of each sequence. It
                returns the next carried tensors, of the same shapes, and the outputs of the step.
            carries: The carried tensors before the first step.
            sequences: At least one, each ``[time, ...]``.
            reverse: Whether to go from the last time step to the first.

        Returns:
            The carried tensors after the last step, and each output ``[time, ...]``, in time order
            even if ``reverse`` is true.
        """
        return loop(self.primitives, step, carries, sequences, reverse)

    def compile(self, function: F) -> F:
        """Return a faster form of a function. Names never change between calls; shapes may."""
        return function

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """Return a function that runs a plan; :meth:`advance` gets a step that calls it.

        Returns:
            A function from inputs to outputs, by the plan's names. An input has the shape
            ``plan.shape(plan.inputs[name])``, with its axes already in the order of
            ``plan.orders``. Inputs among ``plan.carried.values()`` are given away; others are not
            written into. Outputs are valid until the next run.
        """
        table = with_products_in({**self.primitives, **self.fused}, plan.products)
        return plan_script(plan, table, self.tensor, self.scan)

    def compile_plan(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """Do the same as :meth:`execute`, with the framework's own compiler.

        ``bench`` and ``train`` run it on the path ``compiled``, and ``fastest`` tries it if
        :attr:`compiles` names that path.

        Raises:
            UsageError: there is no compiler, or not for this plan.
        """
        raise UsageError(f"{self.name} has no compiler of whole plans: take another path")

    def compile_native(self, function: F) -> F:
        """Compile a function that calls the framework's layers, for path ``native-compiled``.

        The function may return gradients. Its shapes stay those of the first call.

        Raises:
            UsageError: there is no compiler. The compiled function raises it if it cannot be
                compiled.
        """
        raise UsageError(f"{self.name} has no compiler of its own layers: take another path")

    def advance(self, step: Advance) -> Advance:
        """Return a faster form of a step. Its shapes stay those of the first call."""
        return step

    def several(self, step: Advance) -> Advance | None:
        """Return a function that makes many steps in one call, or None if that is not faster.

        Returns:
            A step whose batch and results hold several steps, each tensor ``[steps, ...]``. It
            returns the carried tensors after the last step.
        """
        return None

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Stack tensors ``[...]`` of one shape to one ``[len(tensors), ...]``."""
        return stack(self.primitives, tensors)

    def unstack(self, tensor: Any) -> Sequence[Any]:
        """Split a tensor ``[count, ...]`` into its ``count`` views ``[...]``. The harness calls it
        only if :attr:`rewrites` is true."""
        table = self.primitives
        parts = (table["slice"](tensor, axis=0, start=i, stop=i + 1) for i in range(len(tensor)))
        return [table["squeeze"](part, axis=0) for part in parts]

    def fill(self, tensor: Any, array: Array) -> None:
        """Write an array into a tensor, and so into all its views.

        Args:
            tensor: A tensor from :meth:`tensor` or :meth:`unstack`.
            array: An array of the tensor's shape, in the dtypes of :meth:`tensor`; do not keep it.

        Raises:
            NotImplementedError: :attr:`rewrites` is false.
        """
        raise NotImplementedError(f"tensors of {self.name} cannot be written to")

    def wait(self, tensors: Tensors) -> None:
        """Wait until the tensors are computed. The default reads them."""
        for tensor in tensors.values():
            self.numpy(tensor)

    def flush_denormals(self, flush: bool = True) -> bool:
        """Make the framework take float32 numbers below 1.2e-38 as 0, or stop that.

        A training calls it: moments of rarely used parameters become that small, and CPUs compute
        many times slower with such numbers. XLA always flushes them.

        Returns:
            Whether the framework has such a switch.
        """
        return False

    def settings(self) -> Mapping[str, str]:
        """Return settings that affect speed and digits, 100 at most: threads, TF32."""
        return {}

    def device_memory(self) -> int | None:
        """Return the most bytes of device memory in use since :meth:`forget_device_memory`. Return
        None if the device has no memory of its own, or the framework cannot tell."""
        return None

    def forget_device_memory(self) -> None:  # noqa: B027 - an offer, nothing to do without a device
        """Reset the peak of :meth:`device_memory`."""

    def repeats(self) -> bool:
        """Return whether recomputing a gradient gives the same bits, in sessions of :meth:`use`.

        This is false if a GPU adds in varying order (atomics). The checks then ask only for
        agreement within the yardstick.
        """
        return True

    def value_and_gradient(self, function: Function) -> GradientFunction | None:
        """Differentiate a function automatically; None means that the program derives the gradient.

        It must also work inside functions that :meth:`compile` and :meth:`advance` compile.

        Args:
            function: A function whose ``results["scalar"]``, of shape ``[]``, is differentiated.

        Returns:
            A function of the same arguments. It returns all results, and by name the gradient of
            every variable, in the variable's shape: zeros if the scalar does not depend on the
            variable.
        """
        return None

    def claim(self, layer: ClaimableCall) -> Native | None:
        """Return the framework's own layer or loss if it is exactly this one, else None.

        The harness asks for each call and phase before anything runs, on native paths only. A layer
        runs natively if all of its calls are claimed, in both phases. If a claimed call fails, that
        is an error. Its gradient needs :meth:`value_and_gradient`.
        """
        return None

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        """Return the framework's own optimizer if its update is exactly this rule, else None. The
        harness asks on native paths only. Timed whole steps need :meth:`value_and_gradient`."""
        return None

    def session(self, training: Program, inference: Program, **choices: Any) -> Any:
        """Return a model's session if the backend has its own kind, or None for the plain one.

        The result is a :class:`~harness.runtime.session.Session`.

        Args:
            training: The model's program in the training phase.
            inference: The same model's program in the inference phase.
            choices: Further arguments of a session: ``path``, ``dtype`` and ``rule``.
        """
        return None

    def own_models(self) -> Any:
        """Return the object that runs users' models for ``harness check --against``, or None. The
        result is a :class:`harness.extend.models.OwnModels`."""
        return None


def plan_script(
    plan: Plan, table: Table, tensor: Callable[[Array], Any], scan: Loop
) -> Callable[[Tensors], Tensors]:
    """Return a function that runs a plan node by node: inputs to outputs, by the plan's names."""

    def scalar(value: float) -> Any:
        return tensor(np.asarray(value, host_dtype(plan.dtype)))

    interpreter = Interpreter(table, plan.sizes, plan.dtype, scalar, scan)
    script = interpreter.prepared(plan.nodes, plan.outputs.values())

    def run(inputs: Tensors) -> Tensors:
        values = script.run({v: inputs[n] for n, v in plan.inputs.items()})
        return {n: values[v] for n, v in plan.outputs.items()}

    return run


# The similarity of names from which an attribute counts as a misspelling. A lower limit would match
# a backend's own helpers.
ALIKE = 0.85
OFFERS = frozenset(name for name in dir(Backend) if not name.startswith("_"))


def doubts(backend: object) -> list[str]:
    """Return warnings about attributes that look like misspelled contract methods.

    Entries of the tables that are not operations also get a warning. If ``backend`` is not a
    :class:`Backend`, return an empty list.
    """
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
