"""The functions of exported source code: one for each layer of a model. Layers that differ only in
their weights, or in arguments of a function, share a function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.extend import Program
from harness.extend.program import Dim, Node, call_key, calls_by_layer, walk_nodes
from harness.extend.source import (
    Code,
    Emitter,
    LayerBody,
    LayerForm,
    Method,
    SourceModel,
    bracketed,
    document,
    fill,
    forward,
    identifier,
    is_composite,
    literals,
    return_lines,
    unique,
)

from .image_source import LayerSource, layer_source
from .primitives_export import JaxDialect


def key_text(name: str, group: str = "params") -> str:
    """Return the source code of an entry of the nested dictionary ``group``, e.g.
    ``params["h"]["0"]`` for ``h.0``."""
    return group + "".join(f"[{literals.text(part)}]" for part in name.split(".") if part)


# The dictionaries of weights: those that are trained, and those that are not.
GROUPS = ("params", "constants")
# The variable for the dtype of the model in a function.
DTYPE = "dtype"


def with_dtype(lines: Sequence[str], like: str) -> list[str]:
    """Return the lines of a function's body. If they use :data:`DTYPE`, the first line assigns the
    dtype of the array ``like``."""
    is_used = any(re.search(rf"(?<![\w.\"]){DTYPE}(?![\w=\"])", line) for line in lines)
    return [*([f"    {DTYPE} = {like}.dtype"] if is_used else []), *lines]


@dataclass
class SourceFunction:
    """A function of the exported file: its name, its arguments and its body.

    ``layers`` has the attributes of each layer that uses the function, and ``shapes`` the shapes of
    each call.
    """

    name: str
    definition: str
    arguments: Sequence[str]
    body: Sequence[str]
    layers: list[Mapping[str, Any]] = field(default_factory=list)
    shapes: list[document.CallShapes] = field(default_factory=list)

    @property
    def groups(self) -> list[str]:
        """The dictionaries of weights among the arguments."""
        return [argument for argument in self.arguments[:2] if argument in GROUPS]

    def lines(self, program: Program) -> list[str]:
        """Return the source lines of the function. The docstring has the attributes that all layers
        have, unless they are arguments of the function."""
        first, *others = self.layers
        passed = {argument.partition("=")[0] for argument in self.arguments}
        common = {
            name: value
            for name, value in first.items()
            if name not in passed and all(other.get(name) == value for other in others)
        }
        title = document.form_title(program, self.definition, common)
        shapes = document.arrows(program, self.shapes)
        head = bracketed(0, f"def {self.name}(", self.arguments, "):")
        return [*head, *document.docstring([title, "", *shapes], 1), *self.body]


@dataclass(frozen=True)
class FunctionCall:
    """How a layer calls its function: the function, and the arguments after the layer's inputs."""

    function: SourceFunction
    keywords: Sequence[str] = ()


class FunctionWriter:
    """The writer of the functions of one model. ``taken`` has names that functions must not have,
    and gets the names of all functions."""

    def __init__(self, model: SourceModel, taken: set[str]) -> None:
        self.model, self.program, self.taken = model, model.program, taken
        self.dialect = JaxDialect()
        self.functions: dict[Any, SourceFunction] = {}
        self.calls: dict[int | str, FunctionCall] = {}
        layers = calls_by_layer(self.program)
        self.natives = {key: layer_source(calls[0]) for key, calls in layers.items()}
        self.weights = {
            port.value: port for port in (*self.program.parameters, *self.program.statistics)
        }
        fixed = {port.value for port in self.program.statistics}
        self.groups = {v: "constants" if v in fixed else "params" for v in self.weights}
        self._add_all(model.nodes)
        for form in model.instances.values():  # of layers that only the loss uses
            for method in form.methods.values():
                self._add_layer(form, method, None)

    def _add_all(self, nodes: Iterable[Node]) -> None:
        """Write the functions of all calls. Nested layers come first."""
        for node in nodes:
            if node.op == "call" and is_composite(node):
                self._add_all(node.block.nodes)
                self._add_composite(node)
            elif node.op == "call":
                form, method = self.model.calls[node.attributes["label"]]
                self._add_layer(form, method, self.natives.get(call_key(node)))

    def _add_layer(self, form: LayerForm, method: Method, native: LayerSource | None) -> None:
        if id(method) in self.calls:
            return
        call, results = method.call, list(method.results)
        layer_body = LayerBody(self.program, call, results, like=DTYPE)

        def weight(role: str) -> str:
            return key_text(role, "constants" if role in form.statistics else "params")

        e, arguments, codes = layer_body.emit(
            self.dialect, form, method, 1, weight, set(self.taken)
        )
        signature = [
            f"{name}=None" if role in method.optional else name
            for (role, _), name in zip(form.roles(call), arguments, strict=True)
        ]
        floats = [
            name
            for (_, value), name in zip(form.roles(call), arguments, strict=True)
            if self.program.types[value].kind == "float"
        ]
        like = next(iter([*map(weight, form.float_shapes), *floats]), "")
        body = with_dtype([*e.lines, *return_lines(e, codes)], like)
        keywords: list[str] = []
        if native is not None:
            body = [f"    {line}" for line in native.lines]
            options = native.arguments.items()
            signature += [f"{name}={default}" for name, (default, _) in options]
            keywords = [f"{name}={text}" for name, (default, text) in options if text != default]
        signature[:0] = _groups(form)
        values = [(r, self.program.types[v].shape) for r, v in form.roles(call)]
        names = call.attributes["results"]
        given_back = [(names[n], self.program.types[call.block.outputs[n]].shape) for n in results]
        # Layers that share parameters have one form, but different definitions.
        function = self._function(call, signature, body)
        sizes = {**call.attributes["sizes"], **_sizes(form.attributes)}
        function.shapes.append(document.CallShapes(values, given_back, sizes))
        self.calls[id(method)] = FunctionCall(function, keywords)

    def _add_composite(self, node: Node) -> None:
        """Write the function of a layer with nested layers."""
        attributes, block = node.attributes, node.block
        prefix = f"{attributes['instance']}."
        form = LayerForm("", attributes["definition"], attributes["attributes"], {}, frozenset())
        call = Node("call", block.inputs, block.outputs, attributes, block)

        def call_layer(e: Emitter, inner: Node) -> None:
            self.write_call(e, inner, prefix)

        results = range(len(block.outputs))
        known = self.parameters(prefix)
        layer_body = LayerBody(self.program, call, results, False, call_layer, known, DTYPE)
        method = Method(call, None)
        e, arguments, codes = layer_body.emit(
            self.dialect, form, method, 1, key_text, set(self.taken)
        )
        read = {value for inner in walk_nodes(block.nodes) for value in inner.inputs}
        groups = {self.groups[value] for value in read & self.groups.keys()}
        signature = [*sorted(groups, key=GROUPS.index), *arguments]
        like = self.like(block.nodes, prefix) or arguments[0]
        body = with_dtype([*e.lines, *return_lines(e, codes)], like)
        function = self._function(call, signature, body)
        values = [(r, self.program.types[v].shape) for r, v in form.roles(call)]
        shapes = [self.program.types[output].shape for output in block.outputs]
        given_back = [*zip(attributes["results"], shapes, strict=True)]
        sizes = {**attributes["sizes"], **_sizes(form.attributes)}
        function.shapes.append(document.CallShapes(values, given_back, sizes))
        self.calls[attributes["label"]] = FunctionCall(function)

    def _function(
        self, call: Node, arguments: Sequence[str], body: Sequence[str]
    ) -> SourceFunction:
        """Return the function of a layer's call. If there is none with this body, add a new one."""
        definition, attributes = call.attributes["definition"], call.attributes["attributes"]
        key = (definition, tuple(arguments), tuple(body))
        if key not in self.functions:
            name = unique(identifier(self._variant(definition, attributes)), self.taken)
            self.taken.add(name)
            self.functions[key] = SourceFunction(name, definition, arguments, body)
        self.functions[key].layers.append(attributes)
        return self.functions[key]

    def _variant(self, definition: str, attributes: Mapping[str, Any]) -> str:
        """Return the name of a new function of a layer: the definition, and the word or switch that
        differs from the definition's first function, e.g. ``dense_without_bias``."""
        for function in self.functions.values():
            if function.definition == definition:
                first = function.layers[0]
                different = [(n, v) for n, v in attributes.items() if v != first.get(n)]
                words = [
                    value if isinstance(value, str) else f"{'with' if value else 'without'}_{name}"
                    for name, value in different
                    if isinstance(value, str | bool)
                ]
                return f"{definition}_{words[0]}" if len(words) == 1 else definition
        return definition

    def parameters(self, prefix: str = "") -> dict[int, str]:
        """Return the source of each parameter, statistic and constant, by its value number."""
        return {
            value: key_text(port.name.removeprefix(prefix), self.groups[value])
            for value, port in self.weights.items()
        }

    def like(self, nodes: Iterable[Node], prefix: str = "") -> str:
        """Return the source of a float array of the layers that ``nodes`` call, "" if there is
        none. Constants come last. ``prefix`` begins the names of the layers."""
        texts = []
        for node in nodes:
            if node.op != "call":
                continue
            if is_composite(node):
                inner = self.like(node.block.nodes, prefix)
                texts += [(False, inner)] * bool(inner)
                continue
            form = self.model.instances[call_key(node)]
            for name in form.float_shapes[:1]:
                fixed = name in form.statistics
                local = f"{_local(call_key(node), prefix)}.{name}"
                texts.append((fixed, key_text(local, "constants" if fixed else "params")))
        return min(texts, default=(False, ""), key=lambda entry: entry[0])[1]

    def write_call(self, e: Emitter, node: Node, prefix: str = "") -> None:
        """Write the call of a layer, for :attr:`.Emitter.call`. In the function of a layer with
        nested layers, ``prefix`` begins the names of these layers."""
        key = _local(call_key(node), prefix)
        word = identifier(key.replace(".", "_") or str(node.attributes["definition"]))
        codes = forward.given(e, self.model, node)
        if not is_composite(node):
            form, method = self.model.calls[node.attributes["label"]]
            call = self.calls[id(method)]
            results = [node.outputs[n] for n in method.results]
            weights = [key_text(key, group) for group in _groups(form)]
            code = self._called(call, weights, codes)
            forward.settle(e, results, code, word)
            return
        call = self.calls[node.attributes["label"]]
        weights = [key_text(key, group) for group in call.function.groups]
        if node.attributes["repeat"] == 1:
            code = self._called(call, weights, codes)
            forward.settle(e, node.outputs, code, word)
        else:
            self._write_chain(e, node, key.rpartition(".")[0], codes)

    def _write_chain(self, e: Emitter, node: Node, key: str, codes: Sequence[Code]) -> None:
        """Write a loop over the layers of a repeated layer."""
        call = self.calls[node.attributes["label"]]
        count = len(node.outputs)
        arguments = [e.read(code) for code in codes]
        names: list[str] = []
        for output in node.outputs:
            names.append(e.name(e.base(output) or identifier(key.replace(".", "_"))))
            e.hold(output, names[-1])
        first, results = ", ".join(arguments[:count]), ", ".join(names)
        if results != first:
            e.write(f"{results} = {first}")
        e.write(f"for number in range({node.attributes['repeat']}):")
        e.depth += 1
        weights = [f"{key_text(key, group)}[str(number)]" for group in call.function.groups]
        inputs = ", ".join([*weights, *names, *arguments[count:]])
        e.write(f"{results} = {call.function.name}({inputs})")
        e.depth -= 1

    @staticmethod
    def _called(call: FunctionCall, weights: Sequence[str], codes: Sequence[Code]) -> Code:
        places = [f"%{number}" for number in range(len(weights) + len(codes))]
        template = f"{call.function.name}({', '.join([*places, *call.keywords])})"
        return fill(template, *(Code((text,)) for text in weights), *codes)


def _local(name: str, prefix: str) -> str:
    """Return the name of a layer in the function of the layer that ``prefix`` names: empty for that
    layer, which may have weights and noise too."""
    return f"{name}.".removeprefix(prefix).removesuffix(".")


def _groups(form: LayerForm) -> list[str]:
    """Return the dictionaries that have the parameters and the constants of a layer."""
    has = (form.shapes.keys() - form.statistics, form.statistics)
    return [group for group, names in zip(GROUPS, has, strict=True) if names]


def _sizes(attributes: Mapping[str, Any]) -> dict[str, Dim]:
    return {name: value for name, value in attributes.items() if isinstance(value, Dim)}
