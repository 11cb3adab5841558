"""The backend contract: the required and the optional methods of a backend.

A backend must provide a table of primitives, and convert arrays to tensors and back. With these the
harness runs every program, and trains it with the gradient that it derives from the program. All
other methods are optional: automatic differentiation, compilation, a loop, and the framework's own
layers and optimizers (:mod:`harness.runtime.native`).
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
from harness.runtime.derived_primitives import complete_table
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
    """The base class of a backend, which connects one framework to the harness. A backend runs in a
    separate worker process.

    A tensor needs only a ``shape``, a tuple of integers. Tensors that a method gets belong to the
    harness, which may pass them again. A method may write into its arguments only if its docstring
    allows it. If a method raises, the check that called it gets the verdict ``error`` or
    ``out-of-memory``. The harness checks the return values. If a value breaks a promise of this
    contract, the harness raises :class:`harness.runtime.promises.ContractError`, which names the
    method.

    The worker calls :meth:`versions`, :meth:`devices` and :meth:`dtypes` when it starts. For each
    session (a model at one path and dtype), the harness sets :attr:`quick` and
    :attr:`deterministic`, calls :meth:`use` and :meth:`session`, and then asks with :meth:`claim`
    for the framework's own layers.

    Attributes:
        name: The name of the entry point.
        fused: Faster implementations of several primitives in one function, by name: of the
            operations in :data:`harness.program.fused.FUSED` (e.g. ``softmax``) and of
            ``loose_max``, a maximum that may ignore NaN. They are called like primitives. Plans use
            only the fused operations listed here.
        quick: Set by the harness if each function runs only a few times, at many shapes, as in
            checks. The framework should then compile quickly instead of optimizing.
        exact: Set by the harness during training: compiled functions must give the same bits in
            every call.
        deterministic: Set by the harness with ``--deterministic``: identical calls must give
            identical bits on any device, even if this is slow.
        fuses: Whether the framework's compiler fuses the elementwise operations of a loop's step.
            If true, plans leave these operations inside the loop, otherwise they compute them for
            all steps at once.
        rewrites: Whether :meth:`fill` can write new values into an existing tensor and its views.
            If true, the harness reuses the memory of batches.
        compiles: The paths for which this machine has a compiler: ``compiled``
            (:meth:`compile_plan`) and ``native-compiled`` (:meth:`compile_native`).
        denormals: A promise to keep denormals (below 1.2e-38 in float32) until
            :meth:`flush_denormals` is called. Without this promise the backend may round them to 0.
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
        """A dictionary with a function for every name in :data:`harness.program.primitives.TABLE`.

        Tensors are passed by position (``concat`` takes one list of them). Attributes are passed by
        keyword, as plain numbers, tuples and strings. A function must not write into its tensors;
        its result may be a view of them.
        """

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """Convert an array to a tensor of the same shape on the session's device.

        Floats keep their dtype. Integers get the dtype that the framework uses for indices.

        Args:
            array: ``[...]``, with any strides. Its dtype is int64, bool or a float: float64 in
                sessions of float64, float32 in all others. For bfloat16 and float16 the harness
                converts tensors with ``astype``. The tensor may share the array's memory, because
                sessions neither change nor keep the arrays that they pass.
        """

    @abstractmethod
    def numpy(self, tensor: Any) -> Array:
        """Wait for the device and return the values of a tensor.

        Returns:
            An array of the tensor's shape and dtype. It belongs to the caller, so no later call may
            change it.
        """

    def versions(self) -> Mapping[str, str]:
        """Return a mapping from each package that does the computing to its version; at most
        100."""
        return {"numpy": np.__version__}

    def devices(self) -> Sequence[str]:
        """Return the values that ``--device`` may have.

        A check on any other device gets the verdict ``unsupported``.
        """
        return ("cpu",)

    def dtypes(self) -> Sequence[str]:
        """Return the values that ``--dtype`` may have.

        They are some of ``float64``, ``float32``, ``tf32``, ``bfloat16`` and ``float16``. For
        ``bfloat16`` and ``float16``, ``astype`` must convert float32 to that dtype and back, and
        products must accept that dtype, with gradients. All other operations stay in float32.
        """
        return ("float64", "float32")

    def lacks(self, dtype: str) -> Collection[str]:
        """Return the primitives that the framework does not support in ``dtype``, one of
        :meth:`dtypes`.

        Only primitives in :data:`harness.program.primitives.OFFERED` may be missing. A model that
        needs a missing primitive is ``unsupported`` in this dtype.
        """
        return ()

    def refuses(self, device: str) -> Collection[str]:
        """Return the dtypes of :meth:`dtypes` that a device does not have. A check in such a dtype
        is ``unsupported`` on this device."""
        return ()

    def use(self, device: str, dtype: str) -> None:
        """Prepare for the next sessions, which all use this device and dtype.

        Raises:
            UsageError: the backend does not have this device or dtype.
        """
        for what, value, offered in (
            ("device", device, self.devices()),
            ("dtype", dtype, self.dtypes()),
        ):
            if value not in offered:
                raise UsageError(
                    f"{self.name} has no {what} {value!r} (it has: {', '.join(offered)})"
                )

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a loop over the first axis (time) of some tensors. Compiled functions may contain
        such a loop.

        Args:
            step: A function of two lists: the carried tensors, i.e. the values that go from step to
                step, and one slice ``[...]`` of each sequence. It returns the next carried tensors,
                of the same shapes, and the outputs of the step.
            carries: The carried tensors before the first step.
            sequences: At least one tensor, each ``[time, ...]``.
            reverse: Whether to go from the last time step to the first.

        Returns:
            The carried tensors after the last step, and each output ``[time, ...]``, in time order
            even if ``reverse`` is true.
        """
        return loop(self.primitives, step, carries, sequences, reverse)

    def compile(self, function: F) -> F:
        """Return a faster version of a function from tensors by name to tensors by name.

        The harness calls the faster version with tensors of various shapes, but always with the
        same names.
        """
        return function

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """Return a function that runs a plan, i.e. a list of operations for fixed sizes. The
        harness calls this function in each step. The whole step, with this call in it, is passed to
        :meth:`advance`.

        Returns:
            A function from inputs to outputs, by the plan's names. An input has the shape
            ``plan.shape(plan.inputs[name])``, with its axes already in the order of
            ``plan.orders``. The function may write into the inputs named in
            ``plan.carried.values()``, but into no other input. Outputs are valid until the next
            call.
        """
        lacking = self.lacks(plan.products or plan.dtype)
        table = complete_table(self.primitives, lacking, self.tensor, plan.dtype)
        table = with_products_in({**table, **self.fused}, plan.products)
        return plan_script(plan, table, self.tensor, self.scan)

    def compile_plan(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        """Return a function that runs a plan, like :meth:`execute`, but compile it with the
        framework's compiler.

        ``bench`` and ``train`` use it on the path ``compiled``. With ``--path fastest``, the path
        ``compiled`` is tried if it is in :attr:`compiles`.

        Raises:
            UsageError: there is no compiler, or it cannot compile this plan.
        """
        raise UsageError(f"{self.name} cannot compile whole plans: use another path")

    def compile_native(self, function: F) -> F:
        """Compile a function that calls the framework's own layers, for the path
        ``native-compiled``.

        The function may compute gradients too. All calls have the shapes of the first call.

        Raises:
            UsageError: there is no compiler. If compiling fails in the first call, the returned
                function raises this error.
        """
        raise UsageError(f"{self.name} cannot compile its own layers: use another path")

    def advance(self, step: Advance) -> Advance:
        """Return a faster version of a training step or forward pass, e.g. a compiled one.

        A step is a function from (carried, fixed, batch) to (next carried, results), each a mapping
        from names to tensors. ``carried`` are the tensors that a step replaces (e.g. parameters),
        and ``fixed`` the tensors that stay the same in all steps. All calls have the shapes of the
        first call.
        """
        return step

    def several(self, step: Advance) -> Advance | None:
        """Return a function that makes many steps (calls of ``step``) in one call; return None if
        that is not faster.

        Returns:
            A function like ``step``, but each tensor of the batch and of the results has an
            additional first axis: ``[steps, ...]``. The returned carried tensors are the carried
            tensors after the last step.
        """
        return None

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Stack tensors ``[...]`` of equal shape to one tensor ``[len(tensors), ...]``."""
        return stack(self.primitives, tensors)

    def unstack(self, tensor: Any) -> Sequence[Any]:
        """Split a tensor ``[count, ...]`` into ``count`` views ``[...]``.

        The harness calls this method only if :attr:`rewrites` is true.
        """
        table = self.primitives
        parts = (table["slice"](tensor, axis=0, start=i, stop=i + 1) for i in range(len(tensor)))
        return [table["squeeze"](part, axis=0) for part in parts]

    def fill(self, tensor: Any, array: Array) -> None:
        """Write an array into a tensor. All views of the tensor then show the new values.

        Args:
            tensor: A tensor from :meth:`tensor` or :meth:`unstack`.
            array: An array of the tensor's shape, in a dtype of :meth:`tensor`. The method must not
                keep it.

        Raises:
            NotImplementedError: :attr:`rewrites` is false.
        """
        raise NotImplementedError(f"tensors of {self.name} cannot be written to")

    def wait(self, tensors: Tensors) -> None:
        """Wait until the tensors are computed. The default implementation reads them."""
        for tensor in tensors.values():
            self.numpy(tensor)

    def flush_denormals(self, flush: bool = True) -> bool:
        """Make the framework round float32 numbers below 1.2e-38 to 0, or stop doing so.

        The harness calls this before training. The moments of rarely used parameters become that
        small, and CPUs compute many times slower with such numbers. XLA always flushes them.

        Returns:
            Whether the framework has such a switch.
        """
        return False

    def settings(self) -> Mapping[str, str]:
        """Return a mapping from name to value of settings that affect speed or digits, such as
        threads and TF32; at most 100."""
        return {}

    def device_memory(self) -> int | None:
        """Return the peak bytes of device memory since :meth:`forget_device_memory`.

        Return None if the device has no memory of its own, or the framework does not report it.
        """
        return None

    def forget_device_memory(self) -> None:  # noqa: B027 - an offer, nothing to do without a device
        """Start a new measurement of the peak that :meth:`device_memory` returns."""

    def repeats(self) -> bool:
        """Return whether computing the same gradient twice gives the same bits.

        The answer holds for the device and dtype of :meth:`use`. It is false if a GPU sums in
        varying order (atomics). The checks then require only agreement within the yardstick.
        """
        return True

    def value_and_gradient(self, function: Function) -> GradientFunction | None:
        """Return a function that computes the results and the gradients, with automatic
        differentiation; return None if the framework has none.

        If the result is None, the harness derives the gradient from the program. The returned
        function must also work inside functions that :meth:`compile` and :meth:`advance` compile.

        Args:
            function: A function that returns results by name. Its result ``scalar``, of shape
            ``[]``, is differentiated.

        Returns:
            A function of the same arguments. It returns the results, and the gradient of every
            variable by name, in the variable's shape. The gradient is zeros if the scalar does not
            depend on the variable.
        """
        return None

    def forward_derivative(self, function: Function) -> Function | None:
        """Return a function that computes a directional derivative in forward mode; return None if
        the framework has no forward mode.

        ``harness fuzz`` compares forward mode with reverse mode; nothing else uses it.

        Args:
            function: A function that returns results by name. Its result ``scalar``, of shape
                ``[]``, is differentiated.

        Returns:
            A function of the same arguments. The constants also have a tensor ``direction.NAME``
            for each variable, in its shape. The function returns the tensor ``derivative``, of
            shape ``[]``.
        """
        return None

    def claim(self, layer: ClaimableCall) -> Native | None:
        """Return the framework's own layer or loss that computes exactly this call; return None if
        the framework has none.

        The harness asks for each call of a layer or loss on the native paths, separately for
        training and inference, before anything runs. A layer runs natively only if the backend
        returns an implementation for all of its calls, in both phases. If such a call raises an
        error, the harness reports the error and does not run the equations instead. Gradients of
        native calls need :meth:`value_and_gradient`.
        """
        return None

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        """Return the framework's own optimizer whose update is exactly this rule; return None if
        the framework has none.

        The harness asks only on the native paths. To time whole steps with this optimizer, the
        backend needs :meth:`value_and_gradient`.
        """
        return None

    def session(self, training: Program, inference: Program, **choices: Any) -> Any:
        """Return the object that runs a model, if the backend has its own class for this purpose,
        else None.

        The result is a :class:`~harness.runtime.session.Session`. If it is None, the harness makes
        a standard session.

        Args:
            training: The model's program in the training phase.
            inference: The same model's program in the inference phase.
            choices: Further arguments of a session: ``path``, ``dtype`` and ``rule``.
        """
        return None

    def own_models(self) -> Any:
        """Return the object that runs users' models for ``harness check --against``; return None if
        the backend does not support that.

        The result is a :class:`harness.extend.models.OwnModels`.
        """
        return None


def plan_script(
    plan: Plan, table: Table, tensor: Callable[[Array], Any], scan: Loop
) -> Callable[[Tensors], Tensors]:
    """Return a function that runs a plan (a list of operations) one operation after the other. The
    function maps inputs by name to outputs by name.

    ``table`` has the primitives, ``tensor`` converts an array to a tensor, and ``scan`` runs a loop
    over time.
    """

    def scalar(value: float) -> Any:
        return tensor(np.asarray(value, host_dtype(plan.dtype)))

    interpreter = Interpreter(table, plan.sizes, plan.dtype, scalar, scan)
    script = interpreter.prepared(plan.nodes, plan.outputs.values())

    def run(inputs: Tensors) -> Tensors:
        values = script.run({v: inputs[n] for n, v in plan.inputs.items()})
        return {n: values[v] for n, v in plan.outputs.items()}

    return run


# The least similarity of two names that counts as a misspelling. A lower limit would match a
# backend's own helper functions.
ALIKE = 0.85
OFFERS = frozenset(name for name in dir(Backend) if not name.startswith("_"))


def misspelling_warnings(backend: object) -> list[str]:
    """Return warnings about attributes of a backend whose names look like misspelled methods of the
    contract.

    Unknown names in the table of primitives and in ``fused`` also get a warning. If ``backend`` is
    not a :class:`Backend`, the list is empty.
    """
    if not isinstance(backend, Backend):
        return []
    kinds = [kind for kind in type(backend).__mro__ if kind not in Backend.__mro__]
    own_names = {name for kind in (*kinds, backend) for name in vars(kind)}
    warnings = []
    for name in sorted(own_names - OFFERS):
        similar = get_close_matches(name, OFFERS - own_names, 1, ALIKE) if name[0] != "_" else []
        if similar:
            hint = f"did you mean {similar[0]!r}?"
            warnings.append(f"{name!r} is not a method of a backend, so it is never called; {hint}")
    for what, names, known in (
        ("the table of primitives", backend.primitives, EVERY),
        ("fused", backend.fused, {**FUSED, **IN_PLACE}),
    ):
        for name in names:
            if name not in known:
                hint = did_you_mean(name, [one for one in known if one not in names])
                warnings.append(
                    f"{name!r} in {what} is not an operation, so it is never called{hint}"
                )
    return [shorten(text, LONGEST) for text in warnings[:MOST_TEXTS]]
