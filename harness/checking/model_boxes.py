"""The boxes that draw a model: its layers in the order of computation, nested in definitions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import prod
from pathlib import PurePath

from harness.language import schema
from harness.language.library import FOLDERS, content
from harness.language.model import Spec
from harness.program.ir import Node, Program, reads
from harness.program.signature import call_key, is_constant, local_of, noise_ports

Scope = tuple[str, ...]
# Operations that a reader of the picture need not see: numbers, and lengths of axes.
SILENT = frozenset({"constant", "extent", "broadcast_to", "expand_dims", "stop_gradient"})


@dataclass(frozen=True)
class Box:
    """A part of a model.

    Attributes:
        kind: ``layer``, ``loss``, ``equations`` between layers, or a ``definition`` with layers.
        name: The name within the enclosing box, e.g. ``norm_1``; empty for equations.
        title: The name of the definition; for equations, the operations.
        summary: The summary of a definition with layers.
        inputs: The names of the values that the box reads; empty if it only reads the previous box.
        outputs: The names and shapes of the values that other boxes read.
        parameters: The names and shapes of parameters, statistics and noise.
        count: The number of entries of all parameters and statistics in the box.
        code: The code that runs the layer, by backend.
        inner: The boxes inside a definition.
        repeated: The names of all boxes that this box stands for, because their content is equal.
        opened: False if the same definition is drawn earlier.
    """

    kind: str
    name: str
    title: str
    summary: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    count: int = 0
    code: Mapping[str, str] = field(default_factory=dict)
    inner: tuple[Box, ...] = ()
    repeated: tuple[str, ...] = ()
    opened: bool = True


@dataclass(frozen=True)
class _Step:
    """Nodes that one box shows: a single call, or the equations between two calls. ``scope`` is the
    path of the definition that contains the nodes, e.g. ``("blocks", "0")``."""

    scope: Scope
    nodes: tuple[Node, ...]

    @property
    def values(self) -> Iterator[int]:
        """The numbers of the values that the nodes make."""
        return (value for node in self.nodes for value in node.outputs)


def draw_boxes(spec: Spec, program: Program, paths: Mapping[str, object]) -> tuple[Box, ...]:
    """Return the boxes of a model, from its inputs to its loss.

    ``paths`` maps a backend to a dictionary with the code of each layer. Other values are ignored.
    """
    code = {backend: found for backend, found in paths.items() if isinstance(found, dict)}
    steps: list[_Step] = []
    hidden: set[int] = set()
    for step in _find_steps(program):
        # Constants between two calls, such as initial states, need no box.
        if step.nodes[0].op != "call" and not _operations(step.nodes):
            hidden |= {*step.values}
        else:
            steps.append(step)
    boxes = _Drawing(spec, program, code, hidden).boxes(steps, ())
    return _open_first(boxes, set())


def _find_steps(program: Program) -> list[_Step]:
    steps: list[_Step] = []
    pairs = zip(_find_scopes(program), program.nodes, strict=True)
    for (scope, is_call), group in groupby(pairs, lambda pair: (pair[0], pair[1].op == "call")):
        nodes = tuple(node for _, node in group)
        parts = [(node,) for node in nodes] if is_call else [nodes]
        steps += [_Step(scope, part) for part in parts]
    return steps


def _find_scopes(program: Program) -> list[Scope]:
    """Return the path of the definition that contains each node.

    Names of layers and values contain the path. A node without a name belongs to the scope of a
    named node from the same line of a spec. If there is none, as for nodes of functions, it belongs
    to the scope of the previous node, or to the next scope if the previous scope is complete.
    """
    named = [_named_scope(program, node) for node in program.nodes]
    last = {scope: number for number, scope in enumerate(named)}
    by_line: dict[str, set[Scope]] = {}
    for node, scope in zip(program.nodes, named, strict=True):
        if scope is not None:
            by_line.setdefault(node.place, set()).add(scope)
    following: list[Scope] = [()]
    for scope in reversed(named):
        following.append(following[-1] if scope is None else scope)
    scopes: list[Scope] = []
    current: Scope = ()
    for number, (node, own) in enumerate(zip(program.nodes, named, strict=True)):
        after = following[-2 - number]
        if own is None:
            near = (current, after) if last.get(current, -1) > number else (after, current)
            parents = [current[:depth] for depth in range(len(current))]
            known = by_line.get(node.place, {near[0]})
            own = next((s for s in (*near, *parents) if s in known), near[0])
        current = own
        chain = str(node.attributes["label"]).split(".")[-2:-1] if _is_repeated(node) else ()
        scopes.append((*own, *chain))
    return scopes


def _is_repeated(node: Node) -> bool:
    """Return whether a node calls a layer of a chain, e.g. ``blocks.0``."""
    return node.op == "call" and str(node.attributes["label"]).rpartition(".")[2].isdigit()


def _named_scope(program: Program, node: Node) -> Scope | None:
    """Return the path of the definition whose equations contain a call or a named value, or None
    for a node without a name."""
    if node.op == "call":
        label = str(node.attributes["label"]).split(".")
        return tuple(label[: -2 if _is_repeated(node) else -1])
    name = next(filter(None, (program.names.get(value) for value in node.outputs)), None)
    if name is None:
        return None
    path, slash, _ = name.rpartition("/")
    # The path of a second call ends in ``#2``. The box of the first call shows it too.
    return tuple(part.partition("#")[0] for part in path.split(".")) if slash else ()


class _Drawing:
    """The state while the boxes are made. ``counted`` has the parameters that have been drawn, and
    ``no_inputs`` the values that no box lists among its inputs."""

    def __init__(
        self,
        spec: Spec,
        program: Program,
        code: Mapping[str, Mapping[str, str]],
        hidden: Collection[int],
    ) -> None:
        self.spec, self.program, self.code = spec, program, code
        self.variables = {p.value: p for p in (*program.parameters, *program.statistics)}
        self.noise = {p.value: p for p in noise_ports(program)}
        self.no_inputs = {*self.variables, *self.noise, *hidden}
        ports = (*program.inputs, *program.targets, *program.state)
        self.sources = {p.value: p.name for p in ports}
        self.ends = {p.value: p.name for p in (*program.outputs, *program.metrics)}
        if program.loss is not None:
            self.ends.setdefault(program.loss, "loss")
        self.readers: dict[int, set[int]] = {}
        for node in program.nodes:
            for value in reads(node):
                self.readers.setdefault(value, set()).add(id(node))
        self.counted: set[int] = set()

    def boxes(self, steps: Sequence[_Step], scope: Scope) -> list[Box]:
        """Return the boxes of the steps inside the definition at ``scope``."""
        depth = len(scope)
        inside = {id(node) for step in steps for node in step.nodes}
        boxes: list[Box] = []
        # The number of the box and the name of each value that a box has made so far.
        made: dict[int, tuple[int, str]] = {}
        groups = groupby(
            enumerate(steps),
            lambda item: item[1].scope[: depth + 1] if len(item[1].scope) > depth else item[0],
        )
        for _, group in groups:
            members = [step for _, step in group]
            box = self._draw(members, depth, inside)
            inputs = set(self._inputs(members, made, is_inner=depth > 0))
            if {number for number, _ in inputs} - {len(boxes) - 1}:
                names = dict.fromkeys(name for _, name in sorted(inputs) if name)
                box = replace(box, inputs=tuple(names))
            for value in (value for step in members for value in step.values):
                made[value] = len(boxes), box.name or self._local_name(value) or box.kind
            boxes.append(box)
        return _fold(boxes)

    def _inputs(
        self, members: Sequence[_Step], made: Mapping[int, tuple[int, str]], is_inner: bool
    ) -> Iterator[tuple[int, str]]:
        """Yield the number of the box and the name of each value that the steps read. Values from
        outside of a definition have the number -1 and the name ``input``."""
        own = {value for step in members for value in step.values}
        for node in (node for step in members for node in step.nodes):
            for value in reads(node):
                if value not in own and value not in self.no_inputs:
                    outside = (-1, "input") if is_inner else (-2, self.sources.get(value, ""))
                    yield made.get(value, outside)

    def _draw(self, members: Sequence[_Step], depth: int, inside: set[int]) -> Box:
        """Return the box of a step, or of the steps of an inner definition. ``inside`` has the
        identities of all nodes in the enclosing definition."""
        step, outputs = members[0], self._outputs(members, depth, inside)
        if len(step.scope) > depth:
            return self._draw_definition(members, step.scope[: depth + 1], outputs)
        parameters, count = self._parameters(step)
        node = step.nodes[0]
        if node.op != "call":
            title = ", ".join(_operations(step.nodes))
            return Box("equations", "", title, outputs=outputs, parameters=parameters, count=count)
        key = call_key(node)
        code = {backend: layers[key] for backend, layers in self.code.items() if key in layers}
        kind, title, label = (str(node.attributes[n]) for n in ("kind", "definition", "label"))
        name = label.rpartition(".")[2]
        return Box(
            kind, name, title, outputs=outputs, parameters=parameters, count=count, code=code
        )

    def _draw_definition(
        self, members: Sequence[_Step], scope: Scope, outputs: tuple[str, ...]
    ) -> Box:
        inner, repeated = self.boxes(members, scope), tuple[str, ...]()
        count = sum(box.count * max(len(box.repeated), 1) for box in inner)
        if len(inner) == 1 and inner[0].repeated:
            # A chain of equal layers is drawn as its first layer.
            repeated = inner[0].repeated
            inner = [*inner[0].inner] or [replace(inner[0], repeated=())]
        layer = _find_layer(self.spec, scope)
        title, summary = (layer.layer, layer.summary) if layer else ("", "")
        return Box(
            "definition",
            scope[-1],
            title,
            summary,
            outputs=outputs,
            count=count,
            inner=tuple(inner),
            repeated=repeated,
        )

    def _outputs(self, members: Sequence[_Step], depth: int, inside: set[int]) -> tuple[str, ...]:
        """Return the names and shapes of the values that other steps or the model's user read. A
        value that leaves a definition has the name ``output``, and the only value of a layer has no
        name."""
        own = {id(node) for step in members for node in step.nodes}
        is_named = depth == 0 and any(v in self.ends for step in members for v in step.values)
        is_layer = members[0].nodes[0].op == "call" or len(members[0].scope) > depth
        pairs = []
        for value in (value for step in members for value in step.values):
            readers, end = self.readers.get(value, set()) - own, self.ends.get(value, "")
            is_output = depth > 0 and bool(end or readers - inside)
            name = "output" if is_output else end or self._local_name(value)
            if end or readers:
                pairs.append((name, str(self.program.types[value])))
        if is_layer and len(pairs) == 1 and not is_named:
            return (pairs[0][1],)
        return tuple(" ".join(filter(None, pair)) for pair in pairs)

    def _local_name(self, value: int) -> str:
        return self.program.names.get(value, "").rpartition("/")[2]

    def _parameters(self, step: _Step) -> tuple[tuple[str, ...], int]:
        """Return the names and shapes of a step's parameters, and the number of entries of those
        that no earlier box has."""
        lines, count = [], 0
        for value in dict.fromkeys(value for node in step.nodes for value in reads(node)):
            if value in self.noise:
                name = local_of(self.noise[value].name)
                lines.append(f"{name} {self.program.types[value]}, noise")
            elif value in self.variables:
                port = self.variables[value]
                shape = self.program.shape(port)
                is_shared = value in self.counted
                name = port.name if is_shared else local_of(port.name)
                kind = ", constant" if is_constant(port) else ""
                lines.append(f"{name} {[*shape]}{kind}{', shared' if is_shared else ''}")
                count += 0 if is_shared else prod(shape)
                self.counted.add(value)
        return tuple(lines), count


def _operations(nodes: Iterable[Node]) -> list[str]:
    """Return the operations of equations in order, each once. The nodes of a function count as one
    operation with the function's name."""
    names: dict[str, None] = {}
    # The values that the function before the current node makes or reads.
    seen: set[int] = set()
    for node in nodes:
        path = PurePath(node.place.partition(".yaml:")[0])
        if path.parent.name == FOLDERS["function"]:
            names[path.name] = None
            seen |= {*node.inputs, *node.outputs}
            continue
        # The last node of a function has the place of the equation that names its result.
        is_last = bool(seen) and seen.issuperset(node.inputs)
        seen.clear()
        if not is_last and node.op not in SILENT:
            names[node.op] = None
    return [*names]


def _find_layer(spec: Spec, scope: Scope) -> schema.Layer | None:
    """Return the definition of the layer at ``scope``, e.g. of ``("blocks", "0")``."""
    uses, layer = spec.model.layers, None
    for name in scope:
        if name.isdigit():  # the number of a repeated layer
            continue
        if name not in uses:
            return None
        layer = content(spec.library.find("layer", uses[name].layer), schema.Layer)
        uses = layer.layers
    return layer


def _fold(boxes: Sequence[Box]) -> list[Box]:
    """Replace consecutive boxes of repeated layers by the first one if their content is equal."""
    folded: list[Box] = []
    for box in boxes:
        if folded and box.name.isdigit() and _content(folded[-1]) == _content(box):
            first = folded[-1]
            names = first.repeated or (first.name,)
            folded[-1] = replace(first, repeated=(*names, box.name))
        else:
            folded.append(box)
    return folded


def _content(box: Box) -> Box:
    return replace(box, name="", inputs=(), repeated=())


def _open_first(boxes: Iterable[Box], drawn: set[str]) -> tuple[Box, ...]:
    """Return the boxes with ``opened`` set. ``drawn`` has the definitions that are drawn earlier,
    and is extended."""
    result = []
    for box in boxes:
        opened = box.title not in drawn
        inner = _open_first(box.inner, drawn)
        drawn |= {box.title} if box.kind == "definition" else set()
        result.append(replace(box, inner=inner, opened=opened))
    return tuple(result)
