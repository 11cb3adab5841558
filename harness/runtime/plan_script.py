"""A plan as a script over a table of primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.program.plan import Plan
from harness.runtime.interpreter import Interpreter, Loop, Table
from harness.runtime.native import Tensors
from harness.runtime.precision import host_dtype


def plan_script(
    plan: Plan, table: Table, tensor: Callable[[Array], Any], scan: Loop
) -> Callable[[Tensors], Tensors]:
    """What runs a plan node by node: from its inputs to its outputs, both by the plan's names."""

    def scalar(value: float) -> Any:
        return tensor(np.asarray(value, host_dtype(plan.dtype)))

    interpreter = Interpreter(table, plan.sizes, plan.dtype, scalar, scan)
    script = interpreter.prepared(plan.nodes, plan.outputs.values())

    def run(inputs: Tensors) -> Tensors:
        values = script.run({v: inputs[n] for n, v in plan.inputs.items()})
        return {n: values[v] for n, v in plan.outputs.items()}

    return run
