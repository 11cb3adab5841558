"""A model as a ``torch.nn.Module`` in Python source that needs nothing but torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.extend import (
    CONSTANTS,
    PYTHON,
    Code,
    Emitter,
    Exported,
    Layer,
    LayerBody,
    LayerForm,
    Method,
    Node,
    Program,
    SourceModel,
    bracketed,
    call_key,
    camel,
    document,
    fill,
    forward,
    layers,
    literals,
    mapping,
    result_text,
    unique,
    uses,
)

from .modules import MODULES, attribute, natives
from .source import TorchDialect

IMPORTED = frozenset({"torch", "nn", "math", "Tensor", "state", "outputs"})


class Writer:
    """The text of one model's file."""

    def __init__(self, exported: Exported, file: str) -> None:
        self.exported, self.file = exported, file
        self.model: SourceModel = layers.model(exported.training, exported.inference)
        self.natives = natives(exported.training)
        self.dialect = TorchDialect()
        self.forms = {
            form.name: form for key, form in self.model.instances.items() if key not in self.natives
        }
        taken = {*PYTHON, *CONSTANTS, *IMPORTED}
        self.name = camel(exported.spec, taken)
        self.classes: dict[str, str] = {}
        for name in self.forms:
            free = {*taken, self.name, *self.classes.values()}
            self.classes[name] = name if name not in free else unique(f"{name}Layer", free)

    def source(self) -> str:
        """The whole file."""
        forms = [line for form in self.forms.values() for line in ["", *self._form(form), ""]]
        body = [*forms, "", *self._model()]
        math = ["import math", ""] if uses(body, "math") else []
        head = [*self._docstring(), "", *math, "import torch", "from torch import Tensor, nn", ""]
        names = [f"INPUTS = {document.names([p.name for p in self.model.program.inputs])}"]
        names += [f"STATE = {document.names(list(self.model.state))}"]
        known = document.vocabulary(self.exported.vocabulary)
        told = [
            "# The arguments of forward in order, and what is carried from call to call.",
            *names,
            *([""] if known else []),
            *known,
        ]
        return "\n".join([*head, *told, *([] if told[-1] == "" else [""]), *body, ""])

    def _docstring(self) -> list[str]:
        name = self.file.removesuffix(".py")
        state = ", state" if self.model.state else ""
        double = self.exported.dtype == "float64"
        arguments = ", ".join(literals.told(p.name) for p in self.model.program.inputs[:3])
        more = ", ..." if len(self.model.program.inputs) > 3 else ""
        call = f"outputs{state} = model({arguments}{more})"
        weights = f"{name}.pt"
        load = f"torch.load({literals.text(weights)}, weights_only=True)"
        return document.docstring(
            [
                f"{literals.told(self.exported.spec)} as a module of torch; "
                f"its weights lie in {literals.told(weights)}.",
                "",
                f"    model = {self.name}()",
                f"    model.load_state_dict({load})",
                "    model.eval()",
                f"    {call}",
                "",
                f"Made by harness export. Weights are {'float64' if double else 'float32'}.",
            ]
        )

    # --- Layers of equations

    def _form(self, form: LayerForm) -> list[str]:
        lines = [f"class {self.classes[form.name]}(nn.Module):"]
        lines += [*document.docstring([document.form_title(form)], 1), ""]
        lines += [
            "    def __init__(self, dtype: torch.dtype) -> None:",
            "        super().__init__()",
        ]
        for role, shape in form.shapes.items():
            zeros = f"torch.zeros({', '.join(map(str, shape)) or '()'}, dtype=dtype)"
            if role in form.statistics:
                lines.append(
                    f"        self.register_buffer({literals.text(attribute(role))}, {zeros})"
                )
            else:
                lines.append(f"        self.{attribute(role)} = nn.Parameter({zeros})")
        for number, method in enumerate(form.methods.values(), start=1):
            lines += ["", *self._method(form, method, number)]
        return lines

    def _method(self, form: LayerForm, method: Method, number: int) -> list[str]:
        def parameter(role: str) -> str:
            return f"self.{attribute(role)}"

        def phase(program: Program, call: Node, results: list[int], depth: int) -> Any:
            made = LayerBody(program, call, results, moves=depth == 3)
            return made.emit(self.dialect, form, method, depth, parameter, set(IMPORTED))

        results, call = list(method.results), method.call
        program = self.exported.inference
        e, arguments, codes = phase(program, call, results, 2)
        values = [(r, program.types[v].shape) for r, v in form.roles(call)]
        names = call.attributes["results"]
        made = [(names[n], program.types[call.block.outputs[n]].shape) for n in results]
        shapes = f"{document.shapes(program, values)} -> {document.shapes(program, made)}"
        annotated = [
            f"{name}: Tensor | None = None" if role in method.optional else f"{name}: Tensor"
            for (role, _), name in zip(values, arguments, strict=True)
        ]
        many = "Tensor" if len(results) == 1 else f"tuple[{', '.join(['Tensor'] * len(results))}]"
        method_name = "forward" if number == 1 else f"forward_{number}"
        lines = bracketed(1, f"def {method_name}(", ["self", *annotated], f") -> {many}:")
        lines += document.docstring([f"{shapes}."], 2)
        if method.training is not None:
            lines += ["        if self.training:", *self._training(form, method, phase)]
        return [*lines, *e.lines, f"        return {result_text(e, codes)}"]

    def _training(self, form: LayerForm, method: Method, phase: Any) -> list[str]:
        """The equations of training, which move the statistics."""
        call = method.training
        assert call is not None
        roles = call.attributes["results"]
        moved = [
            n for n, role in enumerate(roles) if role in form.statistics and n not in method.results
        ]
        e, _, codes = phase(self.exported.training, call, [*method.results, *moved], 3)
        count = len(method.results)
        returned = result_text(e, codes[:count])
        for n, code in zip(moved, codes[count:], strict=True):
            e.write(f"self.{attribute(roles[n])} = {e.read(fill('^0.detach()', code))}")
        return [*e.lines, f"            return {returned}"]

    # --- The model

    def _model(self) -> list[str]:
        default = f"dtype: torch.dtype = torch.{self.exported.dtype}"
        lines = [f"class {self.name}(nn.Module):"]
        lines += document.docstring(document.signature(self.model), 1)
        lines += ["", f"    def __init__(self, {default}) -> None:"]
        lines += ["        super().__init__()"]
        for key, form in self.model.instances.items():
            lines += self._submodule(key, form)
        lines += self._initial_state()
        return [*lines, "", *self._forward()]

    def _submodule(self, key: str, form: LayerForm) -> list[str]:
        name = attribute(key)
        if key not in self.natives:
            return [f"        self.{name} = {self.classes[form.name]}(dtype)"]
        layer, native = self.natives[key]
        made = MODULES[layer.definition](layer.shapes, layer.attributes)
        lines = [f"        self.{name} = {made}, dtype=dtype)"]
        for frozen in sorted(native.packing.frozen):
            told_of = (
                f"{literals.told(form.definition)} has one bias: torch's second one stays zero."
            )
            lines.append(document.comment(told_of, 2))
            lines.append(f"        self.{name}.{frozen}.requires_grad_(False)")
        return lines

    @property
    def _like(self) -> str:
        key, form = next(iter(self.model.instances.items()), ("", None))
        if form is None:
            return "torch.zeros(())"
        names = self.natives[key][1].packing.pieces if key in self.natives else form.shapes
        return f"self.{attribute(key)}.{attribute(next(iter(names)))}"

    def _initial_state(self) -> list[str]:
        if not self.model.state:
            return []
        e = forward.emitter(self.model, self.dialect, self._like, 2)
        head = "    def initial_state(self, batch: int) -> dict[str, Tensor]:"
        lines = ["", head, '        """The state before the first call."""']
        return [*lines, *mapping(2, "return ", forward.first_state(e, self.model))]

    def _forward(self) -> list[str]:
        state = self.model.state
        e = forward.emitter(self.model, self.dialect, self._like, 2)
        made = forward.forward(self.model, e, self._call, IMPORTED)
        signature = ["self", *(f"{name}: Tensor" for name in made.arguments)]
        returns = "dict[str, Tensor]"
        if state:
            signature.append("state: dict[str, Tensor] | None = None")
            returns = "tuple[dict[str, Tensor], dict[str, Tensor]]"
        start = ["if state is None:", "    state = self.initial_state(batch)"]
        lines = bracketed(1, "def forward(", signature, f") -> {returns}:")
        lines += made.lines(self.model, start)
        lines += mapping(2, "outputs = " if state else "return ", made.outputs)
        return [*lines, *(mapping(2, "return outputs, ", made.after) if state else [])]

    def _call(self, e: Emitter, node: Node) -> None:
        key = call_key(node)
        form, method = self.model.calls[node.attributes["label"]]
        # Modules of torch take all states or none.
        least = len(form.roles(node)) - 1 if key in self.natives else 0
        codes = forward.given(e, self.model, node, least, 50)
        target = f"self.{attribute(key)}"
        if key in self.natives:
            self._native(e, node, target, self.natives[key][0], codes)
            return
        number = list(form.methods.values()).index(method) + 1
        name = target if number == 1 else f"{target}.forward_{number}"
        places = ", ".join(f"%{n}" for n in range(len(codes)))
        results = [node.outputs[n] for n in method.results]
        forward.settle(e, results, fill(f"{name}({places})", *codes), attribute(key))

    def _native(
        self, e: Emitter, node: Node, target: str, layer: Layer, codes: Sequence[Code]
    ) -> None:
        """A call of a module of torch.nn."""
        word = target.removeprefix("self.")
        if len(node.outputs) == 1:
            activation = layer.attributes.get("activation", "linear")
            call = f"{target}(%0)"
            code = fill(call if activation == "linear" else f"torch.{activation}({call})", *codes)
            e.settle(node.output, code, word)
            return
        text = e.read(codes[0])
        given = [e.read(fill("^0.unsqueeze(0)", state)) for state in codes[1:]]
        if len(given) == 1:
            text += f", {given[0]}"
        elif given:
            text += f", ({', '.join(given)})"
        names = []
        for value in node.outputs:
            names.append(e.name(e.base(value) or word) if e.left[value] else "_")
            if e.left[value]:
                e.hold(value, names[-1])
        after = "_" if set(names[1:]) == {"_"} else ", ".join(names[1:])
        after = f"({after})" if "," in after else after
        e.write(f"{names[0]}, {after} = {target}({text})")
        for name in names[1:]:
            if name != "_":
                e.write(f"{name} = {name}.squeeze(0)")
