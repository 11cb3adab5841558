"""Generated Keras layers for layers and operations that Keras does not have."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from keyword import iskeyword

from harness.extend import ClaimableCall, Program, UsageError
from harness.extend.program import (
    Block,
    Node,
    free_values,
    inline_calls,
    is_constant,
    local_of,
    owner_of,
)
from harness.extend.source import (
    INDENT,
    Idioms,
    bracketed,
    document,
    identifier,
    literals,
    unique,
)

from .image_source import image_lines
from .primitives_export import LACKING
from .sizes import find_axis, free_sizes
from .source import RESERVED, CallWriter, registered


@dataclass(frozen=True)
class Custom:
    """A call of a layer, or a single operation, that Keras does not have. The export generates the
    source of a Keras layer class for it.

    - ``arguments`` and ``weights`` map the number of a value in the program to its name in the
      source.
    - ``attributes`` maps the name of a weight to the name of the class's attribute, and ``shapes``
      to the weight's shape.
    - ``trained`` has the names of the weights that are trained.
    - ``nodes`` are all operations on which ``outputs`` depend, including constants.
    - ``results`` are the numbers of the outputs in the whole program.
    - ``image`` is the source of a convolution or pool, which replaces that of ``nodes``.
    """

    program: Program
    summary: str
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    results: tuple[int, ...]
    arguments: Mapping[int, str]
    weights: Mapping[int, str]
    attributes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    trained: frozenset[str]
    integers: frozenset[str]
    image: Sequence[str] | None = None

    def start(self) -> list[str]:
        """Return the source lines of the constructor, which creates the weights."""
        if not self.shapes:
            return []
        weight_lines = [line for local in self.shapes for line in self._weight(local)]
        head = [f"{INDENT}def __init__(self, **kwargs):", f"{INDENT * 2}super().__init__(**kwargs)"]
        return [*head, *weight_lines, ""]

    def method(self, name: str) -> list[str]:
        """Return the source lines of the method ``name``, which computes the equations."""
        arguments = ", ".join(["self", *self.arguments.values()])
        writer = CallWriter(self.program, self.arguments, self.weights)
        body = self.image or writer.write(self.nodes, self.outputs)
        lines = [f"{INDENT * 2}{line}" if line else "" for line in body]
        return [f"{INDENT}def {name}({arguments}):", *lines]

    def shape(self) -> list[str]:
        """Return the source lines of the method that computes the output shape; empty if the class
        needs no such method.

        The method is needed only if a weight is sliced and the output has the shape of an argument.
        Without the method, Keras on torch calls the layer with inputs of length 83 to find the
        output shape, and the weight may be shorter.
        """
        types, output_types = self.program.types, [self.program.types[v] for v in self.outputs]
        alike = [name for value, name in self.arguments.items() if [types[value]] == output_types]
        if not alike or not any(
            n.op == "slice" and n.inputs[0] in self.weights for n in self.nodes
        ):
            return []
        arguments_text = ", ".join(f"{name}_shape" for name in self.arguments.values())
        head = f"{INDENT}def compute_output_shape(self, {arguments_text}):"
        return ["", head, f"{INDENT * 2}return {alike[0]}_shape"]

    def _weight(self, local: str) -> list[str]:
        options = [f"name={literals.text(local)}", f"shape={self.shapes[local]!r}"]
        options += ['initializer="zeros"', *['dtype="int32"'] * (local in self.integers)]
        options += ["trainable=False"] * (local not in self.trained)
        return bracketed(2, f"self.{self.attributes[local]} = self.add_weight(", options, ")")


def class_text(name: str, forms: Sequence[Custom]) -> str:
    """Return the source of the layer class ``name``, with the code that registers it in Keras.

    ``forms`` are the different calls of the layer in the model. If there are several (e.g. with
    different axes), the class takes a list of tensors and the number of the call in ``forms``.
    """
    first = forms[0]
    lines = [f"class {name}(keras.layers.Layer):", *document.docstring([first.summary], 1), ""]
    lines += first.start()
    if len(forms) == 1:
        return registered("\n".join([*lines, *first.method("call"), *first.shape()]) + "\n")
    names = [f"form_{number}" for number in range(1, len(forms) + 1)]
    listed = ", ".join(f"self.{method}" for method in names)
    lines += [f"{INDENT}def call(self, inputs, form):"]
    lines += [f"{INDENT * 2}return [{listed}][form - 1](*inputs)"]
    for form, method in zip(forms, names, strict=True):
        lines += ["", *form.method(method)]
    return registered("\n".join(lines) + "\n")


def custom(
    program: Program, node: Node, constants: Iterable[Node], reserved: Container[str]
) -> Custom:
    """Return ``node``, a call of a layer or an operation, as a layer to generate. Those of
    ``constants`` (operations that compute constants) that it needs are included. ``reserved`` are
    the attribute names that every Keras layer has.

    Raises:
        UsageError: the node needs the length of an axis that no input has.
    """
    instance = node.attributes.get("instance")
    roles = dict(zip(node.attributes.get("roles", ()), node.inputs, strict=False))
    own = {
        local_of(port.name): port
        for port in (*program.parameters, *program.statistics)
        if owner_of(port.name) == instance
    }
    frozen = {name: port for name, port in own.items() if port in program.statistics}
    moving = [port for port in frozen.values() if not is_constant(port)]
    results = node.outputs[: len(node.outputs) - len(moving)]
    before = [constant for constant in constants if constant is not node]
    names = _local_names(program, node)
    idioms = Idioms(dict(program.types), names=names, lacking=LACKING)
    nodes, outputs = idioms.block([*before, *inline_calls([node])], results)
    program = replace(program, types=idioms.types, names=names)
    attributes = _attributes(own, reserved)
    weights = {roles[local]: name for local, name in attributes.items()}
    return Custom(
        program,
        _summary(program, node),
        nodes,
        outputs,
        results,
        _arguments(program, nodes, outputs, roles, weights),
        weights,
        attributes,
        {local: program.shape(port) for local, port in own.items()},
        frozenset(own.keys() - frozen.keys()),
        frozenset(n for n, port in frozen.items() if program.type_of(port).kind == "index"),
        image_lines(ClaimableCall.of(program, node), attributes) if node.op == "call" else None,
    )


def _attributes(own: Iterable[str], reserved: Container[str]) -> dict[str, str]:
    """Return a dictionary from each weight to a unique attribute name, which is not in
    ``reserved``."""
    attribute_names: dict[str, str] = {}
    for name in own:
        is_taken = name in reserved or iskeyword(name) or name.startswith(("weight_", "form_"))
        attribute_names[name] = identifier(f"weight_{name}" if is_taken else name)
    return attribute_names


def _local_names(program: Program, node: Node) -> dict[int, str]:
    """Return the names of values inside the layer, by value number. The names do not contain the
    layer's name, so they are the same in all calls of the layer."""
    label = f"{node.attributes.get('label')}/"
    return {v: n.removeprefix(label) for v, n in program.names.items() if n.startswith(label)}


def _summary(program: Program, node: Node) -> str:
    if node.op != "call":
        return f"One operation, {node.op}, on a number or on the length of an axis."
    about = node.attributes
    return document.form_title(program, about["definition"], about["attributes"])


def _arguments(
    program: Program,
    nodes: tuple[Node, ...],
    outputs: tuple[int, ...],
    roles: Mapping[str, int],
    weights: Mapping[int, str],
) -> dict[int, str]:
    """Return the names of the arguments of a generated layer, by value number.

    The arguments are the values from outside of the layer. An equation may need the length of an
    axis that is unknown when the layer is built. Then an input of the model with such an axis is an
    argument too.

    Raises:
        UsageError: no input has an axis of a length that the equations need.
    """
    values = [v for v in free_values(Block((), nodes, outputs)) if v not in weights]
    outer = [port.value for port in (*program.inputs, *program.state)]
    for size in sorted(free_sizes(program, nodes)):
        if find_axis(program, values, size) is None:
            place = find_axis(program, outer, size)
            if place is None:
                raise UsageError(
                    f"{program.name} cannot become a Keras model: its equations need the length "
                    f"of {size}, but no input has an axis of this length; add an input that has"
                )
            values.append(place[0])
    # Add an input if there is none, because a Keras layer must have one.
    names = {value: role for role, value in roles.items()}
    argument_names: dict[int, str] = {}
    for value in values or outer[:1]:
        name = unique(identifier(names.get(value, "x"), RESERVED), argument_names.values())
        argument_names[value] = name
    return argument_names
