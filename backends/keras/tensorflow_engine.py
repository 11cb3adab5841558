"""The TensorFlow engine of Keras (for the interface, see :mod:`harness.backends.keras.engines`)."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeVar, cast

from harness.extend import (
    COMPILED_CODE,
    Advance,
    Function,
    GradientFunction,
    Step,
    Tensors,
    UsageError,
    card_of,
    device_names,
)
from harness.extend.executor import LONGEST_FUSED

F = TypeVar("F", bound=Callable[..., Any])
# The number of eager calls of a function before it is traced (TensorFlowEngine._trace_later).
EAGER = 24
# The environment variable with the flags of XLA in TensorFlow.
XLA_FLAGS = "TF_XLA_FLAGS"


def keep_compiled_code(tf: Any) -> None:
    """If the harness gives a folder for compiled code, let XLA keep its code there, unless the user
    has set flags of XLA.

    TensorFlow reads the flags once, when it first lists devices. Then the variable is deleted,
    because the folder's name does not affect results. The names of the files contain TensorFlow's
    version, because XLA does not check it.
    """
    folder = os.environ.get(COMPILED_CODE)
    if folder is None or XLA_FLAGS in os.environ:
        return
    os.environ[XLA_FLAGS] = (
        f"--tf_xla_persistent_cache_directory={folder} "
        f"--tf_xla_persistent_cache_prefix={tf.__version__}"
    )
    tf.config.list_physical_devices()
    del os.environ[XLA_FLAGS]


class TensorFlowEngine:
    """The TensorFlow engine of Keras: operations run eagerly, and gradient tapes compute
    gradients."""

    cpu = "cpu:0"
    inexact = frozenset({"gelu", "attention"})
    # TensorFlow's gradient of this loss assumes that targets sum to 1.
    wrong_losses = frozenset({"cross_entropy"})
    quick = deterministic = False  # see harness.runtime.backend.Backend

    def __init__(self) -> None:
        self.tf = import_module("tensorflow")
        keep_compiled_code(self.tf)
        self.replacements: Mapping[str, Callable[..., Any]] = {
            "argsort": self._argsort,
            "erf": self._erf,
            # Keras' own sum may mistake an operand for a bias (see :mod:`.sums`).
            "add": self.tf.add,
            "max": self._max,
        }
        self._card: int | None = None

    def _erf(self, x: Any) -> Any:
        """Return erf(x), computed after clipping ``x``, because TensorFlow's float64 erf is NaN at
        infinity."""
        return self.tf.math.erf(self.tf.clip_by_value(x, -9.0, 9.0))

    def _max(self, x: Any, axis: Any, keepdims: bool) -> Any:
        """Return the maximum, which is NaN if an entry is NaN; XLA's maximum ignores NaN
        (:mod:`..jax.primitives`)."""
        tf = self.tf
        lost = tf.reduce_any(tf.math.is_nan(x), axis, keepdims)
        largest = tf.reduce_max(x, axis, keepdims)
        return tf.where(lost, tf.fill(tf.shape(largest), tf.constant(math.nan, x.dtype)), largest)

    def _argsort(self, x: Any) -> Any:
        """Return the indices that sort each row, with NaN last and -0 equal to 0; TensorFlow's own
        argsort does neither."""
        tf, unknown = self.tf, self.tf.math.is_nan(x)
        zeros = self.tf.zeros_like(x)
        plain = tf.where(unknown, zeros + float("inf"), tf.where(x == 0, zeros, x))
        order = tf.argsort(plain, axis=-1, stable=True)
        late = tf.cast(tf.gather(unknown, order, axis=-1, batch_dims=x.ndim - 1), tf.float32)
        last = tf.argsort(late, axis=-1, stable=True)
        return tf.gather(order, last, axis=-1, batch_dims=x.ndim - 1)

    def without_attention(self, definition: str, dtype: str, on_cpu: bool) -> bool:
        """Return False, because Keras' attention on TensorFlow is right in every dtype."""
        return False

    def devices(self) -> Sequence[str]:
        """Return the device names that ``--device`` accepts."""
        return device_names(len(self.tf.config.list_physical_devices("GPU")))

    def use(self, device: str, dtype: str) -> None:
        """Select a GPU or the CPU; enable TF32 if the dtype is ``tf32``, and deterministic
        operations if they are requested.

        Raises:
            UsageError: TensorFlow cannot start the GPU, and would silently run on the CPU.
        """
        config = self.tf.config
        self._card = card = card_of(device)
        if card is None:
            # Select the GPU, because the first operation would reserve every GPU. After the first
            # operation, this raises RuntimeError.
            with suppress(RuntimeError):
                config.set_visible_devices([], "GPU")
        elif card >= (count := len(config.list_logical_devices("GPU"))):
            raise UsageError(
                f"TensorFlow cannot use GPU {card} in this process; TensorFlow has started only "
                f"{count} {'GPU' if count == 1 else 'GPUs'}: see TensorFlow's log"
            )
        config.experimental.enable_tensor_float_32_execution(dtype == "tf32")
        if self.deterministic:
            config.experimental.enable_op_determinism()

    def settings(self) -> Mapping[str, str]:
        """Return the settings that :meth:`use` has made, and whether XLA compiles whole training
        steps."""
        tf32 = self.tf.config.experimental.tensor_float_32_execution_enabled()
        return {"tf32": str(tf32), "xla": str(self._xla)}

    @property
    def _xla(self) -> bool:
        """True if XLA compiles steps: on the CPU only, because XLA cannot run cuDNN layers."""
        return self._card is None

    @property
    def index(self) -> str:
        """The dtype of indices on this device. On a GPU it is not int32, because TensorFlow stores
        int32 tensors in host memory."""
        return "int32" if self._card is None else "int64"

    def device_memory(self) -> int | None:
        """Return the peak memory of the GPU in bytes since :meth:`forget_device_memory`; None on
        the CPU."""
        if self._card is None:
            return None
        peak: int = self.tf.config.experimental.get_memory_info(f"GPU:{self._card}")["peak"]
        return peak

    def forget_device_memory(self) -> None:
        """Start a new measurement of peak memory."""
        if self._card is not None:
            self.tf.config.experimental.reset_memory_stats(f"GPU:{self._card}")

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function unchanged, so that it runs eagerly. Tracing it as a ``tf.function``
        would take longer than a few calls, and traced code rounds differently."""
        return function

    def jit_lacks(self) -> str:
        """Return what :meth:`jit` needs but is not installed; empty if it can run."""
        return ""

    def jit(self, function: F) -> F:
        """Return a function that XLA compiles, as in a model with ``jit_compile=True``."""
        return cast(F, self.tf.function(function, jit_compile=True, autograph=False))

    compile_native = jit

    def compile_part(self, function: Function) -> Function:
        """Return a version of the function that becomes a traced ``tf.function`` after many calls.
        It is used for functions of many small operations, e.g. an optimizer update, which run
        slowly if they are not traced."""
        return self._trace_later(function)

    def advance(self, step: Advance) -> Advance:
        """Return a training step that is compiled as a ``tf.function``, on the CPU also with
        XLA."""
        if self.quick:
            return self._trace_later(step)
        compiled: Advance = self.tf.function(step, jit_compile=self._xla, autograph=False)
        return compiled

    def _trace_later(self, function: F) -> F:
        """Return a wrapper that calls the function eagerly :data:`EAGER` times, and from then on as
        a traced ``tf.function``. Tracing takes as long as :data:`EAGER` eager calls, but then saves
        about 50 us of Python per operation."""
        tf, calls = self.tf, itertools.count(1)
        traced = tf.function(function, autograph=False)

        def run(*arguments: Any) -> Any:
            eager = tf.inside_function() or next(calls) <= EAGER
            return (function if eager else traced)(*arguments)

        return cast(F, run)

    def several(self, step: Advance) -> Advance | None:
        """Return a loop of training steps that is compiled as one ``tf.function``. It saves 0.2 ms
        per step, the time of a call of a ``tf.function``."""
        if self.quick:
            return None

        # Trace one step first, because the loop needs the shapes and dtypes of its results.
        traced = self.tf.function(step, autograph=False)

        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            def batch(index: Any) -> Tensors:
                return {n: t[index] for n, t in batches.items()}

            def body(index: Any, carried: Tensors, arrays: Any) -> tuple[Any, Tensors, Any]:
                carried, results = traced(carried, fixed, batch(index))
                written = {n: arrays[n].write(index, t) for n, t in results.items()}
                return index + 1, carried, written

            count = next(iter(batches.values())).shape[0]
            _, specs = traced.get_concrete_function(carried, fixed, batch(0)).structured_outputs
            arrays = {n: self.tf.TensorArray(t.dtype, count) for n, t in specs.items()}
            _, carried, arrays = self.tf.while_loop(
                lambda index, *_: index < count, body, (0, carried, arrays)
            )
            return carried, {n: array.stack() for n, array in arrays.items()}

        return self.advance(run)

    def unrolls(self, count: int) -> bool:
        """Return whether a loop of ``count`` steps is unrolled.

        Short loops are unrolled, and so are all loops that run eagerly. Long loops in compiled
        steps are not unrolled, because XLA's compile time of an unrolled loop grows with the cube
        of ``count``.
        """
        return count <= LONGEST_FUSED or not self.tf.inside_function()

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        """Run a loop over time as a ``tf.while_loop``; see :meth:`.Backend.scan`. The first step
        runs before the loop, because the types of the stacked results must be known."""
        tf, count = self.tf, int(sequences[0].shape[0])

        def run_step(number: Any, carries: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
            time = count - 1 - number if reverse else number
            return time, *step(carries, [sequence[time] for sequence in sequences])

        def body(number: Any, carries: list[Any], arrays: list[Any]) -> tuple[Any, list[Any], Any]:
            time, carries, results = run_step(number, carries)
            written = [array.write(time, t) for array, t in zip(arrays, results, strict=True)]
            return number + 1, carries, written

        time, after, results = run_step(0, carries)
        arrays = [
            tf.TensorArray(t.dtype, count, element_shape=t.shape).write(time, t) for t in results
        ]
        _, last, arrays = tf.while_loop(
            lambda number, *_: number < count,
            body,
            (1, list(after), arrays),
            maximum_iterations=count - 1,
        )
        return last, [array.stack() for array in arrays]

    def wait(self, tensors: Tensors) -> None:
        """Wait until the GPU has computed the tensors; on the CPU, return at once."""
        if self._card is not None:
            self.tf.test.experimental.sync_devices()

    def value_and_gradient(self, function: Function) -> GradientFunction:
        """Return a function that computes results and dense gradients.

        TensorFlow's gradient of an embedding is sparse. If a row occurs several times in a batch,
        it has a separate entry for each. Keras optimizers would sum the squares of these entries
        instead of squaring their sum, so this function adds the entries first.
        """

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            with self.tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(variables.values()))
                results = function(variables, constants)
            gradients = tape.gradient(results["scalar"], variables, unconnected_gradients="zero")
            return results, {n: self.tf.convert_to_tensor(g) for n, g in gradients.items()}

        return run

    def forward_derivative(self, function: Function) -> Function:
        """Return a function that computes a directional derivative in forward mode; see
        :meth:`harness.runtime.backend.Backend.forward_derivative`."""

        def run(variables: Tensors, constants: Tensors) -> Tensors:
            directions = [constants[f"direction.{name}"] for name in variables]
            with self.tf.autodiff.ForwardAccumulator([*variables.values()], directions) as forward:
                scalar = function(variables, constants)["scalar"]
            return {"derivative": forward.jvp(scalar, unconnected_gradients="zero")}

        return run

    def apply(
        self, optimizer: Any, trained: Any, tensors: Any, state: Any, gradients: Any
    ) -> tuple[list[Any], list[Any]]:
        """Make one step of a Keras optimizer. Return the new parameters, and the new optimizer
        state.

        The values ``tensors`` (parameters) and ``state`` are written into the variables ``trained``
        and into those of the optimizer, and are read after the step, because Keras'
        ``stateless_apply`` does not run on TensorFlow.
        """
        slots = optimizer.variables
        for variable, tensor in zip([*trained, *slots], [*tensors, *state], strict=True):
            variable.assign(tensor)
        optimizer.apply(gradients)
        identity = self.tf.identity
        return [identity(v.value) for v in trained], [identity(v.value) for v in slots]
