"""The backend ``torch``: PyTorch in eager mode, with gradients from autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.extend import (
    NARROW,
    Array,
    Backend,
    ClaimableCall,
    F,
    Function,
    GradientFunction,
    Native,
    NativeOptimizer,
    Probes,
    Step,
    Table,
    Tensors,
    UpdateRule,
    card_of,
    hookimpl,
    narrow,
)
from harness.extend.executor import Executor, Plan

if TYPE_CHECKING:
    import torch

    from . import cuda

Tensor = Any

# cuBLAS is deterministic only with this setting. Without it, torch rejects matrix products in
# deterministic mode.
CUBLAS_REPEATS: Mapping[str, str] = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
# Variables that limit torch's own kernels and oneDNN to an instruction set.
INSTRUCTION_SETS: Mapping[str, Mapping[str, str]] = {
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


class Torch(Backend):
    """The implementation of the backend ``torch``."""

    name = "torch"
    rewrites = True
    denormals = True

    def __init__(self) -> None:
        # Import torch here, because listing the backends imports this module and must be fast.
        global torch, cuda
        import torch

        from . import cuda

        self.device, self.products, self.double = "cpu", "", False
        from .compiled import missing_compiler
        from .primitives import FUSED, PRIMITIVES

        self._table = {
            **PRIMITIVES,
            "arange": lambda stop: torch.arange(stop, device=self.device),
        }
        self.fused = FUSED
        self.compiles = () if missing_compiler() else ("compiled", "native-compiled")

    @property
    def primitives(self) -> Table:
        return self._table

    def tensor(self, array: Array) -> Tensor:
        # Copy the array first: from_numpy shares memory, and rejects negative strides.
        return torch.from_numpy(np.array(array, order="C")).to(self.device)

    def fill(self, tensor: Tensor, array: Array) -> None:
        tensor.copy_(torch.from_numpy(array))

    def numpy(self, tensor: Tensor) -> Array:
        return tensor.detach().to("cpu", copy=True).numpy()

    def versions(self) -> Mapping[str, str]:
        return {**super().versions(), "torch": str(torch.__version__)}

    def devices(self) -> Sequence[str]:
        return cuda.devices()

    def dtypes(self) -> Sequence[str]:
        return (*super().dtypes(), *cuda.dtypes(), *NARROW)

    def refuses(self, device: str) -> Collection[str]:
        return ("float64",) if device == cuda.MPS else ()

    def use(self, device: str, dtype: str) -> None:
        self.device, self.products, self.double = device, narrow(dtype), dtype == "float64"
        cuda.prepare(dtype, self.deterministic)
        # Ignore torch's warning that it copies recurrent weights at each call. cuDNN prefers
        # weights in one block of memory, but autograd's leaves are separate tensors.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")

    def repeats(self) -> bool:
        return self.deterministic or self.device == "cpu"

    def scan(
        self, step: Step, carries: Sequence[Any], sequences: Sequence[Any], reverse: bool
    ) -> tuple[list[Any], list[Any]]:
        slices = list(zip(*(sequence.unbind(0) for sequence in sequences), strict=True))
        rows = []
        for row in reversed(slices) if reverse else slices:
            carries, outputs = step(carries, row)
            rows.append(outputs)
        if reverse:
            rows.reverse()
        return list(carries), [torch.stack(column) for column in zip(*rows, strict=True)]

    def compile(self, function: F) -> F:
        def quiet(variables: Tensors, constants: Tensors) -> Any:
            with torch.no_grad():
                return function(variables, constants)

        return quiet

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        from .executor_kernels import TorchKernels

        return Executor(plan, TorchKernels(plan.dtype, self.device, plan.products))

    def compile_plan(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        from .compiled import compile_plan

        return compile_plan(plan, super().execute(plan), self.device, self.exact)

    def compile_native(self, function: F) -> F:
        from .compiled import compile_native

        return compile_native(function, self.device, self.exact)

    def wait(self, tensors: Tensors) -> None:
        cuda.wait(self.device)

    def device_memory(self) -> int | None:
        return cuda.peak(self.device)

    def forget_device_memory(self) -> None:
        cuda.forget_peak(self.device)

    def flush_denormals(self, flush: bool = True) -> bool:
        return torch.set_flush_denormal(flush)

    def settings(self) -> Mapping[str, str]:
        return {"threads": str(torch.get_num_threads()), **cuda.settings()}

    def gradients_of(self, scalar: Tensor, leaves: Tensors) -> dict[str, Tensor]:
        """Return the gradients of a scalar with respect to the tensors ``leaves``, by name.

        If the scalar does not depend on a tensor, the gradient is zeros, where torch would return
        None.
        """
        if not scalar.requires_grad:
            return {n: torch.zeros_like(t) for n, t in leaves.items()}
        gradients = torch.autograd.grad(
            scalar, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return dict(zip(leaves, gradients, strict=True))

    def value_and_gradient(self, function: Function) -> GradientFunction:
        # Reuse leaf tensors, because in-place optimizers pass the same tensors at each step.
        leaf_tensors: dict[str, tuple[Tensor, Tensor]] = {}

        def leaf(name: str, variable: Tensor) -> Tensor:
            if name not in leaf_tensors or leaf_tensors[name][0] is not variable:
                leaf_tensors[name] = variable, variable.detach().requires_grad_()
            return leaf_tensors[name][1]

        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            leaves = {n: leaf(n, v) for n, v in variables.items()}
            with torch.enable_grad():
                results = function(leaves, constants)
            gradients = self.gradients_of(results["scalar"], leaves)
            return {n: r.detach() for n, r in results.items()}, gradients

        return run

    def forward_derivative(self, function: Function) -> Function:
        forward_ad = torch.autograd.forward_ad

        def run(variables: Tensors, constants: Tensors) -> Tensors:
            with forward_ad.dual_level():
                duals = {
                    name: forward_ad.make_dual(variable, constants[f"direction.{name}"])
                    for name, variable in variables.items()
                }
                scalar = function(duals, constants)["scalar"]
                tangent = forward_ad.unpack_dual(scalar).tangent
            # It is None if the scalar depends on no variable.
            return {"derivative": torch.zeros_like(scalar) if tangent is None else tangent}

        return run

    def claim(self, layer: ClaimableCall) -> Native | None:
        from .autocast import autocast
        from .layers import CLAIMS
        from .recurrent import CUDNN

        claim = CLAIMS.get(layer.definition)
        native = claim(layer) if claim else None
        if native is not None and self.products:
            native = autocast(native, self.device, self.products)
        if native is not None and card_of(self.device) is not None and native.label in CUDNN:
            return replace(native, label=f"{native.label} (cuDNN)")
        return native

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        from .optimizers import claim_optimizer

        return claim_optimizer(rule, self.double)

    def own_models(self) -> Any:
        from .own_model import TorchModels

        return TorchModels(self)


@hookimpl
def harness_deterministic(name: str) -> Mapping[str, str]:
    return CUBLAS_REPEATS


@hookimpl
def harness_instruction_sets(name: str) -> Mapping[str, Mapping[str, str]]:
    return INSTRUCTION_SETS


@hookimpl
def harness_backend(name: str) -> Backend:
    return Torch()


@hookimpl
def harness_defaults(name: str) -> Probes:
    from .defaults import PROBES

    return PROBES
