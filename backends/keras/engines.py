"""The three engines of Keras 3 (TensorFlow, torch and JAX), and exact replacements for operations
that Keras rounds.

In float64, these operations of Keras return rounded values, on torch and JAX because Keras' type
promotion converts some float64 values to float32:

- torch: ``matmul``, ``tensordot``, ``segment_sum`` (relative error 1e-7), all normalisations
- JAX: ``tanh`` (8e-8), all normalisations
- TensorFlow: ``gelu``, which has a float32 constant (5e-9)
- all engines: the scale of attention, unless it is a power of two

Each engine lists such operations in ``inexact``, and exact functions for operations of programs in
``replacements``. The torch and JAX engines inherit compilation, gradients and memory measurement
from the backends ``torch`` and ``jax``.
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
