"""The execution paths on which a backend can run a spec, and the names of dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

ExecutionPath = Literal["native", "equations", "derived", "compiled", "native-compiled"]
# Paths that need no compiler of whole steps.
Path = Literal["native", "equations", "derived"]
PATHS: tuple[str, ...] = get_args(Path)
Dtype = Literal["float64", "float32", "bfloat16", "float16"]
KNOWN_DTYPES: tuple[str, ...] = get_args(Dtype)
# Paths of users' own models -> the dtypes in which they run, the default first. The model runs as
# it is (``native``), through the compiler of its framework, with matrix products in a narrow dtype,
# as an exported ONNX file, or without graph optimisation.
_WIDE = ("float32", "float64")
OWN_PATHS: Mapping[str, tuple[str, ...]] = {
    "native": _WIDE,
    "compiled": _WIDE,
    "autocast": ("bfloat16", "float16"),
    "onnx": ("float32",),
    "unoptimised": _WIDE,
}
# Paths whose gradient the harness derives from the program, even if the framework has autograd.
DERIVED_PATHS = ("derived", "compiled")
# Paths on which claimed calls run the framework's own layers.
NATIVE_PATHS = ("native", "native-compiled")
# Paths that need a framework with a compiler of whole steps.
COMPILED_PATHS = ("compiled", "native-compiled")
