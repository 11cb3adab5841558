"""Translate ``lax.scan`` into a node ``scan`` with the graph of one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.extend.models import GraphBuilder, Operand

from .jaxprs import JaxprReader, Value, constant, needed
from .trace import JaxTranslation, NodePlan, permute, rule

# The names of the states of a loop with one or two states. The first is the loop's output.
STATES = ("h", "c")


@rule("scan")
def _scan(t: JaxTranslation, v: Value) -> NodePlan | None:
    p = v.params
    count, carries = p["num_consts"], p["num_carry"]
    constants, start = v.inputs[:count], v.inputs[count : count + carries]
    sequences = v.inputs[count + carries :]
    jaxpr = p["jaxpr"]
    output = jaxpr.jaxpr.outvars[v.result]
    of_steps = [n for n, var in enumerate(jaxpr.jaxpr.outvars[carries:]) if var is output]
    starts = [s.uniform() for s in start]
    if (
        None in starts
        or not sequences
        or _outputs(t, v) != 1
        or any(len(s.shape) < 2 for s in sequences)
        or any(not _is_constant(c) for c in constants)
    ):
        return None
    names = _state_names(jaxpr.jaxpr, carries)
    last = v.result < carries
    if last and not of_steps:
        # The final state is the last step of the states at all steps.
        names = sorted(names, key=lambda n: n != names[v.result])
    body, results, kind = _read_step(constants, start, sequences, names, jaxpr)
    attributes: dict[str, Any] = {
        "name": kind or (v.modules[-1][1] if v.modules else ""),
        "body": body.graph["nodes"],
        "states": [[n, r, s] for n, r, s in zip(names, results, starts, strict=False)],
        "over": [f"x_{n + 1}" for n in range(len(sequences))],
        "output": results[v.result],
        "reverse": bool(p["reverse"]),
    }
    length = int(p["length"])

    def emit(g: GraphBuilder, operands: list[Operand], about: dict[str, Any]) -> Operand:
        key = id(p), str(attributes["output"])
        if key not in t.loops:
            turned = [permute(g, o, _swapped(len(g.shape_of(o))), about) for o in operands]
            shape = (*v.shape[:1], length, *v.shape[1:]) if last else _first_two(v.shape)
            t.loops[key] = g.add("scan", turned, attributes, **{**about, "shape": shape})
        states = t.loops[key]
        if last:
            end = 0 if p["reverse"] else length - 1
            more = {"axis": 1, "index": end, "length": length}
            return g.add("select", [states], more, **about)
        return permute(g, states, _swapped(len(v.shape)), about)

    return NodePlan(tuple(sequences), emit)


def _outputs(t: JaxTranslation, v: Value) -> int:
    """Return the number of different results of a loop that are used."""
    outvars = v.params["jaxpr"].jaxpr.outvars
    twins = {u for one in v.inputs for u in one.users if u.params is v.params and u in t.used}
    return len({id(outvars[u.result]) for u in twins})


def _is_constant(value: Value) -> bool:
    """Return whether a value depends on weights and numbers only."""
    return all(v.op != "input" for v in needed([value]))


def _state_names(jaxpr: Any, carries: int) -> list[str]:
    """Return names of the states; the state that a loop returns at each step is ``h``."""
    if carries > len(STATES):
        return [f"s_{n + 1}" for n in range(carries)]
    returned = [any(var is out for out in jaxpr.outvars[carries:]) for var in jaxpr.outvars]
    order = sorted(range(carries), key=lambda n: not returned[n])
    return [STATES[order.index(n)] for n in range(carries)]


def _read_step(
    constants: Sequence[Value],
    start: Sequence[Value],
    sequences: Sequence[Value],
    names: Sequence[str],
    jaxpr: Any,
) -> tuple[GraphBuilder, list[str], str]:
    """Return the graph of one step, the node of each of its results, and the class of the only
    module in it, e.g. ``GRUCell``."""
    reader = JaxprReader(lambda source: "")
    states = [
        Value("input", (), {"name": n}, s.shape, s.dtype) for n, s in zip(names, start, strict=True)
    ]
    steps = [
        Value("input", (), {"name": f"x_{n + 1}"}, s.shape[1:], s.dtype)
        for n, s in enumerate(sequences)
    ]
    arguments = [*constants, *states, *steps]
    results = reader.read(jaxpr.jaxpr, [constant(c) for c in jaxpr.consts], arguments)
    builder = GraphBuilder("", {})
    inner = JaxTranslation(builder, [*results, *states, *steps], {}, layers=False)
    outside = sorted(needed(constants), key=lambda value: value.order)
    inner.emit([*outside, *reader.values])
    kinds = {kind for v in reader.values for _, kind in v.modules[:1]}
    for step_node in builder.graph["nodes"]:
        step_node["values"], step_node["modules"], step_node["place"] = None, [], ""
    named = [str(inner.operands[r]) for r in results]
    return builder, named, kinds.pop() if len(kinds) == 1 else ""


def _swapped(rank: int) -> list[int]:
    return [1, 0, *range(2, rank)]


def _first_two(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[1], shape[0], *shape[2:])
