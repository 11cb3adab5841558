"""A whole plan through torch.compile, as C++ that a compiler of this machine translates."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from types import FunctionType

import torch

from harness.extend import Plan, Tensors, UsageError

COMPILERS = ("g++", "clang++")
# It takes some forty seconds for so many operations.
MOST = 1000


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
    operations = plan.operations
    if operations["overlap_add"]:
        # Each place in a window is an addition into a slice, and all are fused into one kernel.
        raise UsageError(
            "sums over windows that overlap keep torch.compile for minutes: take derived"
        )
    if operations.total() > MOST:
        raise UsageError(
            f"a step has {operations.total():,} operations with its loops unrolled, and more than "
            f"{MOST:,} keep torch.compile for long: take derived"
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
