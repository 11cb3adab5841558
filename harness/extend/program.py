"""Classes and functions for reading a model's program, e.g. to run its layers with framework
functions or to write it as code."""

from __future__ import annotations

from harness.program import series
from harness.program.axes import inverse, leading_axes, lone_axes
from harness.program.dims import Dim, Shape
from harness.program.ir import (
    Block,
    Node,
    Phase,
    Port,
    Type,
    free_values,
    inline_calls,
    needed_nodes,
    walk_nodes,
)
from harness.program.signature import (
    call_key,
    crossing_ports,
    index_names,
    is_constant,
    local_of,
    owner_of,
)
from harness.program.windows import FramedAxis, framed_axes, order_of_taken, pads_of
from harness.runtime.native import calls_by_layer

__all__ = [
    "Block",
    "Dim",
    "FramedAxis",
    "Node",
    "Phase",
    "Port",
    "Shape",
    "Type",
    "call_key",
    "calls_by_layer",
    "crossing_ports",
    "framed_axes",
    "free_values",
    "index_names",
    "inline_calls",
    "inverse",
    "is_constant",
    "leading_axes",
    "local_of",
    "lone_axes",
    "needed_nodes",
    "order_of_taken",
    "owner_of",
    "pads_of",
    "series",
    "walk_nodes",
]
