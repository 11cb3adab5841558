"""A whole plan through torch.compile, as C++ that a compiler of this machine translates."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from harness.extend import Node, Plan, Tensors, UsageError

COMPILERS = ("g++", "clang++")
# A compiler takes some ten seconds for a thousand operations, and more than in proportion for more.
MOST = 2000


def has_compiler() -> bool:
    """Whether there is a compiler of C++, without which torch.compile fails at the first call."""
    return any(map(shutil.which, COMPILERS))


def compiled(
    plan: Plan, run: Callable[[Tensors], Tensors], device: str
) -> Callable[[Tensors], Tensors]:
    """What ``run`` does with a plan, compiled at the first call.

    Raises:
        UsageError: it is not for the CPU, there is no compiler, or the plan is too long for one.
    """
    if device != "cpu":
        raise UsageError(f"the path compiled is for the CPU, and this is {device}: take derived")
    if not has_compiler():
        listed = " or ".join(COMPILERS)
        raise UsageError(f"torch.compile needs a compiler of C++ ({listed}): take derived")
    operations = _operations(plan, plan.nodes)
    if operations > MOST:
        raise UsageError(
            f"a step has {operations:,} operations with its loops unrolled, and more than {MOST:,} "
            "keep torch.compile for minutes: take derived"
        )

    # The compiler's own modules use what torch deprecates.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)

    def whole(inputs: Tensors) -> Tensors:
        return run(inputs)

    # torch.compile keeps few translations of one code object, and a plan has one of its own.
    own = FunctionType(whole.__code__.replace(), globals(), closure=whole.__closure__)
    # No further processes; and calls from C++, since at small batches the calls decide.
    options = {"cpp_wrapper": True, "compile_threads": 1}
    made: Callable[[Tensors], Tensors] = torch.compile(
        own, dynamic=False, fullgraph=True, options=options
    )

    def quiet(inputs: Tensors) -> Tensors:
        with torch.no_grad():
            return made(inputs)

    return quiet


def _operations(plan: Plan, nodes: Any) -> int:
    """How many operations nodes are, with a loop's for each step."""
    total = 0
    for node in nodes:
        total += _steps(plan, node) * _operations(plan, node.body.nodes) if node.body else 1
    return total


def _steps(plan: Plan, node: Node) -> int:
    if node.op != "scan":
        return 1
    return plan.types[node.inputs[node.carries]].shape[0].resolve(plan.sizes)
