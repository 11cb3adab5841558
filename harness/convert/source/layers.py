"""Grouping of a model's layers for export: layers that are equal except for their weights share a
class or function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from harness.convert.source.composites import canonical, fold, is_composite
from harness.convert.source.idioms import Idioms
from harness.convert.source.literals import camel, unique
from harness.program.dims import Dim
from harness.program.ir import Node, Program, Type, needed_nodes
from harness.program.signature import call_key, index_names, is_constant, local_shapes


@dataclass
class Method:
    """A method of a layer's class. All calls with the same equations use the same method.

    ``call`` is one of these calls. If its equations differ in the training program, ``training`` is
    the call in that program, otherwise None. ``results`` has the indices of the results that any
    caller reads. ``optional`` has the names of arguments whose default is zeros.
    """

    call: Node
    training: Node | None
    results: tuple[int, ...] = ()
    optional: frozenset[str] = frozenset()


@dataclass
class LayerForm:
    """Layers of a model with the same definition, attributes and shapes. They are written as
    one class, with one method for each different set of equations.

    ``shapes`` has the shape of each parameter, statistic and constant. ``statistics``,
    ``constants`` and ``integers`` (constants that hold integers) are names of such arrays;
    ``statistics`` includes the constants.
    """

    name: str
    definition: str
    attributes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    statistics: frozenset[str]
    constants: frozenset[str] = frozenset()
    integers: frozenset[str] = frozenset()
    methods: dict[Any, Method] = field(default_factory=dict)

    @property
    def moving(self) -> frozenset[str]:
        """The names of the moving statistics."""
        return self.statistics - self.constants

    @property
    def float_shapes(self) -> list[str]:
        """The names of the parameters, statistics and constants that hold floats; parameters come
        first."""
        names = [name for name in self.shapes if name not in self.integers]
        return sorted(names, key=self.statistics.__contains__)

    def roles(self, call: Node) -> list[tuple[str, int]]:
        """Return the inputs and states of a call as pairs: the argument's name in the definition
        (e.g. ``h``), and the value's number."""
        pairs = zip(call.attributes["roles"], call.inputs, strict=True)
        return [(role, value) for role, value in pairs if role not in self.shapes]


@dataclass
class SourceModel:
    """The inference program of a model, prepared for writing as source code.

    ``outputs`` and ``state`` map names to value numbers. ``instances`` maps a layer's name to the
    :class:`LayerForm` (class) of the layer. ``calls`` maps the label of a call to a pair: the
    :class:`LayerForm` and the :class:`Method` that is called.
    """

    program: Program
    types: Mapping[int, Type]
    names: Mapping[int, str]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, int]
    state: Mapping[str, int]
    instances: Mapping[str, LayerForm]
    calls: Mapping[str, tuple[LayerForm, Method]]

    def name(self, value: int) -> str:
        """Return the name of a value, or "" if it has no name. If the value is an output or a new
        state, the name of this output or state is preferred."""
        crossing = self.crossing.get(value)
        if crossing is not None:
            return crossing
        name = self.names.get(value, "")
        return "" if "/" in name else name

    @cached_property
    def crossing(self) -> dict[int, str]:
        """A mapping from value number to the name of an output or new state. If a value has several
        such names, it gets the first."""
        names = (*self.state.items(), *self.outputs.items())
        return {value: name for name, value in reversed(names)}

    @cached_property
    def made(self) -> dict[int, Node]:
        """A mapping from value number to the node that computes the value."""
        return {output: n for n in _with_nested(self.nodes) for output in n.outputs}

    def dims(self, shape: Sequence[Dim]) -> str:
        """Format a shape, with sizes replaced by their numbers, e.g. ``[batch, time, 86]``. Batch
        and time stay names."""
        sizes = {name: Dim(size) for name, size in self.program.sizes.items()}
        return "[" + ", ".join(str(dim.substitute(sizes)) for dim in shape) + "]"


def model(training: Program, inference: Program, *, nested: bool = False) -> SourceModel:
    """Prepare the inference program of a model for writing as source code. Calls whose equations
    differ in the ``training`` program are recorded too.

    With ``nested``, layers with nested layers are nodes (see :func:`.fold`), and layers that
    compute nothing, such as dropout, are left out. Other nodes may then read parameters.
    """
    names = dict(inference.names)
    program = fold(inference) if nested else inference
    idioms = Idioms(dict(inference.types), names=names)
    ports = (*inference.outputs, *inference.new_state)
    written = _with_floats(inference, program.nodes, nested)
    nodes, wanted = idioms.block(written, [port.value for port in ports])
    values = [(port.name, value) for port, value in zip(ports, wanted, strict=True)]
    count = len(inference.outputs)
    instances, calls = _forms(training, inference, nodes, wanted)
    return SourceModel(
        inference,
        idioms.types,
        names,
        nodes,
        dict(values[:count]),
        dict(values[count:]),
        instances,
        calls,
    )


def _with_floats(program: Program, nodes: Iterable[Node], without_copies: bool) -> list[Node]:
    """Return nodes in which some layer calls are replaced by the equations of the layer: calls
    without float inputs, and, if ``without_copies`` is true, calls that only return inputs or
    parameters.

    A layer without a float input, such as a table of positions, must not become a class, because
    the class would not know the model's dtype.
    """
    found: list[Node] = []
    for node in nodes:
        if is_composite(node):
            inner = _with_floats(program, node.block.nodes, without_copies)
            node = replace(node, body=replace(node.block, nodes=tuple(inner)))
        elif node.op == "call":
            bare = all(program.types[i].kind != "float" for i in node.inputs)
            bare = bare and not local_shapes(program, node)
            if bare or (without_copies and _is_copy(program, node)):
                found.extend(node.block.nodes)
                continue
        found.append(node)
    return found


def _is_copy(program: Program, call: Node) -> bool:
    """Return whether a layer computes nothing, e.g. dropout in inference."""
    idioms = Idioms(dict(program.types))
    nodes, results = idioms.block(call.block.nodes, call.block.outputs)
    return not nodes and set(results) <= set(call.inputs)


def _with_nested(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield nodes, and the nodes in layers with nested layers."""
    for node in nodes:
        yield node
        if is_composite(node):
            yield from _with_nested(needed_nodes(node.block.nodes, node.block.outputs))


def _forms(
    training: Program, inference: Program, nodes: Sequence[Node], wanted: Iterable[int]
) -> tuple[dict[str, LayerForm], dict[str, tuple[LayerForm, Method]]]:
    originals = {node.attributes["label"]: node for node in inference.calls}
    trained = {node.attributes["label"]: node for node in training.calls}
    nodes = list(_with_nested(nodes))
    used = Counter(wanted) + Counter(i for node in nodes for i in node.inputs)
    used.update(i for node in nodes if is_composite(node) for i in node.block.outputs)
    producers = {output: node for node in nodes for output in node.outputs}
    forms: dict[Any, LayerForm] = {}
    instances: dict[str, LayerForm] = {}
    calls: dict[str, tuple[LayerForm, Method]] = {}
    for node in nodes:
        if node.op != "call" or is_composite(node):
            continue
        label = node.attributes["label"]
        form = instances.get(call_key(node)) or _form(inference, originals[label], forms)
        instances[call_key(node)] = form
        method = _method(form, originals[label], trained[label])
        # If a result equals an argument, callers read the argument instead of the result.
        made_here = [(n, o) for n, o in enumerate(node.outputs) if o not in node.inputs]
        read = {n for n, output in made_here if used[output]}
        method.results = tuple(sorted(read.union(method.results)))
        method.optional |= _zeros(form, node, producers)
        calls[label] = form, method
    # Layers that only the loss uses have weights, although the inference program does not call
    # them.
    for node in originals.values():
        if call_key(node) not in instances and local_shapes(inference, node):
            instances[call_key(node)] = _form(inference, node, forms)
    return instances, calls


def _form(program: Program, call: Node, forms: dict[Any, LayerForm]) -> LayerForm:
    definition, attributes = call.attributes["definition"], call.attributes["attributes"]
    shapes = local_shapes(program, call)
    key = (definition, repr(attributes), tuple(shapes.items()))
    if key not in forms:
        statistics = program.statistics
        whole = index_names(program)

        def roles(values: set[int]) -> frozenset[str]:
            pairs = zip(call.attributes["roles"], call.inputs, strict=True)
            return frozenset(role for role, value in pairs if value in values)

        name = unique(camel(definition), {form.name for form in forms.values()})
        forms[key] = LayerForm(
            name,
            definition,
            attributes,
            shapes,
            roles({port.value for port in statistics}),
            roles({port.value for port in statistics if is_constant(port)}),
            roles({port.value for port in statistics if port.name in whole}),
        )
    return forms[key]


def _method(form: LayerForm, call: Node, training: Node) -> Method:
    key = canonical(call)
    if key not in form.methods:
        other = canonical(training) != key
        form.methods[key] = Method(call, training if other else None)
    return form.methods[key]


def _zeros(form: LayerForm, call: Node, made: Mapping[int, Node]) -> frozenset[str]:
    """Return the names of arguments at the end of a call that are zeros and can be left out. The
    first argument is never left out. ``made`` maps a value to the node that computes it."""
    zero_roles: set[str] = set()
    for role, value in reversed(form.roles(call)[1:]):
        node = made.get(value)
        if not is_zeros(node, made):
            break
        zero_roles.add(role)
    return frozenset(zero_roles)


def is_zeros(node: Node | None, made: Mapping[int, Node]) -> bool:
    """Return whether a node computes an array of zeros. ``made`` maps a value to the node that
    computes it."""
    if node is None or node.op != "broadcast_to":
        return False
    source = made.get(node.inputs[0])
    return source is not None and source.op == "constant" and source.attributes["value"] == 0
