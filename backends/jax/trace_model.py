"""Trace a user's JAX model: one forward pass as a neutral graph."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.extend import Arrays
from harness.extend.models import GraphBuilder, ModelFile, TracedGraph, check_arguments

# The first rule that translates a value wins: layers come before operators.
from . import trace_dropout, trace_layers, trace_loops, trace_products, trace_rules  # noqa: F401
from .jaxprs import JaxprReader, Value, constant, user_line
from .model_noise import with_marks
from .own_decompositions import DECOMPOSITIONS
from .trace import RULES, JaxTranslation


def operators() -> set[str]:
    """Return the names of the primitives that have a rule, e.g. ``dot_general``."""
    return {*RULES, *DECOMPOSITIONS} - {"*"}


def trace(model: Any, arrays: Arrays, file: ModelFile) -> TracedGraph:
    """Return the graph of one forward pass with dropout, if the model has no other operators in
    training mode; else that of evaluation mode.

    Args:
        model: A :class:`JaxModel`.
        arrays: The model's inputs by name.
        file: The user's file; its lines are the places of operators.

    Raises:
        UsageError: the model has no input of such a name.
    """
    check_arguments(model.takes, arrays)
    evaluate = _trace(model, model.function, arrays, file)
    if model.drawing is None:
        graph = evaluate(True)
        if model.flax is not None:
            graph["label"] += " in evaluation mode"
        return graph
    with with_marks():
        translate = _trace(model, model.drawing, arrays, file)
    graph, training = evaluate(True), translate(True)
    refused = [n for n in training["nodes"] if n["op"] == "unsupported"]
    others = _operators(translate(False)) != _operators(graph)
    if not others and len(refused) == _operators(graph).count("unsupported"):
        return training
    named = ", ".join(dict.fromkeys(_described(node) for node in refused))
    graph["label"] += " in evaluation mode"
    graph["remarks"].append(
        f"in training mode the model has other operators{f' ({named})' if named else ''}; the spec "
        "has those of evaluation mode"
    )
    return graph


def _operators(graph: TracedGraph) -> list[str]:
    """Return the operators and layers of a graph."""
    return [node["attributes"].get("layer", node["op"]) for node in graph["nodes"]]


def _described(node: Any) -> str:
    """Return the place of an operator without a rule, and the reason."""
    about = node["attributes"]
    return f"{node['place']}: {about['reason'] or about['operator']}".removeprefix(": ")


def _trace(
    model: Any, function: Any, arrays: Arrays, file: ModelFile
) -> Callable[[bool], TracedGraph]:
    """Trace one call of a function of the tree of arrays and the inputs. Return a function that
    makes its graph, with or without dropout."""
    inputs = {n: jnp.asarray(np.array(a)) for n, a in arrays.items()}
    positional = [] if model.takes is not None else list(inputs)
    shape: dict[str, Any] = {}

    def run(leaves: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
        first = [tensors[n] for n in positional]
        more = {n: a for n, a in tensors.items() if n not in positional}
        result = function(model.tree(leaves), *first, **more)
        flat, shape["of"] = jax.tree.flatten(result)
        return flat

    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    closed = jax.make_jaxpr(run)(model.leaves, inputs)
    entries = model.entries()
    weights = {n: (e.shape, e.trained) for n, e in entries.items()}
    reader = JaxprReader(user_line(file.path))
    names = [("weight", n) for n in sorted(model.leaves)] + [("input", n) for n in sorted(inputs)]
    arguments = [
        Value(op, (), {"name": name}, tuple(v.aval.shape), v.aval.dtype)
        for (op, name), v in zip(names, closed.jaxpr.invars, strict=True)
    ]
    consts = [constant(c) for c in closed.consts]
    results = reader.read(closed.jaxpr, consts, arguments)
    flax = model.flax
    momentum = flax.momentum if flax is not None else {}
    needed = [*results, *arguments[len(model.leaves) :]]

    def translate(dropout: bool) -> TracedGraph:
        builder = GraphBuilder(model.label, weights)
        builder.graph["config"] = dict(flax.config) if flax is not None else {}
        translation = JaxTranslation(builder, needed, momentum, dropout=dropout)
        translation.emit(reader.values)
        operands = [str(translation.operands[r]) for r in results]
        outputs = jax.tree.unflatten(shape["of"], operands)
        builder.graph["outputs"] = _name_outputs(outputs, operands)
        return builder.graph

    return translate


def _name_outputs(returned: Any, operands: list[str]) -> list[list[str]]:
    """Return the name and the value of each output: its key if the model returns a mapping."""
    if isinstance(returned, Mapping) and all(isinstance(v, str) for v in returned.values()):
        return [[re.sub(r"\W", "_", str(name)), value] for name, value in returned.items()]
    if len(operands) == 1:
        return [["y", operands[0]]]
    return [[f"y_{number}", value] for number, value in enumerate(operands, 1)]
