"""Whole plans, and torch's own layers, through torch.compile: as C++ that is translated here."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental.proxy_tensor import make_fx

from harness.extend import F, Plan, Tensors, UsageError

Tensor = Any
COMPILERS = ("g++", "clang++")
# It takes some forty seconds for so many operations.
MOST = 1000


def has_compiler() -> bool:
    """Whether there is a compiler of C++, without which torch.compile fails at the first call."""
    return any(map(shutil.which, COMPILERS))


def compiled(
    plan: Plan, run: Callable[[Tensors], Tensors], device: str, exact: bool
) -> Callable[[Tensors], Tensors]:
    """What ``run`` does with a plan, compiled at the first call; ``exact``, to the same bits each
    time.

    Raises:
        UsageError: it is not for the CPU, there is no compiler, or the plan is too long for one.
    """
    _check(device)
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

    def whole(inputs: Tensors) -> Tensors:
        return run(inputs)

    # torch.compile keeps few translations of one code object, and a plan has one of its own.
    own = FunctionType(whole.__code__.replace(), globals(), closure=whole.__closure__)
    return quiet(_translated(own, exact))


def compiled_native(function: F, device: str, exact: bool) -> F:
    """A function with torch's own layers, compiled at the first call, with its gradients if it has
    some: the calls that it makes are recorded, and what was recorded is compiled; ``exact``, to the
    same bits each time.

    Raises:
        UsageError: it is not for the CPU, or there is no compiler; at the first call, that there
            are too many calls for one.
    """
    _check(device)
    made: list[Callable[[Tensors], Any]] = []

    def run(variables: Tensors, constants: Tensors) -> Any:
        if not made:
            made.append(_recorded(function, exact, variables, constants))
        return made[0]({**variables, **constants})

    return run


def _recorded(
    function: F, exact: bool, variables: Tensors, constants: Tensors
) -> Callable[[Tensors], Any]:
    """What a function does with tensors of these names and shapes, compiled."""
    names, count = (*variables, *constants), len(variables)

    def in_a_row(tensors: Sequence[Tensor]) -> Any:
        given = list(zip(names, tensors, strict=True))
        return function(dict(given[:count]), dict(given[count:]))

    graph = make_fx(in_a_row)([*variables.values(), *constants.values()])
    calls = sum(node.op == "call_function" for node in graph.graph.nodes)
    if calls > MOST:
        raise UsageError(
            f"a step makes {calls:,} calls of torch, and more than {MOST:,} keep torch.compile for "
            "long: take native"
        )
    whole = quiet(_translated(graph, exact))
    return lambda given: whole([given[name] for name in names])


def _translated(function: Callable[..., Any], exact: bool) -> Callable[..., Any]:
    # The compiler's own modules use what torch deprecates.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
    # No further processes; and calls from C++, since at small batches the calls decide.
    options = {"cpp_wrapper": True, "compile_threads": 1}
    made = torch.compile(function, dynamic=False, fullgraph=True, options=options)

    def run(*arguments: Any) -> Any:
        try:
            return made(*arguments)
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"torch.compile cannot take this step ({reason}): take another path"
            ) from error

    return deterministic(run) if exact else run


def deterministic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that torch is told at each call to run deterministically: otherwise the compiler
    has the gradient of an embedding summed by several threads in any order. What was compiled for
    one of both is compiled anew for the other."""

    def run(*arguments: Any) -> Any:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            return function(*arguments)
        finally:
            torch.use_deterministic_algorithms(before)

    return run


def _check(device: str) -> None:
    if device != "cpu":
        raise UsageError(
            f"torch.compile was tried on the CPU only, and this is {device}: take derived"
        )
    if not has_compiler():
        listed = " or ".join(COMPILERS)
        raise UsageError(f"torch.compile needs a compiler of C++ ({listed}): take derived")


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function without recording for autograd."""

    def run(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(*arguments)

    return run
