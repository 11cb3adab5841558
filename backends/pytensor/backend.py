"""The backend ``pytensor``. PyTensor continues Theano: it builds a graph, differentiates it,
compiles it and runs it.

Functions run on numpy, without a C compiler. PyTensor's default, numba, compiles a training step in
seconds to minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from harness.extend import Array, Backend, Function, GradientFunction, Table, Tensors, hookimpl
from harness.extend.helpers import GraphBackend

Node = Any


class PyTensor(GraphBackend):
    """The implementation of the backend ``pytensor``."""

    name = "pytensor"

    def __init__(self) -> None:
        import pytensor
        from pytensor.compile.mode import Mode
        from pytensor.link.vm import VMLinker

        pytensor.config.cxx = ""  # otherwise PyTensor compiles a C module at its first function
        self.pytensor = pytensor
        # Other optimizers replace 0 * x by 0 even if x is NaN.
        self.mode = Mode(VMLinker(use_cloop=False, c_thunks=False), "merge")

    @cached_property
    def kernels(self) -> Table:
        from .primitives import KERNELS

        return KERNELS

    def versions(self) -> Mapping[str, str]:
        return {"pytensor": self.pytensor.__version__, **super().versions()}

    def placeholder(self, array: Array) -> Node:
        return self.pytensor.tensor.tensor(dtype=array.dtype.name, shape=array.shape)

    def constant(self, array: Array) -> Node:
        return self.pytensor.tensor.constant(array)

    def build(
        self, inputs: Sequence[Node], outputs: Sequence[Node]
    ) -> Callable[[Sequence[Array]], Sequence[Array]]:
        run = self.pytensor.function(
            [*inputs], [*outputs], mode=self.mode, on_unused_input="ignore"
        )
        return lambda arrays: run(*arrays)

    def value_and_gradient(self, function: Function) -> GradientFunction:
        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            results = function(variables, constants)
            gradients = self.pytensor.grad(
                results["scalar"].node,
                [variable.node for variable in variables.values()],
                disconnected_inputs="ignore",
            )
            return results, {
                name: replace(variable, node=gradient)
                for (name, variable), gradient in zip(variables.items(), gradients, strict=True)
            }

        return self.compile(run)


@hookimpl
def harness_backend(name: str) -> Backend:
    return PyTensor()
