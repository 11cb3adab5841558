"""The public interface for backend plugins: everything that a backend may import from the harness.

A plugin is a module with a subclass of :class:`Backend` and with functions that are decorated with
:func:`hookimpl` and named as in :class:`harness.runtime.hookspecs.Hooks`. The docstrings of
``Backend`` say which shapes and dtypes each method receives, and which errors it may raise.
``docs/adding-a-backend.md`` explains a backend line by line. A plugin may also import these
modules:

- :mod:`harness.extend.helpers`: functions that make primitives of a framework's functions, and base
  classes for lazy frameworks and for frameworks that build graphs.
- :mod:`harness.extend.program`: read a model's program, to run its layers or the whole model with
  framework functions.
- :mod:`harness.extend.executor`: run plans with preallocated buffers.
- :mod:`harness.extend.formats`: export and import files of weights (``docs/formats.md``).
- :mod:`harness.extend.source`: write a model as source code.
- :mod:`harness.extend.models`: run models of users for ``harness check --against``.

All other modules of the harness are private and may change in every release.
"""

from __future__ import annotations

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import HarnessError, UsageError, shorten
from harness.program.clipping import Clipping, clipping
from harness.program.ir import Program
from harness.program.updates import UpdateRule
from harness.runtime.backend import Backend
from harness.runtime.default_probes import Probes
from harness.runtime.hookspecs import COMPILED_CODE, Measured, hookimpl
from harness.runtime.interpreter import Step, Table
from harness.runtime.labels import card_of, device_names
from harness.runtime.native import (
    Advance,
    Chain,
    ClaimableCall,
    F,
    Function,
    GradientFunction,
    Native,
    NativeOptimizer,
    Tensors,
)
from harness.runtime.packing import FrozenZeros, Join, Packing, Part, Piece, Stack
from harness.runtime.precision import NARROW, host_dtype, narrow, rounded_to

__all__ = [
    "COMPILED_CODE",
    "NARROW",
    "Advance",
    "Array",
    "ArrayDict",
    "Arrays",
    "Backend",
    "Chain",
    "ClaimableCall",
    "Clipping",
    "F",
    "FrozenZeros",
    "Function",
    "GradientFunction",
    "HarnessError",
    "Join",
    "Measured",
    "Native",
    "NativeOptimizer",
    "Packing",
    "Part",
    "Piece",
    "Probes",
    "Program",
    "Stack",
    "Step",
    "Table",
    "Tensors",
    "UpdateRule",
    "UsageError",
    "card_of",
    "clipping",
    "device_names",
    "hookimpl",
    "host_dtype",
    "narrow",
    "rounded_to",
    "shorten",
]
