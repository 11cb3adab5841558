"""The execution paths on which a backend can run a spec, and the names of dtypes."""

from __future__ import annotations

from typing import Literal, get_args

ExecutionPath = Literal["native", "equations", "derived", "compiled", "native-compiled"]
# Paths that need no compiler of whole steps.
Path = Literal["native", "equations", "derived"]
PATHS: tuple[str, ...] = get_args(Path)
Dtype = Literal["float64", "float32", "bfloat16", "float16"]
KNOWN_DTYPES: tuple[str, ...] = get_args(Dtype)
WIDE: tuple[str, ...] = ("float32", "float64")
# Paths whose gradient the harness derives from the program, even if the framework has autograd.
DERIVED_PATHS = ("derived", "compiled")
# Paths on which claimed calls run the framework's own layers.
NATIVE_PATHS = ("native", "native-compiled")
# Paths that need a framework with a compiler of whole steps.
COMPILED_PATHS = ("compiled", "native-compiled")
