"""Export of a model as Python source of a ``torch.nn.Module`` that needs only torch."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.extend import ClaimableCall, Native, Program
from harness.extend.formats import Exported
from harness.extend.program import Node, call_key, calls_by_layer
from harness.extend.source import (
    CONSTANTS,
    PYTHON,
    Code,
    Emitter,
    LayerBody,
    LayerForm,
    Method,
    SourceModel,
    bracketed,
    camel,
    document,
    fill,
    forward,
    identifier,
    layers,
    literals,
    result_text,
    return_lines,
    unique,
    uses,
)

from .layers import ACTIVATIONS, CLAIMS, CONVOLUTIONS, POOLS, convolution_options
from .primitives_export import TorchDialect
from .recurrent import directions

# The torch.nn modules that replace layers of a spec, and the names of a module's attributes.

# Names that the classes in an exported file define themselves.
OWN = re.compile(r"initial_state|forward_\d+")
# A function that returns the start of a call that makes a module, without its dtype; None if torch
# has no such module.
ModuleWriter = Callable[[ClaimableCall], str | None]


def _bias(layer: ClaimableCall) -> str:
    return "" if "b" in layer.shapes else ", bias=False"


def _linear(layer: ClaimableCall) -> str:
    rows, units = layer.shapes["W"]
    return f"nn.Linear({rows}, {units}{_bias(layer)}"


def _embedding(layer: ClaimableCall) -> str:
    rows, units = layer.shapes["table"]
    return f"nn.Embedding({rows}, {units}"


def _layer_norm(layer: ClaimableCall) -> str:
    return f"nn.LayerNorm({layer.shapes['gamma'][0]}, eps={layer.attributes['epsilon']!r}"


def _rms_norm(layer: ClaimableCall) -> str:
    return f"nn.RMSNorm({layer.shapes['gamma'][0]}, eps={layer.attributes['epsilon']!r}"


def _rnn(layer: ClaimableCall) -> str:
    rows, units = layer.shapes["W"]
    kind = "" if layer.attributes["activation"] == "tanh" else ', nonlinearity="relu"'
    return f"nn.RNN({rows}, {units}{kind}{_bias(layer)}, batch_first=True"


def _gated(name: str) -> ModuleWriter:
    def write_module(layer: ClaimableCall) -> str:
        rows, units = layer.shapes["W_i" if name == "LSTM" else "W_z"]
        both = ", bidirectional=True" if any(n.startswith("back_") for n in layer.shapes) else ""
        both += "" if layer.attributes["bias"] else ", bias=False"
        return f"nn.{name}({rows}, {units}{both}, batch_first=True"

    return write_module


def _convolution(layer: ClaimableCall) -> str | None:
    """Return the start of source code that makes a torch.nn convolution; return None for a padding
    that torch does not support."""
    *kernel, channels, units = layer.shapes["W"]
    options = convolution_options(layer)
    groups, pads = options["groups"], options["padding"]
    name, sides = f"Conv{len(kernel)}d", (channels * groups, units)
    if layer.definition == "conv2d_transpose":
        name, sides = "ConvTranspose2d", (units, channels)
    text = f"nn.{name}({sides[0]}, {sides[1]}, {_per_axis(kernel)}"
    if pads == "same" and set(options["stride"]) != {1}:
        return None
    if pads != "same" and any(before != after for before, after in pads):
        return None
    padding = '"same"' if pads == "same" else _per_axis([before for before, _ in pads])
    values = {n: _per_axis(options[n]) for n in ("stride", "dilation")}
    values |= {"padding": padding, "groups": str(groups)}
    # Write only arguments that differ from torch's defaults.
    for option in ("stride", "padding", "dilation", "groups"):
        if values[option] != ("0" if option == "padding" else "1"):
            text += f", {option}={values[option]}"
    return text + _bias(layer)


def _pool(layer: ClaimableCall) -> str | None:
    """Return the start of source code that makes a torch.nn pool; return None for a padding that
    torch does not support."""
    attributes, pads = layer.attributes, layer.attributes["padding"]
    sizes = attributes["window"]
    if pads == "same" or any(
        before != after or 2 * before > size
        for (before, after), size in zip(pads, sizes, strict=True)
    ):
        return None
    name = "AvgPool2d" if layer.definition == "avg_pool" else "MaxPool2d"
    text = f"nn.{name}({_per_axis(sizes)}"
    if attributes["stride"] != sizes:
        text += f", stride={_per_axis(attributes['stride'])}"
    if any(before for before, _ in pads):
        text += f", padding={_per_axis([before for before, _ in pads])}"
    return text + ("" if attributes.get("count_padding", True) else ", count_include_pad=False")


def _per_axis(values: Sequence[int]) -> str:
    return str(values[0] if len(set(values)) == 1 else tuple(values))


# Layers before and after which channels move, because torch puts channels after the batch.
IMAGES = (*CONVOLUTIONS, *POOLS)
# Name of a definition -> a function that writes its torch.nn module. batch_norm is missing, because
# torch updates its statistics with the unbiased variance.
MODULES: Mapping[str, ModuleWriter] = {
    "embedding": _embedding,
    "dense": _linear,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "simple_rnn": _rnn,
    "simple_rnn_two_biases": _rnn,
    "simple_rnn_without_bias": _rnn,
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(("lstm", "bidirectional_lstm"), _gated("LSTM")),
    **dict.fromkeys(("gru_reset_after", "bidirectional_gru_reset_after"), _gated("GRU")),
}


def native_layers(program: Program) -> dict[str, tuple[ClaimableCall, Native]]:
    """Return the layers that the exported source can write as torch.nn modules: a mapping from the
    layer's name to its call and its native implementation."""
    by_key: dict[str, tuple[ClaimableCall, Native]] = {}
    for key, (layer, *_) in calls_by_layer(program).items():
        written = MODULES[layer.definition](layer) if layer.definition in MODULES else None
        native = CLAIMS[layer.definition](layer) if written is not None else None
        if native is not None:
            by_key[key] = layer, native
    return by_key


def attribute_name(name: str) -> str:
    """Return the attribute name of a layer or parameter in a torch module, a valid Python name.
    Different names give different attribute names."""
    # Add an underscore also to names that already end in underscores, so that names stay unique.
    stem = name.rstrip("_")
    taken = (
        keyword.iskeyword(stem) or OWN.fullmatch(stem) or hasattr(torch.nn.Module(), stem or name)
    )
    return identifier(f"{name}_" if taken else name)


# The source of a model.

IMPORTED = frozenset({"torch", "nn", "math", "Tensor", "state", "outputs"})


def _channels_first(image: Code) -> Code:
    """Return the code of an image whose channels are after the batch, as torch needs them. If the
    code ends with the opposite move, leave this move out."""
    last = image.parts[-1]
    for move in (".movedim(1, -1)", ".permute(0, 2, 3, 1)", ".permute(0, 2, 1)"):
        if isinstance(last, str) and last.endswith(move) and image.level == fill("").level:
            return replace(image, parts=(*image.parts[:-1], last.removesuffix(move)))
    return fill("^0.movedim(-1, 1)", image)


class Writer:
    """The writer of the source file of one model."""

    def __init__(self, exported: Exported, file: str) -> None:
        self.exported, self.file = exported, file
        self.model: SourceModel = layers.model(exported.training, exported.inference)
        self.natives = native_layers(exported.training)
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
        """Return the source of the whole file."""
        forms = [line for form in self.forms.values() for line in ["", *self._form(form), ""]]
        body = [*forms, "", *self._model()]
        math = ["import math", ""] if uses(body, "math") else []
        head = [*self._docstring(), "", *math, "import torch", "from torch import Tensor, nn", ""]
        constants = document.constants(self.model, "forward", self.exported.vocabulary)
        return "\n".join([*head, *constants, *body, ""])

    def _docstring(self) -> list[str]:
        name = self.file.removesuffix(".py")
        state = ", state" if self.model.state else ""
        double = self.exported.dtype == "float64"
        call = f"outputs{state} = model({document.first_arguments(self.model)})"
        weights = f"{name}.pt"
        load = f"torch.load({literals.text(weights)}, weights_only=True)"
        return document.docstring(
            [
                f"{literals.name_text(self.exported.spec)} as a module of torch; "
                f"its weights lie in {literals.name_text(weights)}.",
                "",
                f"    model = {self.name}()",
                f"    model.load_state_dict({load})",
                "    model.eval()",
                f"    {call}",
                "",
                f"Generated by harness export. Weights are {'float64' if double else 'float32'}.",
            ]
        )

    # --- Source of layers that run as equations

    def _form(self, form: LayerForm) -> list[str]:
        lines = [f"class {self.classes[form.name]}(nn.Module):"]
        lines += [*document.docstring([self._title(form)], 1), ""]
        lines += [
            "    def __init__(self, dtype: torch.dtype) -> None:",
            "        super().__init__()",
        ]
        for role, shape in form.shapes.items():
            dtype = "torch.int64" if role in form.integers else "dtype"
            zeros = f"torch.zeros({', '.join(map(str, shape)) or '()'}, dtype={dtype})"
            if role in form.statistics:
                lines.append(
                    f"        self.register_buffer({literals.text(attribute_name(role))}, {zeros})"
                )
            else:
                lines.append(f"        self.{attribute_name(role)} = nn.Parameter({zeros})")
        for number, method in enumerate(form.methods.values(), start=1):
            lines += ["", *self._method(form, method, number)]
        return lines

    def _title(self, form: LayerForm) -> str:
        return document.form_title(self.exported.inference, form.definition, form.attributes)

    def _method(self, form: LayerForm, method: Method, number: int) -> list[str]:
        def parameter(role: str) -> str:
            return f"self.{attribute_name(role)}"

        def phase(program: Program, call: Node, results: list[int], depth: int) -> Any:
            layer_body = LayerBody(program, call, results, moves=depth == 3)
            return layer_body.emit(self.dialect, form, method, depth, parameter, set(IMPORTED))

        results, call = list(method.results), method.call
        program = self.exported.inference
        e, arguments, codes = phase(program, call, results, 2)
        values = [(r, program.types[v].shape) for r, v in form.roles(call)]
        names = call.attributes["results"]
        result_shapes = [(names[n], program.types[call.block.outputs[n]].shape) for n in results]
        shapes = document.arrow(program, values, result_shapes)
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
        return [*lines, *e.lines, *return_lines(e, codes)]

    def _training(self, form: LayerForm, method: Method, phase: Any) -> list[str]:
        """Return the source lines of a layer's equations in training, including the update of
        moving statistics. ``method`` is the method in which they are written."""
        call = method.training
        assert call is not None
        roles = call.attributes["results"]
        moved = [
            n for n, role in enumerate(roles) if role in form.moving and n not in method.results
        ]
        e, _, codes = phase(self.exported.training, call, [*method.results, *moved], 3)
        count = len(method.results)
        returned = result_text(e, codes[:count])
        for n, code in zip(moved, codes[count:], strict=True):
            e.write(f"self.{attribute_name(roles[n])} = {e.read(fill('^0.detach()', code))}")
        return [*e.lines, f"            return {returned}"]

    # --- Source of the model

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
        name = attribute_name(key)
        if key not in self.natives:
            return [f"        self.{name} = {self.classes[form.name]}(dtype)"]
        layer, native = self.natives[key]
        constructor = MODULES[layer.definition](layer)
        dtype = ", dtype=dtype" if layer.shapes else ""
        lines = [f"        self.{name} = {constructor}{dtype})"]
        for frozen in sorted(native.packing.frozen):
            text = (
                f"{literals.name_text(form.definition)} has one bias: torch's second one stays "
                "zero."
            )
            lines.append(document.comment(text, 2))
            lines.append(f"        self.{name}.{frozen}.requires_grad_(False)")
        return lines

    @property
    def _like(self) -> str:
        for key, form in self.model.instances.items():
            names = (
                self.natives[key][1].packing.pieces if key in self.natives else form.float_shapes
            )
            if names:
                return f"self.{attribute_name(key)}.{attribute_name(next(iter(names)))}"
        return "torch.zeros(())"

    def _initial_state(self) -> list[str]:
        e = forward.emitter(self.model, self.dialect, self._like, 2)
        head = "    def initial_state(self, batch: int) -> dict[str, Tensor]:"
        lines = forward.first_state(self.model, e, head)
        return ["", *lines] if lines else []

    def _forward(self) -> list[str]:
        e = forward.emitter(self.model, self.dialect, self._like, 2)
        forward_pass = forward.forward(self.model, e, self._call, IMPORTED)
        signature = ["self", *(f"{name}: Tensor" for name in forward_pass.arguments)]
        returns = "dict[str, Tensor]"
        if forward_pass.state:
            signature.append("state: dict[str, Tensor] | None = None")
            returns = "tuple[dict[str, Tensor], dict[str, Tensor]]"
        start = ["if state is None:", "    state = self.initial_state(batch)"]
        lines = bracketed(1, "def forward(", signature, f") -> {returns}:")
        return lines + forward_pass.lines(self.model, start)

    def _call(self, e: Emitter, node: Node) -> None:
        key = call_key(node)
        form, method = self.model.calls[node.attributes["label"]]
        # A torch module needs either all of its initial states or none of them.
        least = len(form.roles(node)) - 1 if key in self.natives else 0
        moves = key in self.natives and self.natives[key][0].definition in IMAGES
        codes = forward.given(e, self.model, node, least, 99 if moves else 50)
        target = f"self.{attribute_name(key)}"
        if key in self.natives:
            self._native(e, node, target, self.natives[key][0], codes)
            return
        number = list(form.methods.values()).index(method) + 1
        name = target if number == 1 else f"{target}.forward_{number}"
        places = ", ".join(f"%{n}" for n in range(len(codes)))
        results = [node.outputs[n] for n in method.results]
        forward.settle(e, results, fill(f"{name}({places})", *codes), attribute_name(key))

    def _native(
        self, e: Emitter, node: Node, target: str, layer: ClaimableCall, codes: Sequence[Code]
    ) -> None:
        word = target.removeprefix("self.")
        if len(node.outputs) == 1:
            activation = ACTIVATIONS.get(layer.attributes.get("activation", "linear"))
            call, operand = f"{target}(%0)", codes[0]
            if layer.definition in IMAGES:
                call, moved = f"{target}(%0).movedim(1, -1)", _channels_first(operand)
                if len(e.render(moved)) > 45 and len(operand.parts) > 1:
                    e.assign(node.inputs[0], operand)
                    moved = _channels_first(Code(node.inputs[:1]))
                operand = moved
            code = fill(activation.code(call) if activation else call, operand)
            e.settle(node.output, code, word)
            return
        text = e.read(codes[0])
        # torch has one array for each state, which contains all directions.
        count = len(directions(layer))
        kinds = (len(node.outputs) - 1) // count
        stacked = "^0.unsqueeze(0)" if count == 1 else "torch.stack((%0, %1))"
        states = [codes[1 + n :: kinds] for n in range(kinds if codes[1:] else 0)]
        initial_states = [e.read(fill(stacked, *ways)) for ways in states]
        if len(initial_states) == 1:
            text += f", {initial_states[0]}"
        elif initial_states:
            text += f", ({', '.join(initial_states)})"
        names = []
        for value in node.outputs:
            names.append(e.name(e.base(value) or word) if e.left[value] else "_")
            if e.left[value]:
                e.hold(value, names[-1])
        last = [names[1 + n :: kinds] for n in range(kinds)]
        ways = ["_" if set(own) == {"_"} else _comma_list(own) for own in last]
        after = "_" if set(ways) == {"_"} else _comma_list(ways)
        e.write(f"{names[0]}, {after} = {target}({text})")
        for name in names[1:]:
            if name != "_" and count == 1:
                e.write(f"{name} = {name}.squeeze(0)")


def _comma_list(names: Sequence[str]) -> str:
    return f"({', '.join(names)})" if len(names) > 1 else names[0]
