"""The public contract of a backend: everything that a backend may import from the harness.

A plugin is a module with :func:`hookimpl` functions named as in
:class:`harness.runtime.hookspecs.Hooks`, and a subclass of :class:`Backend`. Its methods document
the shapes and dtypes that they receive, and the errors that they may raise.
``docs/adding-a-backend.md`` explains one line by line. Further contracts have modules of their own:

- :mod:`harness.extend.program`: read the program of a model, for claims of layers and whole models.
- :mod:`harness.extend.executor`: run plans with preallocated buffers.
- :mod:`harness.extend.formats`: export and import files of weights (``docs/formats.md``).
- :mod:`harness.extend.source`: write a model as source code.
- :mod:`harness.extend.models`: run models of users for ``harness check --against``.

Every other module of the harness is private: it may change in any release.
"""

from __future__ import annotations

from harness.arrays import Array, ArrayDict, Arrays
from harness.errors import HarnessError, UsageError, shorten
from harness.program.clipping import Clipping, clipping
from harness.program.ir import Program
from harness.program.updates import UpdateRule
from harness.runtime.backend import Backend
from harness.runtime.hookspecs import Measured, Probes, hookimpl
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
