"""Guesses about how a user's own model differs from the spec. A guess is a single change of the
spec. The guess is right if the changed spec gives the same results as the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, permutations

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.checking.first_difference import RIGHT_IF, hypotheses
from harness.checking.own_model.checks import ModelContext
from harness.errors import SpecError
from harness.language.library import Library
from harness.language.model import Spec
from harness.oracle.case import Case
from harness.oracle.oracle import Oracle
from harness.program.ir import Node, Phase, Program, walk_nodes
from harness.program.signature import local_of, noise_ports, owner_of
from harness.runtime.answers import Arguments
from harness.runtime.session import Session

# Changes of the spec's programs that may explain the results of a user's model.

Programs = tuple[Program, ...]
# A function that takes a program, and returns a function that replaces a node by other nodes.
Change = Callable[[Program], Callable[[Node], Sequence[Node]]]
COMPARISONS = ("less", "less_equal")
SCALING = {"multiply": "product with", "divide": "division by"}
# Guesses do not change definitions in these folders, because their constants belong to a known
# function.
FUNCTIONS = ("functions/", "losses/")


def alter_programs(programs: Programs) -> Iterator[tuple[str, Programs]]:
    """Yield changed programs, with a description of each change. A change affects all nodes that
    come from the same line of a spec file. The change shifts a comparison by one, e.g. in a mask,
    or omits a constant factor, e.g. the scale of attention."""
    program = programs[0]
    for place, op in _find_places(program, lambda node: node.op in COMPARISONS):
        for shift, word in ((1.0, "more"), (-1.0, "less")):
            text = f"the comparison includes one value {word} in {place}"
            yield text, _change_programs(programs, place, op, _shift_comparison(shift))
    factors = _find_factors(program)
    for place, op in _find_places(program, lambda n: n.op in SCALING and n.output in factors):
        text = f"the {SCALING[op]} a constant is omitted in {place}"
        yield text, _change_programs(programs, place, op, _drop_factor)


def replace_constant(
    programs: Programs, own: float, other: float, layers: Collection[str]
) -> Programs:
    """Return the programs with the constant ``other`` instead of ``own`` in some layers."""

    def replace_node(node: Node) -> Sequence[Node]:
        if node.op != "constant" or node.attributes.get("value") != own:
            return (node,)
        return (replace(node, attributes={**node.attributes, "value": other}),)

    return tuple(
        _map_nodes(program, replace_node, lambda call: call.attributes.get("instance") in layers)
        for program in programs
    )


def _find_places(program: Program, accepts: Callable[[Node], bool]) -> dict[tuple[str, str], None]:
    """Return the ``file:line`` and the operation of all nodes that a test accepts, in order and
    without duplicates."""
    nodes = (node for node in walk_nodes(program.nodes) if len(node.outputs) == 1 and accepts(node))
    return dict.fromkeys(
        (node.place, node.op)
        for node in nodes
        if node.place and not any(f in node.place for f in FUNCTIONS)
    )


def _find_factors(program: Program) -> dict[int, int]:
    """Find all products and quotients of a value and a constant. Return: number of the result ->
    number of the value that is scaled."""
    numbers: set[int] = set()
    scaled: dict[int, int] = {}
    for node in walk_nodes(program.nodes):
        if node.body is not None:
            continue
        if all(value in numbers for value in node.inputs):  # or there are no inputs
            numbers.update(value for value in node.outputs if not program.types[value].shape)
        elif node.op in SCALING:
            left, right = node.inputs
            if right in numbers:
                scaled[node.output] = left
            elif left in numbers and node.op == "multiply":
                scaled[node.output] = right
    return scaled


def _shift_comparison(shift: float) -> Change:
    """Make a change that adds a number to the right side of a comparison ``left < right``."""

    def change(program: Program) -> Callable[[Node], Sequence[Node]]:
        new = count(max(program.types) + 1)

        def change_node(node: Node) -> Sequence[Node]:
            number, total = next(new), next(new)
            left, right = node.inputs
            return (
                Node("constant", (), (number,), {"value": shift}),
                Node("add", (right, number), (total,)),
                replace(node, inputs=(left, total)),
            )

        return change_node

    return change


def _drop_factor(program: Program) -> Callable[[Node], Sequence[Node]]:
    factors = _find_factors(program)

    def change_node(node: Node) -> Sequence[Node]:
        value = factors.get(node.output)
        if value is None:
            return (node,)
        axes = tuple(range(len(program.types[value].shape)))
        return (replace(node, op="permute_dims", inputs=(value,), attributes={"axes": axes}),)

    return change_node


def _change_programs(programs: Programs, place: str, op: str, change: Change) -> Programs:
    def change_program(program: Program) -> Program:
        change_node = change(program)
        return _map_nodes(
            program, lambda n: change_node(n) if (n.place, n.op) == (place, op) else (n,)
        )

    return tuple(map(change_program, programs))


def _map_nodes(
    program: Program,
    change: Callable[[Node], Sequence[Node]],
    within: Callable[[Node], bool] | None = None,
) -> Program:
    """Change each node of a program, including nodes in loops. With ``within``, change only nodes
    inside calls that ``within`` accepts."""

    def map_node(node: Node, inside: bool) -> Sequence[Node]:
        if node.body is None:
            return change(node) if inside else (node,)
        inside = inside or (within is not None and within(node))
        return (replace(node, body=replace(node.body, nodes=map_all(node.body.nodes, inside))),)

    def map_all(nodes: Sequence[Node], inside: bool) -> tuple[Node, ...]:
        return tuple(new for node in nodes for new in map_node(node, inside))

    return replace(program, nodes=map_all(program.nodes, within is None))


@dataclass(frozen=True)
class Hint:
    """A text about a difference, and the layers and the attribute that the text names, if any."""

    text: str
    layers: Sequence[str] = ()
    attribute: str = ""

    def with_prefix(self, text: str) -> Hint:
        """Return the hint with ``text`` as an additional first sentence."""
        return replace(self, text=f"{text}. {self.text}" if self.text else text)

    @classmethod
    def of_attribute(
        cls,
        attribute: str,
        layers: Sequence[str],
        other: float,
        own: float,
        start: str = RIGHT_IF,
    ) -> Hint:
        """Make the hint that an attribute of some layers has the value ``other`` instead of
        ``own``. ``start`` is the start of the text."""
        layers_text = " and ".join(layers) if len(layers) <= FEW else f"{len(layers)} layers"
        subject = f"{attribute} of {layers_text}"
        words = f"{start} {subject} is {other:.4g} instead of the spec's {own:.4g}"
        return cls(words, layers, attribute)


# A hint about a possible difference, and a function that returns the spec's results with this
# difference.
Guess = tuple[Hint, Callable[[], ArrayDict]]
# If more layers than this have the same value of an attribute, a hint gives the number of layers
# instead of their names, and the layers are not tried one by one.
FEW = 4
# Values of epsilon that frameworks and papers use.
EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12)
# Pairs of functions that are often confused: the spec's function, and the function of the model.
CONFUSED = (
    *permutations(("gelu", "gelu_tanh"), 2),
    *permutations(("sigmoid", "hard_sigmoid_fifth", "hard_sigmoid_sixth"), 2),
    *permutations(("relu", "gelu", "silu", "leaky_relu"), 2),
    *permutations(("rotary", "rotary_interleaved"), 2),
)
# The update gate, which multiplies the old state in some frameworks, and the candidate state in
# others.
UPDATE_GATE = "z"


def guesses(context: ModelContext) -> Iterator[Guess]:
    """Yield all guesses, starting with the likeliest."""
    material = context.material(context.case.material)
    programs = (context.case.training, context.case.inference)
    session = _make_session(programs)

    def with_parameters(parameters: ArrayDict) -> Callable[[], ArrayDict]:
        return partial(_run_inference, session, replace(material, parameters=parameters))

    def with_programs(changed: Programs) -> Callable[[], ArrayDict]:
        return lambda: _run_inference(_make_session(changed), material)

    if (swapped := _swap_batch_and_time(programs[1], material)) is not None:
        words = "The model iterates over the batch, but the spec iterates over time"
        hint = Hint(f"{words}: its recurrent layers may need batch_first=True")
        yield hint, lambda: _swap_axes(_run_inference(session, swapped))
    for layer, text, parameters in _alter_parameters(material.parameters):
        yield Hint(f"{RIGHT_IF} {text}", (layer,)), with_parameters(parameters)
    for text, changed in chain(_replace_functions(context.case), alter_programs(programs)):
        yield Hint(f"{RIGHT_IF} {text}"), with_programs(changed)
    for own, layers in sorted(_find_epsilons(programs[1]).items()):
        # Change epsilon in all layers with the same value, then in each of these layers alone.
        alone = [(layer,) for layer in layers] if len(layers) <= FEW else []
        for group in dict.fromkeys([layers, *alone]):
            for other in EPSILONS:
                if other != own:
                    changed = replace_constant(programs, own, other, group)
                    yield Hint.of_attribute("epsilon", group, other, own), with_programs(changed)


def guesses_of_module(
    program: Program, parameters: ArrayDict, layers: Collection[str]
) -> Iterator[tuple[Hint, Program, ArrayDict]]:
    """Yield guesses about the layers that one module computes: a hint, the changed program, and the
    parameters that change."""

    def is_inside(layer: str) -> bool:
        return any(f"{layer}.".startswith(f"{outer}.") for outer in layers)

    start = "Its output is right if"
    for own, all_layers in _find_epsilons(program).items():
        inside = tuple(filter(is_inside, all_layers))
        for other in EPSILONS if inside else ():
            if other != own:
                (changed,) = replace_constant((program,), own, other, inside)
                yield Hint.of_attribute("epsilon", inside, other, own, start), changed, {}
    own_parameters = {n: a for n, a in parameters.items() if is_inside(owner_of(n))}
    for layer, text, arrays in _alter_parameters(own_parameters):
        yield Hint(f"{start} {text}", (layer,)), program, arrays
    for text, (changed,) in alter_programs((program,)):
        yield Hint(f"{start} {text}", tuple(layers)), changed, {}


def _alter_parameters(parameters: ArrayDict) -> Iterator[tuple[str, str, ArrayDict]]:
    """Yield mistakes with parameters: the layer, a description, and the changed parameters."""
    yield from hypotheses(parameters)
    for layer, negated in _negate_gates(parameters):
        text = f"1 - {UPDATE_GATE} replaces {UPDATE_GATE} in {layer}"
        text += ": the gate can multiply the old state or the candidate state"
        yield layer, text, negated


def _replace_functions(case: Case) -> Iterator[tuple[str, Programs]]:
    """Yield guesses that the model uses a different function: a description, and the programs with
    this function."""
    spec, sizes = case.spec, case.training.sizes
    model_sizes = {n: v for n, v in sizes.items() if n in spec.model.sizes}
    for own, other in CONFUSED:
        if not spec.library.is_cached("function", own):
            continue
        folders = spec.library.folders
        lines = Library(folders).find("function", other).document.lines
        text = "\n".join(lines).replace(f"function: {other}", f"function: {own}", 1)
        overrides = {**spec.library.overrides, ("function", own): text}
        try:
            changed = Spec(Library(folders, overrides), spec.definition)
        except SpecError:  # the other function has no such attribute, or rejects these shapes
            continue
        phases: tuple[Phase, Phase] = ("training", "inference")
        yield f"{other} replaces {own}", tuple(changed.program(p, **model_sizes) for p in phases)


def _make_session(programs: Programs) -> Session:
    return Session(Oracle(), *programs, path="equations", dtype="float64")


def _run_inference(session: Session, material: Arguments) -> ArrayDict:
    session.load(material.parameters, material.statistics)
    return session.forward("inference", material.inputs, material.state)


def _swap_batch_and_time(program: Program, material: Arguments) -> Arguments | None:
    """Swap the first two axes of each input. Return None if these axes are not batch and time in
    all inputs, or if the model has a state."""
    for port in program.inputs:
        dims = [str(dim) for dim in program.type_of(port).shape[:2]]
        if dims != ["batch", "time"] and port not in noise_ports(program):
            return None
    if material.state or not material.inputs:
        return None
    return replace(material, inputs=_swap_axes(material.inputs))


def _swap_axes(arrays: ArrayDict) -> ArrayDict:
    return {n: np.swapaxes(a, 0, 1) if a.ndim > 1 else a for n, a in arrays.items()}


def _negate_gates(parameters: ArrayDict) -> Iterator[tuple[str, ArrayDict]]:
    """Yield each layer that has an update gate, and parameters that turn this gate ``z`` into ``1 -
    z``. These are the negated parameters of the gate, because sigmoid(-x) is 1 - sigmoid(x)."""
    layers: dict[str, list[str]] = {}
    for name in parameters:
        if local_of(name).rpartition("_")[2] == UPDATE_GATE:
            layers.setdefault(owner_of(name), []).append(name)
    for layer, names in layers.items():
        negated: dict[str, Array] = {n: -parameters[n] for n in names}
        yield layer, {**parameters, **negated}


def _find_epsilons(program: Program) -> dict[float, tuple[str, ...]]:
    layers_by_epsilon: dict[float, tuple[str, ...]] = {}
    for node in walk_nodes(program.nodes):
        attributes = node.attributes.get("attributes", {}) if node.op == "call" else {}
        value, layer = attributes.get("epsilon"), node.attributes.get("instance")
        if isinstance(value, float) and layer and layer not in layers_by_epsilon.get(value, ()):
            layers_by_epsilon[value] = (*layers_by_epsilon.get(value, ()), str(layer))
    return layers_by_epsilon
