"""A model as functions in Python source that needs nothing but JAX and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.extend import (
    CONSTANTS,
    PYTHON,
    Code,
    Emitter,
    Exported,
    LayerBody,
    LayerForm,
    Method,
    Node,
    SourceModel,
    bracketed,
    call_key,
    document,
    fill,
    forward,
    identifier,
    layers,
    literals,
    mapping,
    result_text,
    unique,
    uses,
)

from .source import JaxDialect

IMPORTED = frozenset(
    {"jax", "jnp", "np", "math", "load", "apply", "initial_state", "params", "state", "outputs"}
)


def _key(*names: str) -> str:
    return "params" + "".join(f"[{literals.text(name)}]" for name in names)


class Writer:
    """The text of one model's file."""

    def __init__(self, exported: Exported, file: str) -> None:
        self.exported, self.file = exported, file
        self.model: SourceModel = layers.model(exported.training, exported.inference)
        self.dialect = JaxDialect()
        self.functions: dict[int, str] = {}
        taken = {*IMPORTED, *CONSTANTS, *PYTHON}
        self.forms = list({id(form): form for form in self.model.instances.values()}.values())
        for form in self.forms:
            for method in form.methods.values():
                name = unique(identifier(form.definition), taken)
                taken.add(name)
                self.functions[id(method)] = name
        # Layers' functions are not read from variables of the same name.
        self.reserved = frozenset(taken)

    def source(self) -> str:
        """The whole file."""
        functions = [
            line
            for form in self.forms
            for method in form.methods.values()
            for line in ["", "", *self._function(form, method)]
        ]
        body = [*self._load(), *functions, *self._initial_state(), "", "", *self._apply()]
        math = ["import math", ""] if uses(body, "math") else []
        imports = [*math, "import jax", "import jax.numpy as jnp", "import numpy as np", ""]
        if not uses(body, "jax"):
            imports.remove("import jax")
        names = [f"INPUTS = {document.names([p.name for p in self.model.program.inputs])}"]
        names += [f"STATE = {document.names(list(self.model.state))}"]
        known = document.vocabulary(self.exported.vocabulary)
        told = ["# The arguments of apply in order, and what is carried from call to call.", *names]
        told += ["", *known] if known else [""]
        return "\n".join([*self._docstring(), "", *imports, *told, "", *body, ""])

    def _docstring(self) -> list[str]:
        name, state = self.file.removesuffix(".py"), self.model.state
        arguments = ", ".join(literals.told(p.name) for p in self.model.program.inputs[:3])
        more = ", ..." if len(self.model.program.inputs) > 3 else ""
        left = "outputs, state" if state else "outputs"
        weights = f"{name}.npz"
        lines = [
            f"{literals.told(self.exported.spec)} as functions of JAX; "
            f"its weights lie in {literals.told(weights)}.",
            "",
            f"    params = load({literals.text(weights)})",
            f"    {left} = jax.jit(apply)(params, {arguments}{more})",
            "",
            f"Made by harness export. Weights are {self.exported.dtype}.",
        ]
        if self.exported.dtype == "float64":
            lines += [
                "",
                'Call jax.config.update("jax_enable_x64", True) first: JAX rounds them otherwise.',
            ]
        return document.docstring(lines)

    def _load(self) -> list[str]:
        return [
            "def load(path):",
            '    """The parameters of an npz file, by layer and name."""',
            "    params = {}",
            "    with np.load(path) as arrays:",
            "        for key in arrays.files:",
            '            layer, name = key.split("/")',
            "            params.setdefault(layer, {})[name] = jnp.asarray(arrays[key])",
            "    return params",
        ]

    def _function(self, form: LayerForm, method: Method) -> list[str]:
        program, call, results = self.exported.inference, method.call, list(method.results)
        reserved = set(self.reserved)
        made = LayerBody(program, call, results)
        e, arguments, codes = made.emit(self.dialect, form, method, 1, _key, reserved)
        values = [(r, program.types[v].shape) for r, v in form.roles(call)]
        names = call.attributes["results"]
        given_back = [(names[n], program.types[call.block.outputs[n]].shape) for n in results]
        shapes = f"{document.shapes(program, values)} -> {document.shapes(program, given_back)}"
        signature = [
            f"{name}=None" if role in method.optional else name
            for (role, _), name in zip(values, arguments, strict=True)
        ]
        lines = bracketed(0, f"def {self.functions[id(method)]}(", ["params", *signature], "):")
        lines += [*document.docstring([document.form_title(form), "", shapes], 1), *e.lines]
        return [*lines, f"    return {result_text(e, codes)}"]

    @property
    def _like(self) -> str:
        key, form = next(iter(self.model.instances.items()), ("", None))
        names = list(form.shapes) if form is not None else []
        return _key(key, names[0]) if names else "jnp.zeros(())"

    def _initial_state(self) -> list[str]:
        if not self.model.state:
            return []
        e = forward.emitter(self.model, self.dialect, self._like, 1)
        lines = ["", "", "def initial_state(params, batch):"]
        lines.append('    """The state before the first call."""')
        return [*lines, *mapping(1, "return ", forward.first_state(e, self.model))]

    def _apply(self) -> list[str]:
        state = self.model.state
        e = forward.emitter(self.model, self.dialect, self._like, 1)
        made = forward.forward(self.model, e, self._call, self.reserved)
        signature = ["params", *made.arguments, *(["state=None"] if state else [])]
        lines = bracketed(0, "def apply(", signature, "):")
        lines += document.docstring(document.signature(self.model), 1)
        start = ["if state is None:", "    state = initial_state(params, batch)"]
        lines += made.lines(self.model, start)
        lines += mapping(1, "outputs = " if state else "return ", made.outputs)
        return [*lines, *(mapping(1, "return outputs, ", made.after) if state else [])]

    def _call(self, e: Emitter, node: Node) -> None:
        key = call_key(node)
        form, method = self.model.calls[node.attributes["label"]]
        codes = forward.given(e, self.model, node)
        own = Code((_key(key),)) if form.shapes else Code(("{}",))
        places = ", ".join(f"%{n}" for n in range(len(codes) + 1))
        results: Sequence[Any] = [node.outputs[n] for n in method.results]
        code = fill(f"{self.functions[id(method)]}({places})", own, *codes)
        forward.settle(e, results, code, identifier(key))
