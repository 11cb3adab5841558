"""Write a simplified graph as a spec with definitions, and the ``--map`` rules of its weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from keyword import iskeyword
from typing import Any

from harness.convert.source.literals import unique
from harness.errors import SpecError, UsageError
from harness.language.axes import FREE_SIZES
from harness.language.builtins import BUILTINS
from harness.language.model import load_spec
from harness.porting.block_writer import BlockWriter, SpecParts, Use
from harness.porting.graph import ModelGraph, TracedCall
from harness.porting.loops import name_definitions
from harness.porting.size_names import SizeNames
from harness.porting.structure import LOCAL, ModuleBlock, find_blocks, replace_calls
from harness.porting.templates import SharedDefinition, Template, share, snake_case
from harness.runtime.own_model.names import OUTPUT_SUFFIX

# The number of different integers in an input's declaration.
BELOW = r"(?<=index: )\d+"


@dataclass(frozen=True)
class PortedSpec:
    """A spec that was written from a user's model.

    Attributes:
        text: The spec as YAML.
        rules: The rules of ``--map``: the spec's parameter, and the model's array.
        definitions: The name of each definition in the spec.
        sizes: The named sizes.
        used: The names of the shipped layers, functions and operators in the spec. A layer such as
            ``gru_reset_after`` also has the parts of its name, e.g. ``gru``.
    """

    text: str
    rules: tuple[tuple[str, str], ...]
    definitions: tuple[str, ...]
    sizes: Mapping[str, int]
    used: frozenset[str]


def write_spec(
    graph: ModelGraph,
    name: str,
    inputs: Mapping[str, str],
    about: Mapping[str, str],
    functions: Iterable[str],
    layers: Mapping[str, Mapping[str, Any]],
) -> PortedSpec:
    """Return the spec of a simplified graph.

    Args:
        graph: The graph.
        name: The model's name.
        inputs: The YAML of each input's declaration.
        about: The texts ``summary`` and ``source``.
        functions: The names of the shipped functions, which no layer may have.
        layers: The default attributes of each shipped layer. No definition may have its name.
    """

    def write(config: Mapping[str, int]) -> PortedSpec:
        own = replace(graph, config=config)
        return _write_spec(own, name, inputs, about, functions, layers)

    spec = write(graph.config)
    # A named size may also be a length that is written as a number, such as an input's last axis.
    names = [n for n in graph.config if n in spec.sizes]
    fewer = [{n: v for n, v in graph.config.items() if n != left_out} for left_out in names]
    for config in [*fewer, {}] if names else ():
        if _loads(spec.text, name):
            break
        spec = write(config)
    return spec


def _loads(text: str, name: str) -> bool:
    """Return whether a spec has no error."""
    try:
        load_spec(name, overrides={("model", name): text}).program("inference")
    except SpecError:
        return False
    return True


def _write_spec(
    graph: ModelGraph,
    name: str,
    inputs: Mapping[str, str],
    about: Mapping[str, str],
    functions: Iterable[str],
    layers: Mapping[str, Mapping[str, Any]],
) -> PortedSpec:
    own = frozenset({*BUILTINS, *graph.sizes, "time", "batch"})
    new_names = _output_names([*graph.outputs], [*inputs], own)
    reserved = own | {*functions}
    calls, loops = name_definitions(graph.calls, layers)
    returned = {new_names[name]: value for name, value in graph.outputs.items()}
    graph = replace(graph, calls=calls, outputs=returned)
    layers = {**{name: {} for name in loops}, **layers}
    writer = _Writer(graph, reserved, layers)
    blocks = find_blocks(graph)
    root = writer.share_blocks(blocks)
    if once := writer.used_once(root):
        writer = _Writer(graph, reserved, layers)
        root = writer.share_blocks(_splice(blocks, once))
    names = {c.name: str(c.attributes["name"]) for c in graph.calls if c.op == "input"}
    outputs: dict[str, str] = {}
    for output, value in graph.outputs.items():
        if value not in names:
            outputs.setdefault(value, output)
    whole = writer.write(root, names, outputs)
    # Outputs that are inputs, or that have the value of another output.
    copies = {n: v for n, v in graph.outputs.items() if outputs.get(v) != n}
    whole.equations += [f"{n} = {names.get(v) or outputs[v]}" for n, v in copies.items()]
    own_names = (whole.inputs, whole.layers, whole.parameters, whole.constants, graph.outputs)
    words = re.findall(r"\w+", "\n".join(whole.equations))
    size_names = SizeNames(graph.config, reserved.union(inputs, words, *own_names))
    shared = share([whole], size_names.find)
    lines = [f"model: {name}", *(f"{n}: {_quoted(t)}" for n, t in about.items()), "inputs:"]
    lines += [
        f"  {n}: {re.sub(BELOW, lambda m: size_names.find(int(m[0]), 'rows') or m[0], declared)}"
        for n, declared in inputs.items()
    ]
    sections = _sections(shared)
    named = {n: lengths[0] for n, lengths in graph.sizes.items() if n not in FREE_SIZES}
    named |= size_names.used
    lines += size_lines(named)
    lines += [*sections, f"outputs: [{', '.join(graph.outputs)}]"]
    lines += _definitions(writer.definitions, loops)
    names_of_definitions = (*loops, *writer.definitions)
    layers_used = {str(c.attributes["layer"]) for c in graph.calls if c.op == "layer"}
    variants = {part for layer in layers_used for part in _name_parts(layer)}
    used = frozenset({*variants, *(c.op for c in graph.calls)})
    rules = tuple(compress(whole.rules))
    return PortedSpec("\n".join(lines) + "\n", rules, names_of_definitions, named, used)


def size_lines(sizes: Mapping[str, int]) -> list[str]:
    """Return the line of a spec that declares its sizes, if there are any."""
    listed = ", ".join(f"{name}: {length}" for name, length in sizes.items())
    return [f"sizes: {{{listed}}}"] if sizes else []


def _name_parts(name: str) -> set[str]:
    words = name.split("_")
    return {"_".join(words[a:b]) for a, b in combinations(range(len(words) + 1), 2)}


def _output_names(
    outputs: Sequence[str], inputs: Sequence[str], reserved: frozenset[str]
) -> dict[str, str]:
    """Return the spec's name of each output. If a spec cannot have the model's name, such as
    ``mean``, the name gets the suffix ``_output``, which ``check --against`` knows.

    Raises:
        UsageError: the name with the suffix is no name, or another output has it.
    """
    taken = reserved | {*inputs}
    names = {
        name: f"{name}{OUTPUT_SUFFIX}" if name in taken or iskeyword(name) else name
        for name in outputs
    }
    wrong = [
        name
        for name, new in names.items()
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", new) or (new != name and new in names)
    ]
    if wrong:
        raise UsageError(
            f"a spec cannot have outputs with these names: {', '.join(map(repr, wrong))}. Let the "
            "model return them under other keys"
        )
    return names


class _Writer:
    """Writes blocks from the inside out; blocks with the same text share one definition."""

    def __init__(
        self, graph: ModelGraph, reserved: frozenset[str], layers: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.parts = SpecParts(graph, reserved, layers)
        self.definitions: dict[str, SharedDefinition] = {}

    def write(
        self,
        block: ModuleBlock,
        names: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> Template:
        """Return a block's template."""
        return BlockWriter(block, self.parts, names, outputs).write()

    def share_blocks(self, root: ModuleBlock) -> ModuleBlock:
        """Define all inner blocks; return the root without the blocks that occur only once."""
        height = 1
        while True:
            blocks = [b for b in _inner_blocks(root) if _height(b) == height]
            if not blocks:
                return root
            single = self._define(blocks)
            root = _splice(root, single)
            # Blocks around a block that was spliced have another height now.
            height = 1 if single else height + 1

    def used_once(self, root: ModuleBlock) -> set[str]:
        """Return the keys of the blocks whose definition has a single use, in one definition."""
        places = [root, *(shared.template.block for shared in self.definitions.values())]
        used = Counter(
            self.parts.uses[call.attributes["block"].key].definition
            for place in places
            for call in place.calls
            if call.op == "block"
        )
        return {key for key, use in self.parts.uses.items() if used[use.definition] == 1}

    def _define(self, blocks: Sequence[ModuleBlock]) -> set[str]:
        """Define the blocks that occur twice; return the keys of the others."""
        groups: dict[str, list[Template]] = {}
        for block in blocks:
            if block.key in self.parts.uses:
                continue
            template = self.write(block)
            groups.setdefault(template.text, []).append(template)
        single: set[str] = set()
        for group in groups.values():
            if len({t.block.path for t in group}) == 1:
                single.update(t.block.key for t in group)
                continue
            shared = share(group)
            name = self._definition_name(group[0].block.kind)
            self.definitions[name] = shared
            for template, values in zip(group, shared.values, strict=True):
                key = template.block.key
                self.parts.uses[key] = Use(name, values)
                self.parts.templates[key] = template
        return single

    def _definition_name(self, kind: str) -> str:
        base = snake_case(kind)
        base = base.strip("_") or "block"
        return unique(base, {*self.definitions, *self.parts.defaults})


def _inner_blocks(block: ModuleBlock) -> list[ModuleBlock]:
    inner_blocks: list[ModuleBlock] = []
    for call in block.calls:
        if call.op == "block":
            inner: ModuleBlock = call.attributes["block"]
            inner_blocks += [*_inner_blocks(inner), inner]
    return inner_blocks


def _height(block: ModuleBlock) -> int:
    return 1 + max(
        (_height(c.attributes["block"]) for c in block.calls if c.op == "block"), default=0
    )


def _splice(block: ModuleBlock, keys: set[str]) -> ModuleBlock:
    """Return a block with the calls of some inner blocks in the place of these blocks."""
    new: dict[str, Sequence[TracedCall]] = {}
    spliced: set[str] = set()
    for call in block.calls:
        if call.op == "result" and call.inputs[0] in spliced:
            new[call.name] = ()
        elif call.op == "block":
            inner = _splice(call.attributes["block"], keys)
            own = [replace(call, attributes={"block": inner})]
            new[call.name] = own if inner.key not in keys else inner.calls
            spliced.update([call.name] if inner.key in keys else ())
    result = replace_calls(block, new)
    calls = {call.name: call for call in result.calls}
    # Calls without inputs come first.
    return replace(result, calls=tuple(sorted(calls.values(), key=lambda c: c.op not in LOCAL)))


def _sections(shared: SharedDefinition) -> list[str]:
    template = shared.template
    lines: list[str] = []
    for title, entries in (
        ("constants", template.constants),
        ("parameters", template.parameters),
        ("layers", template.layers),
    ):
        if entries:
            lines += [
                f"{title}:",
                *(f"  {n}: {shared.fill(entry)}" for n, entry in entries.items()),
            ]
    equations = [shared.fill(line) for line in template.equations]
    return [*lines, *_equations(equations)]


def _equations(lines: Sequence[str]) -> list[str]:
    if len(lines) == 1 and ": " not in lines[0]:
        return [f"equations: {lines[0]}"]
    return ["equations: |", *(f"  {line}" for line in lines)]


def _inputs(entries: Mapping[str, str]) -> list[str]:
    if len(entries) == 1:
        return [f"inputs: {{{', '.join(f'{n}: {axes}' for n, axes in entries.items())}}}"]
    return ["inputs:", *(f"  {n}: {axes}" for n, axes in entries.items())]


def _definitions(
    definitions: Mapping[str, SharedDefinition], loops: Mapping[str, Sequence[str]]
) -> list[str]:
    lines: list[str] = ["definitions:"] if definitions or loops else []
    for name, own in loops.items():
        lines += [f"  - layer: {name}", *(f"    {line}" for line in own)]
    for name, shared in definitions.items():
        template = shared.template
        body = [
            f"layer: {name}",
            f"summary: {_quoted(f'{template.block.kind}, from {template.block.path}.')}",
            "source: The traced model.",
        ]
        body += _inputs({n: shared.fill(axes) for n, axes in template.inputs.items()})
        if shared.attributes:
            body.append(
                f"attributes: {{{', '.join(f'{n}: {v}' for n, v in shared.attributes.items())}}}"
            )
        outputs = ", ".join(template.outputs)
        output = f"[{outputs}]" if len(template.outputs) > 1 else outputs
        body += [*_sections(shared), f"output: {output}"]
        lines += [f"  - {body[0]}", *(f"    {line}" for line in body[1:])]
    return lines


def _quoted(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][\w ,.()/+-]*", text)
    return text if plain and ": " not in text else "'" + text.replace("'", "''") + "'"


def compress(rules: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return fewer rules: one with ``*`` for rules that differ in the same number on both sides."""
    rules = list(rules)
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for ours, theirs in rules:
        groups.setdefault(_starred(ours, theirs), []).append((ours, theirs))
    return [
        star if len(group) > 1 and "*" in star[0] else rule
        for star, group in groups.items()
        for rule in (group if "*" not in star[0] else group[:1])
    ]


def _starred(ours: str, theirs: str) -> tuple[str, str]:
    """Return a rule with ``*`` for the block's number, if both sides have the same number once."""
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", ours)
    if len(numbers) != 1:
        return ours, theirs
    pattern = rf"(?<=\.){numbers[0]}(?=\.)"
    if len(re.findall(r"(?<=\.)\d+(?=\.)", theirs)) != 1 or not re.search(pattern, theirs):
        return ours, theirs
    return re.sub(pattern, "*", ours), re.sub(pattern, "*", theirs)
