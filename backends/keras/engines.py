"""The three engines of Keras 3: what it leaves to them, and what only they do exactly.

Outside of TensorFlow, Keras' type promotion turns float64 into float32, so a few of its operations
round float64 values to float32: on torch ``matmul``, ``tensordot`` and ``segment_sum`` (relative
error 1e-7), on JAX ``tanh`` (8e-8), and every normalisation on both. On TensorFlow ``gelu`` has a
constant of float32 (5e-9). The scale of Keras' attention is float32's on all of them, unless it is
a power of two. Each engine names them in ``inexact``; its own functions for those that a program
may ask for are in ``exact``.
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
