"""The Keras 3 backends: on TensorFlow (``keras``), torch (``keras-torch``) and JAX (``keras-jax``).

Keras fixes its engine (e.g. TensorFlow) at import, so each backend runs in its own process. The
native path is a ``keras.Model`` of Keras layers that equal the spec's layers, and of Keras
operations for everything else. The engine computes gradients.

In float64 sessions, Keras computes some layers in float32, so these layers run as equations: on
torch matrix products, normalisations and attention; on JAX normalisations, attention and layers
with tanh (see :mod:`harness.backends.keras.engines`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from harness.extend import (
    NARROW,
    Advance,
    Array,
    Backend,
    ClaimableCall,
    F,
    Function,
    GradientFunction,
    HarnessError,
    Native,
    NativeOptimizer,
    Probes,
    Program,
    Step,
    Table,
    Tensors,
    UpdateRule,
    card_of,
    hookimpl,
    host_dtype,
    narrow,
)
from harness.extend.executor import Plan, Session

from ..jax import platforms
from ..torch.backend import CUBLAS_REPEATS, INSTRUCTION_SETS
from . import attention
from .engines import ENGINES, JaxEngine, TensorFlowEngine, TorchEngine
from .graph import KerasLayer, KerasModels, eager, mask_of
from .layers import (
    ACTIVATIONS,
    BOTH_WAYS,
    LAYERS,
    NORMALISES,
    RECURRENT,
    TWO_WAYS,
    claimed_loss,
    hard_sigmoid_fifth,
    has_faulty_gradient,
    layer_arguments,
    layer_of,
    own_name,
    zero_initializers,
)
from .optimizers import claim_optimizer
from .primitives import table

NAMES = {"keras": "tensorflow", "keras-torch": "torch", "keras-jax": "jax"}


class Keras(Backend):
    """The backend for Keras on one engine (the framework that computes: TensorFlow, torch or
    JAX)."""

    def __init__(self, name: str, engine: str) -> None:
        import keras

        if keras.backend.backend() != engine:
            raise HarnessError(
                f"backend {name!r} needs Keras on {engine}, but Keras runs on "
                f"{keras.backend.backend()} in this process; set KERAS_BACKEND={engine} before "
                "keras is imported, and run each Keras backend in its own process"
            )
        self.name, self.keras, self.engine = name, keras, ENGINES[engine]()
        self._engine_name = engine
        self._table = table(keras, self.engine.replacements)
        self._device: Any = None
        self._card: int | None = None
        # ``inexact`` are operations that Keras does not compute in float64. ``unnamed`` maps
        # activations that Keras lacks to functions that return them.
        self.inexact = self.engine.inexact
        self.unnamed: dict[str, Callable[[], Any]] = {
            "hard_sigmoid_fifth": lambda: partial(hard_sigmoid_fifth, self.keras.ops)
        }
        if isinstance(self.engine, TorchEngine):
            self.fused = self.engine.fused
            self.rewrites = self.denormals = True
        else:
            self.fused = {"loose_max": keras.ops.max}
            self.fuses = True

    @property
    def primitives(self) -> Table:
        return self._table

    def tensor(self, array: Array) -> Any:
        own = np.array(array, order="C")
        if isinstance(self.engine, JaxEngine):
            return self.engine.tensor(own)
        return self.keras.ops.convert_to_tensor(own)

    def fill(self, tensor: Any, array: Array) -> None:
        assert isinstance(self.engine, TorchEngine)
        self.engine.fill(tensor, array)

    def numpy(self, tensor: Any) -> Array:
        return np.array(self.keras.ops.convert_to_numpy(tensor))

    def versions(self) -> Mapping[str, str]:
        return {n: version(n) for n in ("keras", self._engine_name, "numpy")}

    def flush_denormals(self, flush: bool = True) -> bool:
        return isinstance(self.engine, TorchEngine) and self.engine.flush_denormals(flush)

    def devices(self) -> Sequence[str]:
        return self.engine.devices()

    def dtypes(self) -> Sequence[str]:
        tf32 = ("tf32",) if "cuda" in self.devices() else ()
        return (*super().dtypes(), *tf32, *NARROW)

    def use(self, device: str, dtype: str) -> None:
        if self._device is not None:
            self._device.__exit__(None, None, None)
            self._device = None
        self._card = card_of(device)
        # Compile quickly on the CPU only. On a GPU, the checks must run the code that is timed.
        self.engine.quick = self.quick and self._card is None
        self.engine.deterministic = self.deterministic
        # Configure the engine before naming a device, because naming a device starts the engine.
        self.engine.use(device, dtype)
        name = self.engine.cpu if self._card is None else f"gpu:{self._card}"
        self._device = self.keras.device(name)
        self._device.__enter__()
        storage_dtype = host_dtype(dtype)
        self.keras.config.set_floatx(storage_dtype)
        # Set the dtype policy explicitly; otherwise, the first layer sets it for all later layers.
        self.keras.config.set_dtype_policy(f"mixed_{dtype}" if narrow(dtype) else storage_dtype)

    def repeats(self) -> bool:
        return self.deterministic or self._card is None

    def settings(self) -> Mapping[str, str]:
        return {**self.engine.settings(), "repeats": str(self.repeats())}

    def device_memory(self) -> int | None:
        return self.engine.device_memory()

    def forget_device_memory(self) -> None:
        self.engine.forget_device_memory()

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        symbolic = isinstance(sequences[0], self.keras.KerasTensor)
        if symbolic or self.engine.unrolls(int(sequences[0].shape[0])):
            return super().scan(step, carries, sequences, reverse)
        return self.engine.scan(step, carries, sequences, reverse)

    def compile(self, function: F) -> F:
        return self.engine.compile(function)

    def compile_native(self, function: F) -> F:
        return self.engine.compile_native(function)

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        if isinstance(self.engine, TorchEngine):
            return self.engine.execute(plan)
        return super().execute(plan)

    def advance(self, step: Advance) -> Advance:
        return self.engine.advance(step)

    def several(self, step: Advance) -> Advance | None:
        return self.engine.several(step)

    def wait(self, tensors: Tensors) -> None:
        self.engine.wait(tensors)

    def value_and_gradient(self, function: Function) -> GradientFunction:
        return self.engine.value_and_gradient(function)

    def forward_derivative(self, function: Function) -> Function:
        return self.engine.forward_derivative(function)

    def claim(self, layer: ClaimableCall) -> Native | None:
        if layer.node.attributes["kind"] == "loss":
            return claimed_loss(self.keras, layer.definition, self.engine.wrong_losses)
        if layer.definition in attention.ATTENTION:
            return self._attention(layer)
        # A batch_norm with several calls runs as equations, because a Keras model may change the
        # order of the calls.
        if layer.definition not in LAYERS or (layer.definition == NORMALISES and layer.calls > 1):
            return None
        with_onednn = self._card is None and not isinstance(self.engine, JaxEngine)
        if with_onednn and has_faulty_gradient(layer, isinstance(self.engine, TorchEngine)):
            return None
        kind, extra, packing = layer_of(layer)
        on_cpu = isinstance(self.engine, TensorFlowEngine) and self._card is None
        arguments = {**extra, **layer_arguments(kind, layer, self._activation, on_cpu)}
        if None in arguments.values() or not self._is_exact(kind, arguments):
            return None
        both = layer.definition in TWO_WAYS
        if both and any(map(callable, arguments.values())):
            return None  # Keras' wrapper copies the layer from its configuration
        keras_layer, cast = self._make_layer(kind, layer, arguments, both)
        extra_arguments = mask_of if "mask" in layer.node.attributes["roles"] else None
        run = eager(keras_layer, layer.phase == "training", cast, extra_arguments)
        named = f"{BOTH_WAYS} {kind}" if both else kind
        label = f"keras.layers.{named}{' (cuDNN)' if self._is_cudnn(kind, arguments) else ''}"
        return KerasLayer(label, run, packing, keras_layer, extra_arguments)

    def _make_layer(
        self, kind: str, layer: ClaimableCall, arguments: Mapping[str, Any], both: bool = False
    ) -> Any:
        """Make a Keras layer with the spec's name. Return this layer, and a function that casts its
        results to float32. The function is None unless the layer has a mixed dtype policy (bfloat16
        or float16).

        ``kind`` is the Keras class. ``both`` makes the layer bidirectional.
        """
        name = own_name(str(layer.node.attributes["instance"]), self.keras)
        known = getattr(self.keras.layers, kind)
        keras_layer = known(**arguments, **self.starts(known), name=name)
        if both:
            keras_layer = self.keras.layers.Bidirectional(
                keras_layer, merge_mode="concat", name=name
            )
        mixed = keras_layer.compute_dtype != keras_layer.variable_dtype
        return keras_layer, self.keras.ops.cast if mixed else None

    def starts(self, kind: Callable[..., Any]) -> Mapping[str, Any]:
        """Return the arguments with which the constructor of the Keras class ``kind`` sets all
        initial values to zero. The values do not matter, because they are replaced before they are
        used."""
        return zero_initializers(kind)

    def _attention(self, layer: ClaimableCall) -> Native | None:
        dtype = self.keras.config.dtype_policy().compute_dtype
        if self.engine.without_attention(layer.definition, dtype, self._card is None):
            return None
        arguments = attention.arguments(layer)
        if arguments is None or not self._is_exact(attention.KIND, {}):
            return None
        keras_layer, cast = self._make_layer(attention.KIND, layer, arguments)
        extra_arguments = partial(attention.ATTENTION[layer.definition], self.keras.ops)
        run = eager(keras_layer, layer.phase == "training", cast, extra_arguments)
        packing = attention.packing(layer)
        return KerasLayer(
            f"keras.layers.{attention.KIND}", run, packing, keras_layer, extra_arguments
        )

    def _is_cudnn(self, kind: str, arguments: Mapping[str, Any]) -> bool:
        """Return whether Keras runs the layer ``kind`` with cuDNN. It does so on a GPU for an LSTM
        (on TensorFlow also a GRU) whose activations are tanh and sigmoid."""
        functions = arguments.get("activation"), arguments.get("recurrent_activation")
        kinds = {"LSTM", "GRU"} if isinstance(self.engine, TensorFlowEngine) else {"LSTM"}
        standard = functions == ("tanh", "sigmoid") and arguments.get("reset_after", True)
        return bool(self._card is not None and kind in kinds and standard)

    def _is_exact(self, kind: str, arguments: Mapping[str, Any]) -> bool:
        """Return whether the Keras layer ``kind`` computes in the session's dtype. If not, it
        rounds values to a narrower dtype."""
        if self.keras.config.floatx() != "float64":
            return True
        used = {"matmul"} if kind in (*RECURRENT, "Dense") else set()
        for ending, name in (("Normalization", "normalization"), ("Attention", "attention")):
            used |= {name} if kind.endswith(ending) else set()
        functions = (arguments.get("activation"), arguments.get("recurrent_activation"))
        return self.inexact.isdisjoint({*used, *functions})

    def _activation(self, name: str) -> Any:
        if name in self.unnamed:
            return self.unnamed[name]()
        return ACTIVATIONS.get(name)

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        return claim_optimizer(self, self.keras, self.engine, rule)

    def own_models(self) -> Any:
        from .own_model import KerasOwnModels

        return KerasOwnModels(self)

    def session(self, training: Program, inference: Program, **choices: Any) -> Session:
        session = Session(self, training, inference, **choices)
        models = KerasModels(self.keras, session, self.engine.index)
        session.whole = models if models.layers else None
        return session


@hookimpl
def harness_environment(name: str) -> Mapping[str, str]:
    return {
        "KERAS_BACKEND": NAMES[name],
        "TF_CPP_MIN_LOG_LEVEL": "2",  # startup messages, including oneDNN's
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


@hookimpl
def harness_deterministic(name: str) -> Mapping[str, str]:
    # The engine itself makes TensorFlow deterministic. cuBLAS needs the same variable as in torch.
    return platforms.deterministic(os.environ) if name == "keras-jax" else CUBLAS_REPEATS


@hookimpl
def harness_instruction_sets(name: str) -> Mapping[str, Mapping[str, str]]:
    jax = platforms.instruction_sets(os.environ)
    torch = INSTRUCTION_SETS
    sets = {"keras-jax": jax, "keras-torch": torch}
    # TensorFlow compiles with XLA, and its layers call oneDNN.
    return sets.get(name) or {label: {**jax[label], **torch[label]} for label in jax}


@hookimpl
def harness_backend(name: str) -> Backend:
    return Keras(name, NAMES[name])


@hookimpl
def harness_defaults(name: str) -> Probes:
    from .defaults import PROBES

    return PROBES
