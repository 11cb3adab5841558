"""Trace a torch module with ``torch.export`` and translate its operators into a neutral graph.

The graph is read before decompositions, where layers, their weights and numbers such as epsilon,
momentum and the dropout rate are still visible. :mod:`harness.runtime.own_model.graph` defines the
operators.
"""

from __future__ import annotations

import operator
import re
import traceback
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._pytree import tree_leaves, tree_unflatten

from harness.extend import Arrays, UsageError
from harness.extend.models import GraphBuilder, ModelFile, TracedGraph, names_taken, whole_numbers

from . import (  # noqa: F401 (some register rules)
    cuda,
    trace_einsum,
    trace_images,
    trace_layers,
    trace_moves,
)
from .decompose import decompose
from .own_decompositions import DECOMPOSITIONS
from .trace_rules import (
    BINARY,
    CHECKS,
    ELEMENTWISE,
    LIKE,
    RANDOM,
    RESHAPES,
    RULES,
    UNCHANGED,
    OperatorArguments,
    name_of,
    unsupported,
)

# The most entries of a buffer of integers that becomes an array of constants.
MOST_INTEGERS = 256
ASSIGNMENT = "an assignment to part of a tensor: write torch.where or torch.cat"
# The names of the operators that have a rule, without namespace and overload.
OPERATORS = frozenset([*UNCHANGED, *CHECKS, *RESHAPES, *ELEMENTWISE, *BINARY, *RULES])


def operators() -> list[str]:
    """Return the names of the operators that have a rule, e.g. ``aten.add``."""
    names = [n for n in OPERATORS | DECOMPOSITIONS.keys() if not n.startswith("__")]
    return [name if "." in name else f"aten.{name}" for name in names]


def default_inputs(module: torch.nn.Module) -> dict[str, str]:
    """Return declarations of the inputs of a module with a ``config``, as in transformers."""
    config = getattr(module, "config", None)
    names = names_taken(module.forward) or ()
    if config is None:
        return {}
    if "input_ids" in names and hasattr(config, "vocab_size"):
        return {"input_ids": f"batch,time:{config.vocab_size}"}
    if "pixel_values" in names and hasattr(config, "image_size"):
        size = config.image_size
        return {"pixel_values": f"batch,{config.num_channels},{size},{size}"}
    return {}


def trace_module(module: torch.nn.Module, arrays: Arrays, file: ModelFile) -> TracedGraph:
    """Return the graph of a forward pass: in training mode if it has no random numbers of its own.

    Only in training mode, torch shows the dropout rate of attention. Both modes must have the same
    operators, besides those that shipped layers have in both modes.

    Args:
        module: The module; its mode is restored.
        arrays: The argument of each input name.
        file: The user's file; its lines are the places of operators.

    Raises:
        UsageError: control flow depends on the value of a tensor.
        torch's own exceptions: the module cannot be exported with these arrays.
    """
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}
    dtype = next((p.dtype for p in module.parameters()), torch.get_default_dtype())
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    before = module.training
    try:
        training = _export(module.train(), tensors)
        inference = _export(module.eval(), tensors)
    finally:
        module.train(before)
    same = _operators(training) == _operators(inference)
    exported = training if same else inference
    graph = _Translation(module, exported, file, tensors, training=same).run()
    frozen = _frozen_in_layers(module, graph)
    remarks = [f"the model does not train {', '.join(frozen)}"] if frozen else []
    if not same:
        remarks.append(
            "in training mode the model has other operators, e.g. random numbers; the spec has "
            "those of evaluation mode"
        )
    graph["config"] = whole_numbers(getattr(module, "config", None))
    graph["remarks"] = list(dict.fromkeys([*remarks, *graph["remarks"]]))
    return graph


def _frozen_in_layers(module: torch.nn.Module, graph: TracedGraph) -> list[str]:
    """Return the parameters that the module does not train, but layers of the spec have."""
    frozen = {n for n, p in module.named_parameters() if not p.requires_grad}
    held = [node["attributes"].get("weights", {}) for node in graph["nodes"]]
    names = [n for w in held for n in (w if isinstance(w, list) else [n for n, _ in w.values()])]
    return [n for n in dict.fromkeys(names) if n in frozen]


def _export(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> torch.export.ExportedProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cuda.unify_tf32()
            exported = torch.export.export(module, (), tensors, strict=False)
            decompose(exported.graph, _lacks_rule)
    except GuardOnDataDependentSymNode as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if not f.filename.startswith(str(Path(torch.__file__).parent))]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}: '{ours[-1].line}'"
        raise UsageError(
            f"{place} depends on the value of a tensor: write torch.where, or make the value an "
            "attribute of the module"
        ) from None
    return exported


def _lacks_rule(node: torch.fx.Node) -> bool:
    """Return whether only a decomposition can translate an operator."""
    name = name_of(node)
    # A decomposition of an operator in place would hide that it changes its argument.
    is_handled = name in OPERATORS or name in RANDOM or name.endswith("_")
    is_handled = is_handled and node.kwargs.get("rounding_mode") is None
    return not is_handled and not _refusal(node)


def _operators(exported: torch.export.ExportedProgram) -> list[str]:
    """Return the names of the operators that compute something the spec has."""
    nodes = [n for n in exported.graph.nodes if n.op == "call_function"]
    return [
        str(n.target)
        for n in nodes
        if name_of(n) not in UNCHANGED | CHECKS and not _counts_batches(n)
    ]


def _refusal(node: torch.fx.Node) -> str:
    """Return why no rule can translate a node's value, or an empty text."""
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return "a Python number from the data, as of .item()"
    leaves = [v for v in tree_leaves(value) if isinstance(v, torch.Tensor)]
    if any(not isinstance(n, int) for v in leaves for n in v.shape):
        return "a shape that depends on the data"
    return "complex numbers" if any(v.is_complex() for v in leaves) else ""


def _memory(node: torch.fx.Node) -> tuple[Any, Any]:
    """Return the storage of a node's tensor, and the place of its entries in the storage."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None, None
    layout = tuple(value.shape), value.stride(), value.storage_offset()
    return value.untyped_storage()._cdata, layout


def _counts_batches(node: torch.fx.Node) -> bool:
    return str(node.target) == "aten.add_.Tensor" and "num_batches_tracked" in str(node.args[0])


class _Translation:
    """The translation of one exported program."""

    def __init__(
        self,
        module: torch.nn.Module,
        exported: torch.export.ExportedProgram,
        file: ModelFile,
        inputs: Iterable[str],
        *,
        training: bool,
    ) -> None:
        self.exported, self.file, self.training = exported, str(file.path), training
        self.inputs = [*inputs]
        trained = dict(module.named_parameters())
        self.names = {id(t): n for n, t in [*trained.items(), *module.named_buffers()]}
        self.tensors = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        self.builder = GraphBuilder(
            f"torch.nn.Module {type(module).__name__}",
            {
                n: (tuple(t.shape), n in trained and t.requires_grad)
                for n, t in self._first_names().items()
            },
        )
        # What each node of torch's graph stands for: operands, or a list of operands.
        self.values: dict[torch.fx.Node, Any] = {}
        # The tensors of nodes that depend on no input of the user.
        self.known: dict[torch.fx.Node, torch.Tensor] = {}
        # Nodes whose values no rule can translate, and the nodes that use these values.
        self.refused: set[torch.fx.Node] = set()

    def _first_names(self) -> dict[str, torch.Tensor]:
        return {self.names[id(t)]: t for t in self.tensors.values() if id(t) in self.names}

    def run(self) -> TracedGraph:
        signature = self.exported.graph_signature
        weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = signature.inputs_to_lifted_tensor_constants
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self._place(node, weights, constants)
            elif node.op == "call_function" and not _counts_batches(node):
                self._call(node)
            elif node.op == "output":
                self._outputs(node)
        return self.builder.graph

    def _place(
        self, node: torch.fx.Node, weights: Mapping[str, str], constants: Mapping[str, str]
    ) -> None:
        about = self._about(node)
        if node.name in weights:
            tensor = self.tensors[weights[node.name]]
            name = self.names[id(tensor)]
            own: dict[str, Any] = {"name": name}
            if not isinstance(tensor, torch.nn.Parameter):
                self.known[node] = tensor
                # Integers, such as offsets of indices, are written into the spec.
                if not tensor.is_floating_point() and 0 < tensor.numel() <= MOST_INTEGERS:
                    about["values"], own = tensor.detach().numpy(), {}
            self.values[node] = self.builder.add("weight" if own else "constant", [], own, **about)
        elif node.name in constants:
            tensor = self.exported.constants[constants[node.name]]
            self.known[node] = tensor
            about["values"] = tensor.detach().numpy()
            self.values[node] = self.builder.add("constant", [], {}, **about)
        elif node.meta.get("val") is None:
            self.values[node] = None
        else:
            self.values[node] = self.builder.add(
                "input", [], {"name": self._input_name(node)}, **about
            )

    def _input_name(self, node: torch.fx.Node) -> str:
        """Return the user's name of an input; torch writes it in lower case."""
        plain = {re.sub(r"\W", "_", name).lower(): name for name in self.inputs}
        return plain.get(node.name, node.name)

    def _outputs(self, node: torch.fx.Node) -> None:
        specs = self.exported.graph_signature.output_specs
        leaves = [
            str(self.values[r]) if isinstance(r, torch.fx.Node) else None
            for r, spec in zip(node.args[0], specs, strict=True)
            if spec.kind.name == "USER_OUTPUT"
        ]
        self.builder.graph["outputs"] = self._name_outputs(leaves)

    def _name_outputs(self, leaves: list[str | None]) -> list[list[str]]:
        """Return the name and the value of each output: its key if the model returns a mapping."""
        structure = self.exported.call_spec.out_spec
        returned = None if structure is None else tree_unflatten(leaves, structure)
        if isinstance(returned, Mapping):
            tensors = {n: v for n, v in returned.items() if v is not None}
            if all(isinstance(v, str) for v in tensors.values()):
                return [[str(name), value] for name, value in tensors.items()]
        values = [leaf for leaf in leaves if leaf is not None]
        if len(values) == 1:
            return [["y", values[0]]]
        return [[f"y_{number}", value] for number, value in enumerate(values, 1)]

    def _about(self, node: torch.fx.Node) -> dict[str, Any]:
        """Return shape, kind, modules and place of a node, for :meth:`GraphBuilder.add`."""
        value = node.meta.get("val")
        shape: tuple[int, ...] = ()
        kind = "float"
        if isinstance(value, torch.Tensor):
            shape = tuple(n if isinstance(n, int) else 0 for n in value.shape)
            floats = value.dtype.is_floating_point
            kind = "float" if floats else "boolean" if value.dtype == torch.bool else "index"
        stack = node.meta.get("nn_module_stack") or {}
        modules = [
            (
                f"{path}{'@' + key.rsplit('@', 1)[1] if '@' in key else ''}",
                str(kind_).rsplit(".", 1)[-1],
            )
            for key, (path, kind_) in stack.items()
        ]
        return {"shape": shape, "kind": kind, "modules": modules, "place": self._locate(node)}

    def _locate(self, node: torch.fx.Node) -> str:
        """Return the line of the user's file that called this node, else its innermost line."""
        lines = [
            [*part.split('"')[1::2], part.split(", line ")[1].split(",")[0]]
            for part in (node.meta.get("stack_trace") or "").splitlines()
            if part.strip().startswith('File "') and ", line " in part
        ]
        own = [line for line in lines if line[0] == self.file]
        innermost = (own or lines)[-1:]
        return f"{Path(innermost[0][0]).name}:{innermost[0][1]}" if innermost else ""

    def _call(self, node: torch.fx.Node) -> None:
        if source := next((n for n in node.all_input_nodes if n in self.refused), None):
            self.refused.add(node)
            self.values[node] = self.values[source]
            is_call = isinstance(node.target, torch._ops.OpOverload)
            plain = is_call and not any(map(_refusal, node.all_input_nodes))
            is_random = name_of(node) in RANDOM
            if plain and (_lacks_rule(node) or is_random):
                reason = "random numbers" if is_random else ""
                self.values[node] = unsupported(self, node, self._about(node), reason)
            return
        if reason := _refusal(node):
            self.refused.add(node)
            self.values[node] = unsupported(self, node, self._about(node), reason)
            return
        if node.target is operator.getitem:
            source, index = node.args
            value = self.values[source]
            # An operator without a rule has one value for all of its results.
            self.values[node] = value if isinstance(value, str) else value[index]
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            self.values[node] = unsupported(self, node, self._about(node))
            return
        name = name_of(node)
        self._evaluate(node)
        arguments = self._named_arguments(node)
        nodes = self.builder.graph["nodes"]
        count = len(nodes)
        aliases = self._aliases(node)
        if node not in self.known and (name == "index_put_" or not all(aliases.values())):
            self.values[node] = unsupported(self, node, self._about(node), ASSIGNMENT)
            return
        self.values[node] = self._translate(name, node, arguments, self._about(node))
        refused = len(nodes) > count and nodes[-1]["op"] == "unsupported"
        if node not in self.known and not refused and (ignored := arguments.ignored(node)):
            self.values[node] = unsupported(self, node, self._about(node), ignored)
        known = self.known.get(node)
        if isinstance(known, torch.Tensor) and len(nodes) > count:
            # The last of an operator's nodes is its result.
            nodes[-1]["values"] = known.detach().numpy()
        for alias in [alias for alias, same in aliases.items() if same]:
            # The operator has overwritten this tensor.
            self.values[alias] = self.values[node]
            self.known.pop(alias, None)

    def _aliases(self, node: torch.fx.Node) -> dict[torch.fx.Node, bool]:
        """Return the tensors that an in-place operator overwrites, and that later nodes use, and
        whether each has the entries of its first argument in the same order."""
        name = name_of(node)
        target = node.args[0] if node.args else None
        if not name.endswith("_") or name.startswith("_") or not isinstance(target, torch.fx.Node):
            return {}
        memory, layout = _memory(target)
        later = lambda n: any(user not in self.values and user is not node for user in n.users)  # noqa: E731
        others = {n: _memory(n) for n in self.values if later(n)}
        return {n: own[1] == layout for n, own in others.items() if own[0] == memory}

    def _evaluate(self, node: torch.fx.Node) -> None:
        """Compute a node that depends on no input, e.g. a mask made of ``arange``."""
        name = name_of(node)
        known = self.known
        if name in LIKE:  # only the shape and the dtype of the argument count
            like = node.args[0].meta["val"]
            known = {**known, node.args[0]: torch.empty(like.shape, dtype=like.dtype)}
        if any(n not in known for n in node.all_input_nodes) or name in RANDOM or "rand" in name:
            return
        get = lambda argument: torch.fx.node.map_arg(argument, lambda n: known[n])  # noqa: E731
        with torch.no_grad():
            self.known[node] = node.target(*get(node.args), **get(node.kwargs))

    def _named_arguments(self, node: torch.fx.Node) -> OperatorArguments:
        """Return the arguments of an operator by its schema's names, nodes as operands."""
        schema = node.target._schema.arguments
        values: dict[str, Any] = {}
        for number, argument in enumerate(schema):
            if number < len(node.args):
                value = node.args[number]
            elif argument.name in node.kwargs:
                value = node.kwargs[argument.name]
            else:
                value = argument.default_value
            values[argument.name] = torch.fx.node.map_arg(value, lambda n: self.values[n])
        return OperatorArguments(values)

    def _translate(
        self, name: str, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
    ) -> Any:
        base = name.removesuffix("_") if not name.startswith("__") else name
        if base in UNCHANGED:
            return a["self"]
        if base in CHECKS:
            return None
        if base in RESHAPES:
            a.read.update(a)  # the result's shape shows all arguments
            return self.builder.reshape(a["self"], about)
        if base in ELEMENTWISE:
            return self.builder.add(ELEMENTWISE[base], [a["self"]], {}, **about)
        if base in BINARY and a.get("rounding_mode") is None:
            other = a["other"] if "other" in a else a["mat2"]
            return self.builder.add(BINARY[base], [a["self"], other], {}, **about)
        rule = RULES.get(base)
        if rule is not None:
            return rule(self, node, a, about)
        if node in self.known:
            return self.builder.add("constant", [], {}, **about)
        return unsupported(self, node, about, "random numbers" if base in RANDOM else "")
