"""Read a jaxpr as one list of values: inner calls are inlined, and constants are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import core

from harness.extend import Array

from .own_decompositions import decompose

# The prefix of a named scope that stands for a module: MODULE + "path|class".
MODULE = "harness-module:"
# Primitives that call another jaxpr, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "custom_lin": "jaxpr",
}
# Primitives whose result is their argument.
UNCHANGED = frozenset({"copy", "copy_p", "optimization_barrier", "sharding_constraint", "name"})
# Constants with more entries are not evaluated.
MOST_ENTRIES = 1 << 22
# A scan over more layers is not unrolled.
MOST_STEPS = 128

Modules = tuple[tuple[str, str], ...]


@dataclass(eq=False)
class Value:
    """A value of a traced program.

    Attributes:
        op: The primitive; ``input``, ``weight``, ``constant``, or the role of a loop's argument.
        inputs: The arguments of the primitive.
        params: The parameters of the primitive; for an input or weight, its ``name``.
        shape: The shape.
        dtype: The dtype.
        modules: The path and the class of each module around the call, outermost first.
        place: The user's line, e.g. ``net.py:41``.
        number: The numbers, if the value depends on no input and no weight.
        result: The number of the primitive's result.
        function: The name of the function with its own derivative around the call, e.g. ``relu``.
        primitive: The object of the primitive.
        order: The position in the order of execution.
        users: The values that use this value.
    """

    op: str
    inputs: tuple[Value, ...]
    params: dict[str, Any]
    shape: tuple[int, ...]
    dtype: Any
    modules: Modules = ()
    place: str = ""
    number: Array | None = None
    result: int = 0
    function: str = ""
    primitive: Any = None
    order: int = 0
    users: list[Value] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The kind of the entries: ``float``, ``index`` or ``boolean``."""
        if jax.dtypes.issubdtype(self.dtype, jax.dtypes.extended):
            return "index"
        return {"b": "boolean", "i": "index", "u": "index"}.get(np.dtype(self.dtype).kind, "float")

    @property
    def name(self) -> str:
        """The name of an input or weight."""
        return str(self.params["name"])

    def uniform(self) -> bool | int | float | None:
        """Return the number that all entries have, or None."""
        array = self.number
        if array is None or not array.size or array.dtype.kind not in "fiub":
            return None
        first = array.ravel()[0]
        if not (array == first).all():
            return None
        if array.dtype.kind == "f":  # the shortest decimal of a float32, e.g. 1e-06
            return float(str(first))
        return first.item()

    def is_number(self, number: float) -> bool:
        """Return whether all entries are a number, up to the rounding of float32."""
        common = self.uniform()
        return common is not None and abs(float(common) - number) <= 1e-6 * abs(number)


def constant(array: Any) -> Value:
    """Return a value with known numbers."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
        return Value("constant", (), {}, tuple(array.shape), array.dtype)
    numbers = np.asarray(array)
    return Value("constant", (), {}, numbers.shape, numbers.dtype, number=numbers)


class JaxprReader:
    """Reads jaxprs as values, in the order of execution.

    Args:
        place_of: Returns the user's line of an equation's source.
    """

    def __init__(self, place_of: Callable[[Any], str]) -> None:
        self.place_of = place_of
        self.values: list[Value] = []

    def read(
        self,
        jaxpr: core.Jaxpr,
        constants: Sequence[Value],
        arguments: Sequence[Value],
        modules: Modules = (),
        place: str = "",
        function: str = "",
    ) -> list[Value]:
        """Add the equations of a jaxpr; return its results."""
        known: dict[core.Var, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def get(atom: Any) -> Value:
            if isinstance(atom, core.Literal):
                return constant(np.asarray(atom.val, atom.aval.dtype))
            return known[atom]

        for eqn in jaxpr.eqns:
            inner = (*modules, *_modules(eqn.source_info.name_stack))
            own = self.place_of(eqn.source_info) or place
            operands = [get(atom) for atom in eqn.invars]
            results = self._equation(eqn, operands, inner, own, function)
            known.update(zip(eqn.outvars, results, strict=True))
        return [get(atom) for atom in jaxpr.outvars]

    def _equation(
        self,
        eqn: core.JaxprEqn,
        arguments: list[Value],
        modules: Modules,
        place: str,
        function: str,
    ) -> list[Value]:
        name, params = eqn.primitive.name, eqn.params
        if name in UNCHANGED or _keeps_kind(name, arguments, eqn.outvars):
            return arguments
        if name in CALLS and CALLS[name] in params:
            jaxpr = params[CALLS[name]]
            consts = [constant(c) for c in getattr(jaxpr, "consts", ())]
            inner = getattr(jaxpr, "jaxpr", jaxpr)
            function = inner.debug_info.func_name if "custom" in name else function
            return self.read(inner, consts, arguments, modules, place, function)
        if name == "select_n" and (chosen := arguments[0].uniform()) is not None:
            return [arguments[1 + int(chosen)]]
        numbers = evaluate(eqn.primitive, params, [a.number for a in arguments])
        avals = [var.aval for var in eqn.invars]
        if name == "scan" and is_over_weights(params, arguments):
            steps = jax.make_jaxpr(unrolled(params))(*avals)
        elif name == "scan" and (outputs_after := with_outputs_after(params)) is not None:
            steps = jax.make_jaxpr(outputs_after)(*avals)
        else:
            steps = None if numbers else decompose(name, params, arguments, avals)
        if steps is not None:
            consts = [constant(c) for c in steps.consts]
            return self.read(steps.jaxpr, consts, arguments, modules, place, function)

        def value(op: str, inputs: Sequence[Value], shape: Sequence[int], result: int = 0) -> Value:
            number = None if numbers is None else numbers[result]
            number = number if number is None or op != "reshape" else number_of(inputs[0], shape)
            dtype = eqn.outvars[result].aval.dtype
            result_value = Value(
                op,
                tuple(inputs),
                params,
                tuple(shape),
                dtype,
                modules,
                place,
                number,
                result,
                function,
                eqn.primitive,
                len(self.values) + 1,
            )
            for one in inputs:
                one.users.append(result_value)
            self.values.append(result_value)
            return result_value

        shapes = [tuple(int(n) for n in var.aval.shape) for var in eqn.outvars]
        if name == "broadcast_in_dim":
            return [_broadcast(arguments[0], shapes[0], params["broadcast_dimensions"], value)]
        name = "reshape" if name in ("squeeze", "expand_dims") else name
        return [value(name, arguments, shape, result) for result, shape in enumerate(shapes)]


def is_over_weights(params: dict[str, Any], arguments: Sequence[Value]) -> bool:
    """Return whether a scan is a stack of layers: all its sequences are made of weights or known
    numbers."""
    sequences = arguments[params["num_consts"] + params["num_carry"] :]
    made_of = [v for v in needed(sequences) if not v.inputs and v.number is None]
    return all(v.op == "weight" for v in made_of) and int(params["length"]) <= MOST_STEPS


def unrolled(params: dict[str, Any]) -> Callable[..., list[Any]]:
    """Return a function with the steps of a scan one after another, each in a module."""
    first = params["num_consts"] + params["num_carry"]
    step = core.jaxpr_as_fun(params["jaxpr"])
    kind = params["jaxpr"].jaxpr.debug_info.func_name or "step"

    def run(*arguments: Any) -> list[Any]:
        constants, states = (
            arguments[: params["num_consts"]],
            arguments[params["num_consts"] : first],
        )
        order = range(int(params["length"]))
        outputs: dict[int, list[Any]] = {}
        for number in reversed(order) if params["reverse"] else order:
            rows = [jax.lax.index_in_dim(a, number, keepdims=False) for a in arguments[first:]]
            with jax.named_scope(f"{MODULE}{kind}.{number}|{kind}"):
                results = step(*constants, *states, *rows)
            states, outputs[number] = results[: len(states)], results[len(states) :]
        columns = zip(*(outputs[number] for number in order), strict=True)
        return [*states, *map(jax.numpy.stack, columns)]

    return run


def with_outputs_after(params: dict[str, Any]) -> Callable[..., list[Any]] | None:
    """Return a function that computes the outputs of a scan for all steps at once, after a loop
    that returns a state; None if the outputs need more than one new state and constants."""
    closed, count, carries = params["jaxpr"], params["num_consts"], params["num_carry"]
    jaxpr = closed.jaxpr
    states, outputs = jaxpr.outvars[:carries], jaxpr.outvars[carries:]
    computed = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    constants = {*jaxpr.invars[:count], *jaxpr.constvars}
    read: set[Any] = set()
    after: set[int] = set()
    waiting = list(outputs)
    while waiting:
        var = waiting.pop()
        if isinstance(var, core.Literal) or var in constants:
            continue
        if var in states:
            read.add(var)
        elif var not in computed:
            return None
        elif id(computed[var]) not in after:
            after.add(id(computed[var]))
            waiting += computed[var].invars
    if len(read) != 1 or not after:
        return None

    def function(**changed: Any) -> Callable[..., list[Any]]:
        return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr.replace(**changed), closed.consts))

    (state,) = read
    loop = function(outvars=[*states, state])
    rest = function(
        invars=[*jaxpr.invars[:count], state],
        outvars=outputs,
        eqns=[eqn for eqn in jaxpr.eqns if id(eqn) in after],
    )

    def run(*arguments: Any) -> list[Any]:
        own, start = arguments[:count], arguments[count : count + carries]

        def step(old: Sequence[Any], rows: Sequence[Any]) -> tuple[list[Any], Any]:
            *new, output = loop(*own, *old, *rows)
            return new, output

        sizes = {"length": params["length"], "reverse": params["reverse"]}
        last, every = jax.lax.scan(step, list(start), arguments[count + carries :], **sizes)
        return [*last, *jax.vmap(lambda one: rest(*own, one))(every)]

    return run


def number_of(value: Value, shape: Sequence[int]) -> Array | None:
    """Return the numbers of a reshaped value, or None."""
    return None if value.number is None else value.number.reshape(shape)


def _keeps_kind(name: str, arguments: Sequence[Value], results: Sequence[Any]) -> bool:
    """Return whether a primitive only converts floats to floats, or integers to integers."""
    if name not in ("convert_element_type", "reduce_precision"):
        return False
    return arguments[0].kind == Value("", (), {}, (), results[0].aval.dtype).kind


def _broadcast(
    source: Value, shape: Sequence[int], axes: Sequence[int], value: Callable[..., Value]
) -> Value:
    """Return a broadcast as a reshape that inserts axes of length 1, and a broadcast of these."""
    unit = [1] * len(shape)
    for axis, length in zip(axes, source.shape, strict=True):
        unit[axis] = length
    result = source
    if tuple(unit) != source.shape:
        result = value("reshape", [source], unit)
    if unit != list(shape):
        result = value("broadcast", [result], shape)
    return result


def evaluate(
    primitive: Any, params: dict[str, Any], numbers: Sequence[Array | None]
) -> list[Array] | None:
    """Return the results of a primitive for known numbers; None if they are unknown or large."""
    if any(n is None for n in numbers) or "random" in primitive.name:
        return None
    if primitive.name in ("scan", "while", "cond"):
        return None
    bound = primitive.bind(*map(jax.numpy.asarray, numbers), **params)
    results = list(bound) if primitive.multiple_results else [bound]
    if any(
        r.size > MOST_ENTRIES or jax.dtypes.issubdtype(r.dtype, jax.dtypes.extended)
        for r in results
    ):
        return None
    return [np.asarray(r) for r in results]


def _modules(stack: Any) -> Modules:
    """Return the modules in a name stack."""
    names = [str(getattr(entry, "name", "")) for entry in stack.stack]
    parts = [n.removeprefix(MODULE).partition("|") for n in names if n.startswith(MODULE)]
    return tuple((path, kind) for path, _, kind in parts)


def user_line(file: Path) -> Callable[[Any], str]:
    """Return a function that finds the user's line of an equation's source: the innermost line in
    ``file``, else the innermost line outside of JAX."""
    from jax._src import source_info_util

    def place_of(source: Any) -> str:
        try:
            frames = list(source_info_util.user_frames(source.traceback))
        except (AttributeError, TypeError):  # this module of JAX is private
            return ""
        own = [f for f in frames if f.file_name == str(file)]
        frame = next(iter(own or frames), None)
        return "" if frame is None else f"{Path(frame.file_name).name}:{frame.start_line}"

    return place_of


def needed(results: Sequence[Value]) -> set[Value]:
    """Return the values that results depend on, the results included."""
    ancestors: set[Value] = set()
    waiting = list(results)
    while waiting:
        value = waiting.pop()
        if value not in ancestors:
            ancestors.add(value)
            waiting += value.inputs
    return ancestors


def alone(value: Value, used: set[Value]) -> bool:
    """Return whether only one of the used values uses a value."""
    return len({id(u) for u in value.users if u in used}) == 1
