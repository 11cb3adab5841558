"""Conversion of a program (a model's operations) to functions from tensors to tensors, and to
functions that compute gradients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.errors import UsageError
from harness.program.autodiff.differentiate import Derivative, differentiate
from harness.program.dims import bind
from harness.program.fused import join_softmaxes
from harness.program.ir import Node, Phase, Port, Program, needed_nodes
from harness.program.signature import Mode, crossing_ports, result_ports, variable_ports
from harness.program.updates import SCALE
from harness.runtime import promises, updates
from harness.runtime.backend import Backend
from harness.runtime.claimed_calls import VARIABLES, claimed_call, claims, merge_chains
from harness.runtime.derived_primitives import complete_table
from harness.runtime.interpreter import (
    Claimed,
    Interpreter,
    NodeCache,
    Table,
    Values,
    Watch,
    perform,
    with_loose,
)
from harness.runtime.native import F, Function, GradientFunction, Layout, Tensors, WholeModel
from harness.runtime.paths import DERIVED_PATHS, NATIVE_PATHS, ExecutionPath
from harness.runtime.precision import host_dtype, narrow, with_products_in


def inner_product(table: Table, results: Tensors, constants: Tensors) -> Any:
    """Return the sum over all results of the result times its cotangent (an array of the same
    shape).

    ``constants`` has the cotangent of a result, e.g. of ``output.y``, under the name
    ``cotangent.output.y``.
    """
    total = None
    for name, tensor in constants.items():
        if name.startswith("cotangent."):
            factors = [results[name.removeprefix("cotangent.")], tensor]
            product = perform(table, "multiply", factors)
            axes = tuple(range(len(product.shape)))
            term = perform(table, "sum", [product], {"axis": axes, "keepdims": False})
            total = term if total is None else perform(table, "add", [total, term])
    return total


T = TypeVar("T")
COMPILED = "the function from compile()"
# If the values of a program have more entries, a value is deleted after its last use. For small
# values, the deletions would take longer than they are worth.
MANY_ENTRIES = 1 << 23


class Functions:
    """The functions of one model on one backend: forward passes and gradients.

    ``path`` is the execution path:

    - ``native``: the framework's own layers run the calls for which the backend offers them.
    - ``equations``: the harness interprets all operations.
    - ``derived``: like ``equations``, but the harness derives the gradient from the program.
    - ``compiled``: like ``derived``, but :meth:`.Backend.compile_plan` compiles whole steps.
    - ``native-compiled``: like ``native``, but :meth:`.Backend.compile_native` compiles whole
      steps.

    The functions get (variables, constants) and return results, each a dictionary by name;
    :mod:`harness.runtime.session` lists the names. Variables are the parameters, float inputs and
    float state; everything else is a constant. The ``mode`` of a function (a
    :data:`harness.program.signature.Mode`) says which results it returns. If ``eager`` is set, the
    functions are not compiled. If ``compiled_whole`` is set, :meth:`.Backend.compile_native`
    compiles them, and all calls must have the shapes of the first call.

    Raises:
        ContractError: the backend offered an object that is not a :class:`.native.Native`.
    """

    eager = compiled_whole = False

    def __init__(
        self,
        backend: Backend,
        training: Program,
        inference: Program,
        path: ExecutionPath,
        dtype: str,
    ) -> None:
        self.backend, self.path = backend, path
        # TF32, bfloat16 and float16 are dtypes of products; stored tensors are float32.
        self.dtype, self.products = host_dtype(dtype), narrow(dtype)
        lacking = backend.lacks(dtype)
        table = complete_table(backend.primitives, lacking, backend.tensor, dtype)
        table = with_loose(table, backend.fused)
        if path in NATIVE_PATHS and "softmax" in backend.fused:
            table = {**table, "softmax": backend.fused["softmax"]}
        self.table = with_products_in(table, self.products)
        # Gradients are often too small for the range of float16.
        self.scales = self.products == "float16"
        self.programs: dict[Phase, Program] = {"training": training, "inference": inference}
        self.claims = path in NATIVE_PATHS
        claimed = {
            phase: claims(backend, program, phase) if self.claims else {}
            for phase, program in self.programs.items()
        }
        # A layer's parameters have one layout, so the layer is native in both phases or in none.
        both = claimed["training"].keys() & claimed["inference"].keys()
        self.natives = {
            phase: {key: native for key, native in natives.items() if key in both}
            for phase, natives in claimed.items()
        }
        self.layout = Layout(training, self.natives["training"])
        self.whole: WholeModel | None = None
        self._compiled: dict[Hashable, Any] = {}
        self._node_cache = NodeCache()

    def function(self, phase: Phase, mode: Mode) -> Function:
        """Return the function for a forward pass in ``phase`` (training or inference), compiled by
        the backend. ``mode`` says which results it returns. Later calls return the same function.
        """
        return self._cached(
            (phase, mode, "forward"), lambda: self.compiled(self.plain(phase, mode))
        )

    def _cached(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]  # type: ignore[no-any-return]

    def plain(self, phase: Phase, mode: Mode) -> Function:
        """Return the function for a forward pass in ``phase`` (training or inference), not
        compiled. ``mode`` says which results it returns."""

        def function(variables: Tensors, constants: Tensors) -> Tensors:
            return self.walk(phase, mode, variables, constants)

        return function

    def gradient_function(self, phase: Phase, mode: Mode) -> GradientFunction:
        """Return the function that computes results and gradients in ``phase`` (training or
        inference). ``mode`` says which results it returns. Later calls return the same function.

        The framework's automatic differentiation computes the gradients. If the framework has none,
        or on the paths ``derived`` and ``compiled``, the gradients are computed by a program that
        the harness derives from the model's program.

        Raises:
            UsageError: the backend runs layers of its framework, but has no automatic
                differentiation.
        """

        def make() -> GradientFunction:
            derived = self.path in DERIVED_PATHS
            gradient = None if derived else self.automatic(self.plain(phase, mode))
            return self.compiled(gradient) if gradient else self._derived(phase, mode)

        return self._cached((phase, mode, "gradient"), make)

    def forward_derivative_function(self, phase: Phase) -> Function | None:
        """Return the function that computes a directional derivative of the sum of results times
        cotangents; see :meth:`.Backend.forward_derivative`. Later calls return the same function.

        Raises:
            ContractError: the backend did not return a function.
        """

        def make() -> Function | None:
            forward = self.backend.forward_derivative(self.plain(phase, "cotangents"))
            name = "forward_derivative()"
            return forward and self.compiled(promises.check_function(forward, name))

        return self._cached((phase, "cotangents", "forward mode"), make)

    def compiled(self, function: F) -> F:
        """Return the backend's compiled version of ``function``, which may return gradients too. An
        eager session returns ``function`` itself.

        Raises:
            ContractError: the backend did not return a function.
        """
        if self.eager:
            return function
        if self.compiled_whole:
            return self.compiled_native(function)
        return promises.check_function(self.backend.compile(function), "compile()")

    def compiled_native(self, function: F) -> F:
        """Return ``function`` compiled by :meth:`.Backend.compile_native`.

        Raises:
            UsageError: the backend has no such compiler.
            ContractError: the backend did not return a function.
        """
        return promises.check_function(self.backend.compile_native(function), "compile_native()")

    def automatic(self, function: Function) -> GradientFunction | None:
        """Return a function that computes the results and gradients of ``function`` by the
        framework's automatic differentiation; it is not compiled.

        Return None if the framework has no automatic differentiation.

        Raises:
            ContractError: the backend did not return a function.
        """
        scaled = updates.scaled(function, self.table) if self.scales else function
        gradient = self.backend.value_and_gradient(scaled)
        if gradient is None:
            return None
        gradient = promises.check_function(gradient, "value_and_gradient()")
        return updates.unscaled(gradient, self.table) if self.scales else gradient

    def _derived(self, phase: Phase, mode: Mode) -> GradientFunction:
        if self.natives[phase]:
            raise UsageError(
                f"{self.backend.name} runs {', '.join(self.natives[phase])} with its own code "
                "(claim()) but has no automatic differentiation, so there are no gradients"
            )
        program = self.programs[phase]
        results, against = result_ports(program, mode), variable_ports(program)
        derivative = self.derivative(phase, mode)

        def function(variables: Tensors, constants: Tensors) -> Tensors:
            env, sizes = self._bind_arguments(program, variables, constants)
            one = self.float_tensor(np.asarray(1.0))
            for seed in derivative.seeds:
                seed_tensor = one if mode == "loss" else constants[f"cotangent.{seed.name}"]
                scale = [seed_tensor, constants[SCALE]] if self.scales else []
                env[seed.value] = perform(self.table, "multiply", scale) if scale else seed_tensor
            key = (phase, mode, "derived", *sorted(sizes.items()))
            nodes = derivative.program.nodes
            ends = (*results.values(), *(g.value for g in derivative.gradients))
            prepared = self._node_cache.get(key, lambda: (self.interpreter(sizes), nodes), ends)
            env = prepared.run(env)
            named_results = {n: env[v] for n, v in results.items()}
            names = zip(against, derivative.gradients, strict=True)
            return named_results | {f"gradient.{n}": env[g.value] for n, g in names}

        compiled = self.compiled(function)

        def split(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            named_results = dict(promises.check_mapping(compiled(variables, constants), COMPILED))
            gradients = {n: named_results.pop(f"gradient.{n}") for n in against}
            return named_results, gradients

        return updates.unscaled(split, self.table) if self.scales else split

    def derivative(self, phase: Phase, mode: Mode) -> Derivative:
        """Return a program that computes the results and their gradients. Later calls return the
        same program.

        The gradients are those of the loss. If ``mode`` is ``cotangents``, they are those of the
        sum of results times cotangents (arrays in the shapes of the results).
        """
        program, results = self.programs[phase], result_ports(self.programs[phase], mode)
        prefixes = ("loss",) if mode == "loss" else ("output.", "state.")
        outputs = [Port(n, v) for n, v in results.items() if n.startswith(prefixes)]
        against = list(variable_ports(program).values())
        return self._cached(
            (phase, mode, "derivative"),
            lambda: differentiate(program, outputs, against, results.values(), recomputes=True),
        )

    def walk(
        self,
        phase: Phase,
        mode: Mode,
        variables: Tensors,
        constants: Tensors,
        watch: Watch | None = None,
    ) -> Tensors:
        """Run a program's operations one after another, and return its results by name. ``mode``
        says which results.

        If ``watch`` is given, it is called with every computed value, and loops run step by step.
        """
        program = self.programs[phase]
        env, sizes = self._bind_arguments(program, variables, constants)
        ports = result_ports(program, mode)
        done: frozenset[int] = frozenset()
        if self.whole is not None and watch is None:
            done = self.whole.run(phase, sizes, env, variables)
        env[VARIABLES] = variables

        def nodes() -> list[Node]:
            needed = needed_nodes(program.nodes, ports.values())
            return [node for node in needed if not done.issuperset(node.outputs)]

        def prepare() -> tuple[Interpreter, Sequence[Node]]:
            return self._with_merged_chains(phase, sizes, nodes(), ports.values())

        if watch is None:
            key = (phase, mode, done, *sorted(sizes.items()))
            self._node_cache.get(key, prepare, ports.values()).run(env)
        else:
            self.interpreter(sizes, self.claimed(phase), watch).run(nodes(), env)
        results = {name: env[value] for name, value in ports.items()}
        if mode in ("loss", "step"):
            results["scalar"] = results["loss"]
        elif mode == "cotangents":
            results["scalar"] = inner_product(self.backend.primitives, results, constants)
        return results

    def scripted(self, phase: Phase, mode: Mode, sizes: Mapping[str, int]) -> Function:
        """Return a function like :meth:`plain`, but prepared for many calls at the fixed sizes
        ``sizes``, so that each call is faster.

        The function does not accept cotangents.
        """
        if self.whole is not None:
            self.whole.build(phase, sizes)
            return self.plain(phase, mode)
        program, ports = self.programs[phase], result_ports(self.programs[phase], mode)
        names = [(f"{prefix}{port.name}", port.value) for prefix, port in crossing_ports(program)]
        ends = ports.values()
        interpreter, nodes = self._with_merged_chains(
            phase, sizes, needed_nodes(program.nodes, ends), ends
        )
        entries = sum(prod(d.resolve(sizes) for d in t.shape) for t in program.types.values())
        script = replace(interpreter, deletes=entries > MANY_ENTRIES).prepared(nodes, ends)

        def function(variables: Tensors, constants: Tensors) -> Tensors:
            values: Values = {VARIABLES: variables}
            for name, value in names:
                tensor = variables[name] if name in variables else constants.get(name)
                if tensor is not None:
                    values[value] = tensor
            script.run(values)
            results = {name: values[value] for name, value in ports.items()}
            if "loss" in results:
                results["scalar"] = results["loss"]
            return results

        return function

    def claimed(self, phase: Phase) -> dict[str, Claimed]:
        """Return a dictionary from the name of each layer or loss that the framework itself runs to
        a function that prepares its calls for the interpreter."""
        return {key: claimed_call(key, native) for key, native in self.natives[phase].items()}

    def _with_merged_chains(
        self, phase: Phase, sizes: Mapping[str, int], nodes: Sequence[Node], ends: Iterable[int]
    ) -> tuple[Interpreter, Sequence[Node]]:
        """Merge consecutive layers that the framework can run as one call, e.g. two LSTM layers. On
        the native paths, also merge the primitives of a softmax. Return an interpreter that knows
        the merged calls, and the new list of nodes."""
        if "softmax" in self.table:
            nodes = join_softmaxes(self.programs[phase], nodes, ends)
        nodes, chains = merge_chains(nodes, ends, self.natives[phase])
        return self.interpreter(sizes, {**self.claimed(phase), **chains}), nodes

    def interpreter(
        self,
        sizes: Mapping[str, int],
        claimed: Mapping[str, Claimed] | None = None,
        watch: Watch | None = None,
    ) -> Interpreter:
        """Return an interpreter at these sizes. ``claimed`` has the functions that prepare calls of
        the framework's own layers. If ``watch`` is given, it is called with every value, and loops
        run step by step."""
        scan = None if watch else self.backend.scan
        return Interpreter(self.table, sizes, self.dtype, self.scalar, scan, claimed or {}, watch)

    def sizes(self, phase: Phase, tensors: Tensors) -> dict[str, int]:
        """Return a dictionary from each size of a program to its value. Sizes that the program
        leaves open, such as ``batch``, come from the shapes of ``tensors``."""
        return self._bind_arguments(self.programs[phase], {}, tensors)[1]

    def scalar(self, value: float) -> Any:
        """Return a number as a tensor of the session's dtype."""
        return self.backend.tensor(np.asarray(value, host_dtype(self.dtype)))

    def float_tensor(self, array: Array) -> Any:
        """Return an array as a tensor of the session's dtype."""
        return self.backend.tensor(np.array(array, host_dtype(self.dtype)))

    def to_numpy(self, results: Mapping[str, Any]) -> ArrayDict:
        """Return a dictionary from name to result as an array. The result ``scalar``, which exists
        only for differentiation, is left out."""
        return {n: self.array(t, n) for n, t in results.items() if n != "scalar"}

    def array(self, tensor: Any, name: str) -> Array:
        """Return the values of a tensor as a new array. ``name`` is the tensor's name for error
        messages.

        Raises:
            ContractError: the backend's ``numpy()`` did not return an array.
        """
        return promises.check_array(self.backend.numpy(tensor), name)

    def _bind_arguments(
        self, program: Program, variables: Tensors, constants: Tensors
    ) -> tuple[dict[int, Any], dict[str, int]]:
        env: dict[int, Any] = {}
        sizes: dict[str, int] = {}
        for prefix, port in crossing_ports(program):
            name = f"{prefix}{port.name}"
            tensor = variables[name] if name in variables else constants.get(name)
            if tensor is None:
                continue
            env[port.value] = tensor
            if prefix in ("input.", "target.", "state."):
                bind(name, program.types[port.value].shape, tensor.shape, program.sizes, sizes)
        return env, {**program.sizes, **sizes}
