"""Write a block of a traced model as a template: its inputs, layers, parameters and equations."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from keyword import iskeyword
from typing import Any

from harness.convert.source.literals import unique
from harness.errors import UsageError
from harness.language.axes import find_size_names
from harness.language.axis_attributes import common_value
from harness.porting.equations import Equations
from harness.porting.graph import ModelGraph, TracedCall
from harness.porting.structure import MOVES, ModuleBlock
from harness.porting.templates import Template, write_number

# The most entries of an array of constants that a spec declares with its entries.
MOST_ENTRIES = 256
# The axes of a block's first input, by its number of axes.
AXES = {
    2: ("batch", "features"),
    3: ("batch", "time", "features"),
    4: ("batch", "rows", "columns", "channels"),
}
# The distribution of constants whose root or logarithm a model computes, e.g. frozen variances.
POSITIVE = "{uniform: {low: 0.4, high: 1.4}}"
# A generic name of each layer, for modules without a name of their own.
GENERIC = {
    "layer_norm": "norm",
    "batch_norm": "norm",
    "sample_batch_norm": "norm",
    "rms_norm": "norm",
    "conv2d": "conv",
    "conv1d": "conv",
    "max_pool_first": "pool",
    "avg_pool": "pool",
}


@dataclass(frozen=True)
class Use:
    """The definition of a block, and the name, value and default or None of its attributes."""

    definition: str
    values: tuple[tuple[str, Any, Any], ...]


@dataclass
class SpecParts:
    """The parts of a spec that its blocks share.

    Attributes:
        graph: The graph of the whole model.
        reserved: The names of functions and sizes of the language.
        defaults: The default attributes of each layer, by its name.
        uses: The definition of each block that was written, by the block's key.
        templates: The template of each block that was written, by the block's key.
    """

    graph: ModelGraph
    reserved: frozenset[str]
    defaults: Mapping[str, Mapping[str, Any]]
    uses: dict[str, Use] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)

    @cached_property
    def sources(self) -> dict[str, TracedCall]:
        """The calls of the whole model by name."""
        return self.graph.by_name

    @cached_property
    def positive(self) -> set[str]:
        """The names of the model's arrays whose root or logarithm the model computes."""
        names, calls = set(), self.sources
        waiting = [n for c in self.graph.calls if c.op in ("sqrt", "log") for n in c.sources]
        while waiting:
            call = calls[waiting.pop()]
            if call.op == "weight":
                names.add(str(call.attributes["name"]))
            elif call.op in MOVES or (call.op == "+" and len(call.sources) == 1):
                waiting += call.sources
        return names


class BlockWriter:
    """Writes one block as a template.

    Args:
        block: The block.
        parts: The parts that all blocks of the spec share.
        names: The names of the block's inputs; None for ``x``, ``mask``...
        outputs: The names of the outputs, by the value's name; None for ``y``, ``y_2``...
    """

    def __init__(
        self,
        block: ModuleBlock,
        parts: SpecParts,
        names: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> None:
        self.block, self.parts = block, parts
        self.template = Template(block)
        self.taken: set[str] = set()
        self.layer_names: dict[tuple[str, str], str] = {}
        self.block_names: set[str] = set()
        self.tables: dict[str, str] = {}
        usual = {name: f"y_{n}" if n > 1 else "y" for n, name in enumerate(block.outputs, start=1)}
        self.given_names, self.outputs = names, outputs or usual
        self.template.outputs = tuple(self.outputs.values())
        # Layers are named first, and must not have the name of an input.
        self.taken.update([*self.outputs.values(), *(names or {}).values()])

    def write(self) -> Template:
        """Return the template of the block."""
        calls = _join_repeats(self.block.calls, self.parts.uses, set(self.outputs))
        for call in calls:
            if call.op in ("layer", "block"):
                self._layer_name(call, "")
        names = self._name_inputs()
        for call in calls:
            if call.op == "weight":
                names[call.name] = self._parameter(call)
            elif call.op == "constant":
                names[call.name] = self._constant(call)
        equations = Equations(self.template.number, names, self._layer_name)
        equations.taken = {*names.values(), *self.layer_names.values(), *self.parts.reserved}
        equations.taken |= {"y", *self.outputs.values()}
        equations.calls = {
            n: self.parts.sources[n]
            for n in (*self.block.inputs, *names)
            if n in self.parts.sources
        }
        count = Counter(name for call in calls for name in call.sources)
        results = _results(calls)
        for call in calls:
            if call.name in results:
                own = results[call.name]
                equations.add_results(own, [self.outputs.get(c.name, "") for c in own])
            elif call.op != "result":
                output = "" if call.op in ("weight", "input") else self.outputs.get(call.name, "")
                equations.add(call, count[call.name] + bool(output), output)
        self.template.equations = equations.lines
        return self.template

    def _unique(self, *names: str, block: bool = False) -> str:
        """Return the first of some names that is free; else the last one with a number.

        Exported files write ``block.conv`` as ``block_conv``, so the name of a block is not the
        start of another name.
        """
        for name in names:
            new = self._valid(name)
            inside = any(new.startswith(f"{other}_") for other in self.block_names)
            around = block and any(other.startswith(f"{new}_") for other in self.taken)
            if new not in self.taken and not inside and not around:
                break
        new = unique(new, self.taken)
        self.taken.add(new)
        return new

    def _valid(self, name: str) -> str:
        name = re.sub(r"\W", "_", name).strip("_") or "part"
        name = name if not name[:1].isdigit() else f"part_{name}"
        return f"{name}_layer" if name in self.parts.reserved or iskeyword(name) else name

    def _name_inputs(self) -> dict[str, str]:
        if self.given_names is not None:
            return dict(self.given_names)
        names: dict[str, str] = {}
        for number, name in enumerate(self.block.inputs):
            source = self.parts.sources[name]
            own = self._unique("mask" if source.kind == "boolean" else "x")
            names[name] = own
            axes = self._axes(source, number)
            if number == 0 and len(source.shape) in AXES:
                self.template.features = source.shape[-1]
                self.template.features_name = axes[-1]
            text = f"[{', '.join(axes)}]"
            kind = {"boolean": f"{{shape: {text}, boolean: true}}"}.get(source.kind, text)
            if source.kind == "index":
                kind = f"{{shape: {text}, at_most: {self.template.number(2**31 - 1, 'largest')}}}"
            self.template.inputs[own] = kind
        return names

    def _axes(self, source: TracedCall, number: int) -> list[str]:
        usual = AXES.get(len(source.shape), ())
        # Names of free sizes, which other inputs of the block may have.
        shapes = [self.parts.sources[name].shape for name in self.block.inputs]
        free = find_size_names(length for shape in shapes for length in shape)
        axes: list[str] = []
        for place, length in enumerate(source.shape):
            if isinstance(length, str):
                axes.append(length)
            elif number == 0 and usual:
                base = "channels" if usual[place] in source.shape else usual[place]
                axes.append(unique(base, {*free, *axes}))
            else:
                is_last = place == len(source.shape) - 1
                axes.append(self.template.number(length, "channels" if is_last else "length"))
        return axes

    def _parameter(self, call: TracedCall) -> str:
        name = str(call.attributes["name"])
        relative = name.removeprefix(f"{self.block.path}.") if self.block.path else name
        owner, _, leaf = relative.rpartition(".")
        if self.block.path and relative == name:
            # Equal blocks have equal names for weights that are not named after their block.
            relative = leaf = "weight"
        names = _suffixes(owner if owner and leaf == "weight" else relative)
        own = self._unique(*(names or [leaf]))
        shape = ", ".join(self.template.number(n, "length") for n in call.shape)
        if self.parts.graph.weights[name][1]:
            self.template.parameters[own] = f"{{shape: [{shape}], init: {{normal: {{std: 0.02}}}}}}"
        else:
            positive = f", init: {POSITIVE}" if name in self.parts.positive else ""
            self.template.constants[own] = f"{{shape: [{shape}]{positive}}}"
        prefix = "" if self.block.path else "own."
        self.template.rules.append((f"{prefix}{own}", name))
        return own

    def _constant(self, call: TracedCall) -> str:
        """Return the name of an array of constants, which the spec declares with its entries.

        Raises:
            UsageError: the array is large, or depends on a free size.
        """
        first, *others = call.values or ()
        fixed = all(isinstance(n, int) for n in call.shape)
        if not fixed or first.size > MOST_ENTRIES or any((v != first).any() for v in others):
            shape = ", ".join(map(str, call.shape))
            raise UsageError(
                f"{call.place}: an array [{shape}] of constants without a formula is not supported "
                f"if it has more than {MOST_ENTRIES} entries or depends on a free size: register "
                "it as a buffer of the module"
            )
        own = self._unique("constant")
        index = "" if call.kind == "float" else f", index: {int(first.max()) + 1}"
        entries = json.dumps(first.astype(int if index else float).tolist())
        value = re.sub(r"[^][, ]+", lambda match: write_number(float(match[0])), entries)
        self.template.constants[own] = f"{{shape: {[*first.shape]}{index}, value: {value}}}"
        return own

    def _layer_name(self, call: TracedCall, kind: str) -> str:
        """Return the name of the layer that a call uses; declare the layer at its first use."""
        weights = () if kind else call.attributes.get("weights", {}).values()
        owner = " ".join(map("".join, weights)) or self._owner(call)
        key = (owner, kind or str(call.attributes.get("layer", "block")))
        if call.attributes.get("layer") == "embedding":
            self.tables.setdefault(call.attributes["weights"]["table"][0], "")
        if kind or not key[0]:
            key = (call.name, key[1])
        if key not in self.layer_names:
            is_block = call.op == "block"
            name = self._unique(*self._proposed_names(call, kind), block=is_block)
            self.layer_names[key] = name
            self.block_names.update([name] * is_block)
            self._declare(call, kind, name)
        return self.layer_names[key]

    def _owner(self, call: TracedCall) -> str:
        """Return the path of the module whose weights a layer has."""
        if call.op == "block":
            block: ModuleBlock = call.attributes["block"]
            return block.path
        if "owner" in call.attributes:
            return str(call.attributes["owner"])
        weights = call.attributes.get("weights")
        if weights:
            return str(next(iter(weights.values()))[0]).rpartition(".")[0]
        path, kind = call.modules[-1] if call.modules else ("", "")
        own = str(call.attributes.get("layer", "")).lower() in kind.lower()
        return path.split("@")[0] if own else ""

    def _proposed_names(self, call: TracedCall, kind: str) -> list[str]:
        """Return names for the layer of a call, from the shortest to the most specific."""
        layer = kind or str(call.attributes.get("layer", "block"))
        if call.op == "block":
            blocks: Sequence[ModuleBlock] = call.attributes.get("blocks", ())
            block: ModuleBlock = call.attributes["block"]
            path = self._shown(block.path)
            if len(blocks) > 1 and path.rpartition(".")[2] == "0":
                path = path.rpartition(".")[0]
            usual = self.parts.uses[block.key].definition
            if len(blocks) > 1 and not usual[-1].isdigit():
                usual += "s"
            return (_suffixes(self._relative(path)) if path else []) or [usual]
        owner = "" if kind else self._owner(call)
        if not kind and self._is_tied(call) and call.modules:
            owner = call.modules[-1][0].split("@")[0]
        owner = self._shown(owner)
        relative = self._relative(owner)
        if owner and (relative != owner or not self.block.path) and (names := _suffixes(relative)):
            return names
        weights = call.attributes.get("weights")
        if weights and not kind:
            leaf = str(next(iter(weights.values()))[0]).rsplit(".", 1)[-1]
            if leaf.endswith("_weight"):
                return [leaf.removesuffix("_weight")]
        return [GENERIC.get(layer, layer)]

    def _is_tied(self, call: TracedCall) -> bool:
        weights = call.attributes.get("weights", {})
        return "W" in weights and weights["W"][0] in self.tables

    def _shown(self, path: str) -> str:
        """Return the path of a layer that names in the spec come from."""
        return self.parts.graph.names.get(path, path)

    def _relative(self, path: str) -> str:
        """Return a path without the path of the block."""
        own = self._shown(self.block.path) or self.block.path
        return path.removeprefix(f"{own}.") if own else path

    def _declare(self, call: TracedCall, kind: str, name: str) -> None:
        if kind == "dropout":
            keep = self.template.number(call.attributes["keep"], "keep")
            self.template.layers[name] = f"{{layer: dropout, keep: {keep}}}"
            return
        if call.op == "block":
            self._declare_block(call, name)
            return
        layer, settings = str(call.attributes["layer"]), call.attributes["settings"]
        weights = call.attributes["weights"]
        settings = dict(settings)
        tied = ""
        if layer == "embedding":
            self.tables[weights["table"][0]] = name
        elif layer.startswith("dense") and weights["W"][0] in self.tables:
            layer, tied = "unembedding", self.tables[weights["W"][0]]
            settings = {"rows": settings["units"]}
        usual = self.parts.defaults.get(layer, {})
        shown = [
            self.template.setting(n, common_value(v), common_value(usual.get(n)))
            for n, v in settings.items()
        ]
        entry = "".join([f"layer: {layer}", *shown, *([f", shares: {tied}"] if tied else [])])
        self.template.layers[name] = f"{{{entry}}}"
        if not tied:
            self.template.rules += [
                (f"{name}.{p}", f"{w}{turn}") for p, (w, turn) in weights.items()
            ]
        for ours, theirs in call.attributes.get("rules", ()):
            self.template.rules.append((f"{name}{ours}", theirs))

    def _declare_block(self, call: TracedCall, name: str) -> None:
        blocks: Sequence[ModuleBlock] = call.attributes.get("blocks") or (call.attributes["block"],)
        use = self.parts.uses[blocks[0].key]
        values = [self.template.setting(n, v, usual) for n, v, usual in use.values]
        count = self.template.number(len(blocks), "repeat")
        repeat = [f", repeat: {count}"] if len(blocks) > 1 else []
        self.template.layers[name] = (
            f"{{{''.join([f'layer: {use.definition}', *repeat, *values])}}}"
        )
        for number, block in enumerate(blocks):
            prefix = f"{name}.{number}" if len(blocks) > 1 else name
            inner = self.parts.templates[block.key]
            self.template.rules += [(f"{prefix}.{ours}", theirs) for ours, theirs in inner.rules]


def _suffixes(path: str) -> list[str]:
    """Return names from the end of a module's path: ``dense``, ``output_dense``..., but not from
    numbers alone."""
    parts = path.split(".")
    names = ["_".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    return [name for name in names if not name[:1].isdigit()]


def _results(calls: Sequence[TracedCall]) -> dict[str, list[TracedCall]]:
    """Return each call with several results and its ``result`` calls, by the call's name."""
    by_name = {call.name: call for call in calls}
    by_source: dict[str, list[TracedCall]] = {}
    for call in calls:
        if call.op == "result":
            (source,) = call.sources
            by_source.setdefault(source, [by_name[source]]).append(call)
    return by_source


def _join_repeats(
    calls: Sequence[TracedCall], uses: Mapping[str, Use], outputs: set[str]
) -> list[TracedCall]:
    """Join equal blocks in a row to one call; its attribute ``blocks`` has all blocks. Each block
    gets all results of the block before it as its first inputs."""
    users: dict[str, list[TracedCall]] = {}
    for call in calls:
        for name in call.sources:
            if call.op != "result":
                users.setdefault(name, []).append(call)
    results = _results(calls)
    joined: list[TracedCall] = []
    skip: set[str] = set()
    for call in calls:
        if call.name in skip:
            continue
        if call.op != "block":
            joined.append(call)
            continue
        blocks, last = [call.attributes["block"]], call
        while True:
            passed = [c.name for c in results.get(last.name, [last])]
            following = users.get(last.name, [last])[0]
            if (
                any(len(users.get(name, ())) != 1 or name in outputs for name in passed)
                or following.op != "block"
                or list(following.inputs[: len(passed)]) != passed
                or following.inputs[len(passed) :] != call.inputs[len(passed) :]
                or uses[following.attributes["block"].key] != uses[blocks[0].key]
            ):
                break
            blocks.append(following.attributes["block"])
            last = following
            skip.update(passed[1:])
            skip.add(following.name)
        attributes = {"block": blocks[0], "blocks": blocks}
        joined.append(
            replace(
                last,
                inputs=call.inputs,
                attributes=attributes,
                modules=call.modules,
                place=call.place,
            )
        )
    return joined
