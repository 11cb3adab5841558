"""The ways in which a backend runs a spec: paths, and types of numbers."""

from __future__ import annotations

from typing import Literal, get_args

ExecutionPath = Literal["native", "equations", "derived", "compiled", "native-compiled"]
# Those that every backend may have.
Path = Literal["native", "equations", "derived"]
PATHS: tuple[str, ...] = get_args(Path)
Dtype = Literal["float64", "float32", "bfloat16", "float16"]
KNOWN_DTYPES: tuple[str, ...] = get_args(Dtype)
# Those whose gradient is derived on the program, whatever the framework could differentiate.
DERIVED_PATHS = ("derived", "compiled")
# Those on which claimed calls run the framework's own.
NATIVE_PATHS = ("native", "native-compiled")
# Those that a framework without a compiler of whole steps has not.
COMPILED_PATHS = ("compiled", "native-compiled")
