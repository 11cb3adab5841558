"""Compilation of plans and of torch's own layers to C++, with torch's Inductor."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from harness.extend import F, Tensors, UsageError
from harness.extend.executor import Plan
from harness.extend.program import walk_nodes

Tensor = Any
COMPILERS = ("g++", "clang++")
# Plans with more operations than this are rejected: compiling them takes more than a minute.
MOST = 1500
# Plans that sum windows with more entries than this are rejected, because nine entries take
# minutes to compile.
MOST_PLACES = 4
# Inductor compiles calls of this function, but they fail: oneDNN's data from the forward pass are
# missing.
ONEDNN_BACKWARD = "mkldnn_rnn_layer_backward"
# Rows of up to this length are sorted by comparing all pairs, because torch's sort cannot be fused
# with the operations around it.
SHORT = 8


def _short_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """Sort short rows as ``torch.sort`` does, by comparing all pairs of entries; return the sorted
    entries and their indices. The sort is stable, with NaN last. For other sorts, return
    NotImplemented, so that torch's own function runs."""
    count = x.shape[dim]
    if count > SHORT or descending or dim not in (-1, x.dim() - 1):
        return NotImplemented
    places = torch.arange(count, device=x.device)
    own, other = x.unsqueeze(-1), x.unsqueeze(-2)
    no_number, other_none = own != own, other != other
    before = (other < own) | (no_number & ~other_none)
    ties = (own == other) | (no_number & other_none)
    earlier = places < places.unsqueeze(-1)
    rank = (before | (ties & earlier)).sum(-1)
    order = ((rank.unsqueeze(-2) == places.unsqueeze(-1)) * places).sum(-1)
    return torch.gather(x, -1, order), order


DECOMPOSED = {torch.ops.aten.sort.stable: _short_sort}


def missing_compiler() -> str:
    """Return why ``torch.compile`` cannot run here; empty if a C++ compiler is installed."""
    if any(map(shutil.which, COMPILERS)):
        return ""
    return f"torch.compile needs a C++ compiler ({' or '.join(COMPILERS)})"


def compile_plan(
    plan: Plan, run: Callable[[Tensors], Tensors], device: str, exact: bool
) -> Callable[[Tensors], Tensors]:
    """Return a function that compiles a plan (a list of operations) at its first call. ``run`` is a
    function that executes the plan; it is traced.

    If ``exact`` is true, repeated calls return the same bits.

    Raises:
        UsageError: the device is not the CPU, no C++ compiler is installed, or the plan is too
            long.
    """
    _check_compiler(device)
    # For each entry of a window, the plan adds into a slice. Inductor fuses all of these additions
    # into one kernel.
    sums = (node for node in walk_nodes(plan.nodes) if node.op == "overlap_add")
    windows = (node.attributes["size"] for node in sums)
    places = max((prod(size.resolve(plan.sizes) for size in each) for each in windows), default=0)
    if places > MOST_PLACES:
        raise UsageError(
            f"a step sums overlapping windows of {places} entries; with more than {MOST_PLACES} "
            "entries, torch.compile takes minutes: use the path derived"
        )
    count = plan.operations.total()
    if count > MOST:
        raise UsageError(
            f"with its loops unrolled, a step has {count:,} operations; with more than {MOST:,}, "
            "torch.compile takes too long: use the path derived"
        )

    def function(inputs: Tensors, _: Tensors) -> Tensors:
        return run(inputs)

    compiled = _Compiled(function, exact)
    return lambda inputs: compiled(inputs, {})


def compile_native(function: F, device: str, exact: bool) -> F:
    """Return a function that compiles ``function``, which calls torch's own layers, at its first
    call.

    If ``exact`` is true, repeated calls return the same bits.

    Raises:
        UsageError: the device is not the CPU, or no C++ compiler is installed. The first call also
            raises it if the function makes too many calls of torch.
    """
    _check_compiler(device)
    return cast(F, _Compiled(function, exact, most=MOST))


class _Compiled:
    """A function of tensors by name that is compiled at its first call, for the names, shapes and
    strides of that call.

    It is used instead of ``torch.compile``, which checks all inputs at each call. With small
    batches, these checks take a large part of a step.
    """

    def __init__(self, function: Callable[..., Any], exact: bool, most: int | None = None) -> None:
        self._function, self._exact, self._most = function, exact, most
        self._whole: Callable[..., Sequence[Tensor]] | None = None
        self._names: tuple[str, ...] = ()
        # The names in each of the mappings that the function returns.
        self._parts: list[tuple[str, ...]] = []

    def __call__(self, variables: Tensors, constants: Tensors) -> Any:
        tensors = {**variables, **constants} if constants else variables
        if self._whole is None:
            self._compile(variables, constants)
        assert self._whole is not None
        results = iter(self._whole(*[tensors[name] for name in self._names]))
        parts = [dict(zip(names, results, strict=False)) for names in self._parts]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _compile(self, variables: Tensors, constants: Tensors) -> None:
        self._names, count = (*variables, *constants), len(variables)

        def positional(*tensors: Tensor) -> list[Tensor]:
            named = list(zip(self._names, tensors, strict=True))
            result = self._function(dict(named[:count]), dict(named[count:]))
            parts = [result] if isinstance(result, dict) else list(result)
            self._parts = [tuple(part) for part in parts]
            # Make results contiguous, because they are the inputs of the next run.
            return [tensor.contiguous() for part in parts for tensor in part.values()]

        example = [*variables.values(), *constants.values()]
        with torch.no_grad():
            graph = make_fx(positional, decomposition_table=DECOMPOSED)(*example)
        if any(ONEDNN_BACKWARD in str(node.target) for node in graph.graph.nodes):
            raise UsageError("torch.compile cannot train oneDNN's LSTM: use the path native")
        calls = sum(node.op == "call_function" for node in graph.graph.nodes)
        if self._most is not None and calls > self._most:
            raise UsageError(
                f"a step makes {calls:,} calls of torch; with more than {self._most:,}, "
                "torch.compile takes too long: use the path native"
            )
        for node in graph.graph.nodes:
            node.meta.clear()  # the compiler cannot use the tracer's metadata
        self._whole = without_autograd(_compile_graph(graph, example, self._exact))


def _compile_graph(graph: Any, example: Sequence[Tensor], exact: bool) -> Callable[..., Any]:
    """Compile a traced graph to C++, for tensors with the same memory layout as in ``example``.

    Raises:
        UsageError: the compiler rejects the graph.
    """
    # Import Inductor here: the import takes a second, and other paths do not need it.
    from torch import _inductor as inductor
    from torch._dynamo.exc import TorchDynamoException

    # Ignore warnings of the compiler's own modules, which use deprecated functions of torch.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
    # Compile in this process. Call kernels from C++, because calls from Python take most of the
    # time of small batches.
    options = {"cpp_wrapper": True, "compile_threads": 1}
    compiler = deterministic(inductor.compile) if exact else inductor.compile
    try:
        with torch.no_grad():
            compiled: Callable[..., Any] = compiler(graph, list(example), options)
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"torch.compile cannot compile this step ({reason}): use another path"
        ) from error
    return deterministic(compiled) if exact else compiled


def deterministic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a version of a function that uses torch's deterministic algorithms. Without them,
    several threads sum the gradient of an embedding in varying order, so its last digits vary."""

    def run(*arguments: Any) -> Any:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            return function(*arguments)
        finally:
            torch.use_deterministic_algorithms(before)

    return run


def _check_compiler(device: str) -> None:
    if device != "cpu":
        raise UsageError(
            f"torch.compile is supported on the CPU only, not on {device}: use the path derived"
        )
    if reason := missing_compiler():
        raise UsageError(f"{reason}: use the path derived")


def without_autograd(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a version of a function that runs without autograd (``torch.no_grad``)."""

    def run(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(*arguments)

    return run
