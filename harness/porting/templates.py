"""Templates of blocks: blocks that differ only in numbers share one definition.

A block is written with a mark in place of each number. Blocks with the same text are one
definition, and the numbers that differ between them become its attributes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.convert.source.literals import unique
from harness.errors import UsageError
from harness.porting.structure import ModuleBlock

MARK = re.compile("\x01(\\d+)\x02")
# An entry between \x03 and \x05 is left out if its text after the colon is the text before \x04.
OPTIONAL = re.compile("\x03(.*?)\x04(, \\w+: (.*?))\x05")


@dataclass
class Template:
    """A block's text, with marks for its numbers.

    Attributes:
        block: The block.
        numbers: The value, the hint (e.g. ``units``) and the usual value or None of each mark.
        inputs: The name of each input -> its axes.
        layers: The name of each layer -> its entry.
        parameters: The name of each trained array of the block itself -> its entry.
        constants: The name of each other array of the block itself -> its entry.
        equations: The lines of the equations.
        outputs: The names of the outputs.
        rules: The parts of ``--map`` rules: a parameter inside the block, and the model's array.
        features: The length of the first input's last axis, and its name in ``features_name``.
    """

    block: ModuleBlock
    numbers: list[tuple[Any, str, Any]] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    equations: list[str] = field(default_factory=list)
    outputs: tuple[str, ...] = ()
    rules: list[tuple[str, str]] = field(default_factory=list)
    features: Any = None
    features_name: str = ""

    def number(self, value: Any, hint: str, usual: Any = None) -> str:
        """Return a mark for a number; texts such as ``time`` stay as they are."""
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, list):
            return f"[{', '.join(self.number(v, hint) for v in value)}]"
        self.numbers.append((value, hint, usual))
        return f"\x01{len(self.numbers) - 1}\x02"

    def setting(self, name: str, value: Any, usual: Any) -> str:
        """Return ``, name: value``, which is left out if all blocks have the usual value."""
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (value, usual)):
            return "" if value == usual else f", {name}: {self.number(value, name)}"
        own = self.number(value, name, usual)
        return f"\x03{write_number(usual)}\x04, {name}: {own}\x05"

    @property
    def text(self) -> str:
        """The complete text with marks, without numbers that an attribute could replace."""
        parts = [self.block.kind]
        parts += [
            f"{n}: {v}"
            for group in (self.inputs, self.layers, self.parameters, self.constants)
            for n, v in group.items()
        ]
        return MARK.sub("#", "\n".join([*parts, *self.equations, *self.outputs]))


def write_number(value: Any) -> str:
    """Return a number as the spec language writes it; raise :class:`UsageError` for infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"the model has the number {value}, which a spec cannot have")
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        text = repr(value)
        return re.sub(r"^(-?\d+)e", r"\1.0e", text).replace("e-0", "e-").replace("e+", "e")
    return str(value)


def snake_case(name: str) -> str:
    """Return the name of a class with underscores: ``GPT2Block`` gives ``gpt2_block``, and
    ``ConvNeXtBlock`` gives ``convnext_block``."""
    starts = r"(?<=[a-z0-9])(?=[A-Z](?:[a-z]{2}|[A-Z](?![a-z])|$))|(?<=[A-Z])(?=[A-Z][a-z])"
    return re.sub(starts, "_", name).lower()


@dataclass(frozen=True)
class SharedDefinition:
    """The common definition of blocks with the same text.

    Attributes:
        template: The template of the first block.
        texts: The text that replaces each mark.
        attributes: The default of each attribute: a number, or ``size``.
        values: The name, value and default (None without a default) of the attributes, for each
            block.
    """

    template: Template
    texts: tuple[str, ...]
    attributes: Mapping[str, str]
    values: tuple[tuple[tuple[str, Any, Any], ...], ...]

    def fill(self, text: str) -> str:
        """Return a text of the template with the marks replaced."""
        filled = MARK.sub(lambda match: self.texts[int(match[1])], text)
        return OPTIONAL.sub(lambda m: "" if m[1] == m[3] else m[2], filled)


# Attributes that count something, which every use sets.
SIZES = frozenset({"units", "rows", "size", "length", "kernel", "window", "heads", "channels"})
# Units and the last axis of other inputs, which may be as long as the first input's last axis.
WIDTHS = ("units", "channels")


def share(
    templates: Sequence[Template], name_size: Callable[[Any, str], str | None] | None = None
) -> SharedDefinition:
    """Return the common definition of templates with the same text.

    ``WIDTHS`` become the name of the first input's last axis, if they are always that length. Other
    numbers that differ become attributes. Attributes with equal values are one attribute.

    ``name_size`` returns the name of a number that does not differ, from its value and hint, or
    None if it has no name.
    """
    first = templates[0]
    names: dict[tuple[Any, ...], str] = {}
    defaults: dict[str, Any] = {}
    columns: dict[str, tuple[Any, ...]] = {}
    texts: list[str] = []
    features = tuple(t.features for t in templates)
    axes = re.findall(r"\w+", MARK.sub("", next(iter(first.inputs.values()), "")))
    for place, (value, hint, usual) in enumerate(first.numbers):
        values = tuple(t.numbers[place][0] for t in templates)
        is_same = all(v == value for v in values)
        if values == features and first.features_name and (hint in WIDTHS or not is_same):
            texts.append(first.features_name)
        elif is_same:
            name = name_size(value, hint) if name_size else None
            texts.append(name or write_number(value))
        else:
            # The groups of a depthwise convolution are its units.
            key = ("units" if hint == "groups" else hint, *values)
            if key not in names:
                names[key] = unique(hint, {*columns, *axes})
                is_size = hint in SIZES and all(isinstance(v, int) for v in values)
                if not is_size:
                    defaults[names[key]] = value if usual is None else usual
                columns[names[key]] = values
            texts.append(names[key])
    attributes = {n: write_number(defaults[n]) if n in defaults else "size" for n in columns}
    rows = [
        tuple((n, column[k], defaults.get(n)) for n, column in columns.items())
        for k in range(len(templates))
    ]
    return SharedDefinition(first, tuple(texts), attributes, tuple(rows))
