"""Replace single operators of an exported program by simpler ones.

``ExportedProgram.run_decompositions`` would also rewrite all other operators without side effects,
which it cannot do for batch norm in training mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .own_decompositions import DECOMPOSITIONS
from .trace_rules import name_of

# Decompositions may have operators that need a decomposition themselves.
MOST_ROUNDS = 4


def decompose(graph: torch.fx.Graph, needed: Callable[[torch.fx.Node], bool]) -> None:
    """Replace each operator for which ``needed`` is true, if torch has a decomposition of it."""
    for _ in range(MOST_ROUNDS):
        nodes = [n for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
        if not [node for node in nodes if needed(node) and _replace(graph, node)]:
            return


def _replace(graph: torch.fx.Graph, node: torch.fx.Node) -> bool:
    """Replace a node by the nodes of its decomposition; return False if there is none."""
    inner = _decomposition(node)
    if inner is None or not all(_is_tensor_call(n) for n in inner.nodes):
        return False
    new: dict[torch.fx.Node, Any] = {}
    operands = iter(_inputs(node))
    about = {n: node.meta[n] for n in ("stack_trace", "nn_module_stack") if n in node.meta}
    with graph.inserting_before(node):
        for own in inner.nodes:
            if own.op == "placeholder":
                new[own] = next(operands)
            elif own.op == "output":
                results = tree_map(lambda n: new.get(n, n), own.args[0])
            else:
                new[own] = graph.node_copy(own, new.__getitem__)
                new[own].meta = {**about, "val": own.meta["val"]}
    if isinstance(results, torch.fx.Node):
        node.replace_all_uses_with(results)
    else:  # each user takes one of the results
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
    graph.erase_node(node)
    return True


def _is_tensor_call(node: torch.fx.Node) -> bool:
    """Return whether a node of a decomposition can be copied: it is no stored tensor, and what it
    computes is known."""
    return node.op in ("placeholder", "output") or (
        node.op == "call_function" and "val" in node.meta
    )


def _inputs(node: torch.fx.Node) -> list[torch.fx.Node]:
    leaves, _ = tree_flatten((node.args, node.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.fx.Node)]


def _decomposition(node: torch.fx.Node) -> torch.fx.Graph | None:
    """Return the graph of the first decomposition that can translate a node; its inputs are those
    of :func:`_inputs`."""
    leaves, form = tree_flatten((node.args, node.kwargs))
    places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.fx.Node)]

    values = [leaves[place].meta["val"] for place in places]
    modes = [v.fake_mode for v in values if isinstance(v, torch._subclasses.FakeTensor)]
    for function in _functions(node) if modes else ():

        def run(*values: Any, function: Any = function) -> Any:
            filled = [*leaves]
            for place, value in zip(places, values, strict=True):
                filled[place] = value
            args, keywords = tree_unflatten(filled, form)
            result = function(*args, **keywords)
            if result is NotImplemented:
                raise NotImplementedError
            # A named tuple would be a call of its class in the graph.
            return list(result) if isinstance(result, tuple) else result

        try:
            with modes[0]:
                return make_fx(run)(*values).graph
        except NotImplementedError:
            continue
    return None


def _functions(node: torch.fx.Node) -> list[Any]:
    """Return functions that compute the operator of a node from simpler ones, best first."""
    target: Any = node.target
    # Decompositions of torch's table lead to operators below those of torch's users.
    own = target.decompose if target._can_decompose() else None
    functions = (
        DECOMPOSITIONS.get(name_of(node)),
        own,
        torch._decomp.decomposition_table.get(target),
    )
    return [function for function in functions if function is not None]
