"""Functions and base classes that make a backend shorter: primitives made of a framework's
functions, and backends whose framework computes lazily or builds graphs."""

from __future__ import annotations

from harness.runtime.deferred import GraphBackend, LazyBackend, result_type, type_of
from harness.runtime.kernels import one_hot, reduction, segment_sum, slice_axis, take_rows

__all__ = [
    "GraphBackend",
    "LazyBackend",
    "one_hot",
    "reduction",
    "result_type",
    "segment_sum",
    "slice_axis",
    "take_rows",
    "type_of",
]
