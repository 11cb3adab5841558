"""The ways in which a backend runs a spec."""

from __future__ import annotations

from typing import Literal

ExecutionPath = Literal["native", "equations", "derived", "compiled", "native-compiled"]
# Those that every backend may have.
PATHS = ("native", "equations", "derived")
# Those whose gradient is derived on the program, whatever the framework could differentiate.
DERIVED_PATHS = ("derived", "compiled")
# Those on which claimed calls run the framework's own.
NATIVE_PATHS = ("native", "native-compiled")
# Those that a framework without a compiler of whole steps has not.
COMPILED_PATHS = ("compiled", "native-compiled")
