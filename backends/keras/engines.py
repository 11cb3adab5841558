"""The three engines of Keras 3, and exact replacements for operations that Keras rounds.

On torch and JAX, Keras' type promotion turns some float64 values into float32. These operations
round float64 values:

- torch: ``matmul``, ``tensordot``, ``segment_sum`` (relative error 1e-7), all normalisations
- JAX: ``tanh`` (8e-8), all normalisations
- TensorFlow: ``gelu``, which has a float32 constant (5e-9)
- all engines: the scale of attention, unless it is a power of two

Each engine lists such operations in ``inexact``. ``replacements`` has exact functions for the
operations that a program may use. Two engines are the backends of their frameworks, which compile,
differentiate and measure memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from .jax_engine import JaxEngine
from .tensorflow_engine import TensorFlowEngine
from .torch_engine import TorchEngine

Engine = TensorFlowEngine | TorchEngine | JaxEngine
ENGINES: Mapping[str, type[Engine]] = {
    "tensorflow": TensorFlowEngine,
    "torch": TorchEngine,
    "jax": JaxEngine,
}

__all__ = ["ENGINES", "Engine", "JaxEngine", "TensorFlowEngine", "TorchEngine"]
