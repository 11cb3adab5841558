"""Classes for backends that run a compiled plan of a program with preallocated buffers."""

from __future__ import annotations

from harness.program.passes.unroll import LONGEST_FUSED
from harness.program.plan import Plan
from harness.runtime.claimed_calls import VARIABLES
from harness.runtime.executor import Call, Executor, in_turn
from harness.runtime.interpreter import Claimed, Line, Values, loop
from harness.runtime.native import Layout, WholeModel
from harness.runtime.session import Session

__all__ = [
    "LONGEST_FUSED",
    "VARIABLES",
    "Call",
    "Claimed",
    "Executor",
    "Layout",
    "Line",
    "Plan",
    "Session",
    "Values",
    "WholeModel",
    "in_turn",
    "loop",
]
