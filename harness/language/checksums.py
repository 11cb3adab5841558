"""Checksums of definitions. By its checksum, a backend recognises, for example, an LSTM under any
name.

The checksum of a definition is called its meaning. Two definitions have the same meaning if they
declare the same inputs, attributes, parameters, states and statistics, and have the same equations.
The meaning does not depend on:

- comments, descriptions, defaults and initial distributions;
- the names of axes and of assigned values;
- how a formula is split into equations;
- the names of called functions (but it depends on their equations).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from harness.errors import Place, SpecError
from harness.language import schema, tree
from harness.language.attributes import Attribute
from harness.language.axes import REST, Entries, entries_of_input, read_dim, size_of
from harness.language.axis_attributes import SAME, VALID
from harness.language.axis_functions import TRUTHS
from harness.language.builtins import BUILTINS
from harness.language.definitions import MATRIX_NAMES, UPDATE_NAMES
from harness.language.document import Document, Locator
from harness.language.expressions import Locate, parse_equations, parse_expression
from harness.language.library import Definition, Library, content
from harness.language.optimizer_schema import Matrices, Optimizer, ShapedSlot
from harness.language.scope import FunctionName
from harness.program.dims import Dim
from harness.program.ir import Meaning

# Descriptions of parts of definitions that do not depend on names: numbered axes and checksums.

# Number of hexadecimal digits of a checksum, enough to avoid collisions by chance.
DIGITS = 16
Names = dict[str, str]  # the checksum of the value of each name in equations
Shapes = Mapping[str, object]


def checksum_of(*parts: Any) -> str:
    """Return the checksum (hexadecimal digits) of ``parts``: names, numbers and other checksums."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:DIGITS]


class Axes:
    """The axes of a definition's inputs.

    Axis names are replaced by numbers in the order in which they first occur, e.g. ``[batch,
    units]`` by ``[0, 1]``, so that a checksum does not depend on the names.
    """

    def __init__(self, attributes: Mapping[str, object]) -> None:
        self.dims = {n: Dim.of(n) for n, default in attributes.items() if default == "size"}
        # A shape may also contain the names of whole-number attributes.
        self.numbers = {n: Dim.of(n) for n in attributes if n not in self.dims}

    def inputs(self, inputs: Shapes) -> list[tuple[str, Any]]:
        """Return pairs (name, description) for the inputs. The description has numbers in place of
        the names of axes, and the bound of an index."""
        return [(name, self._input(declaration)) for name, declaration in inputs.items()]

    def _input(self, declaration: Any) -> Any:
        if isinstance(declaration, schema.Input):
            entries = entries_of_input(declaration)
            index = None if entries.size is None else self._axis(entries.size)
            more_parts = (
                [entries.kind, entries.more]
                if declaration.index is None and entries != Entries()
                else []
            )
            return [self._axis(axis) for axis in declaration.shape], index, *more_parts
        return (
            declaration
            if isinstance(declaration, str)
            else ([self._axis(axis) for axis in declaration], None)
        )

    def _axis(self, axis: int | str) -> str:
        if isinstance(axis, int) or axis == REST:
            return str(axis)
        return str(self.dims.setdefault(axis, Dim.of(f"#{len(self.dims)}")))

    def shape(self, axes: Sequence[int | str], document: Document) -> list[str]:
        """Return a declared shape with numbers in place of the names of axes, e.g. ``["#0",
        "#1"]``."""
        at = document.place_of(())
        sizes = {**self.numbers, **self.dims}
        return [a if a == REST else str(read_dim(a, sizes, at, _opaque)) for a in axes]

    def names(self) -> Names:
        """Return a dictionary from the name of each size in equations to a checksum."""
        return {name: checksum_of("size", str(dim)) for name, dim in self.dims.items()}


def _opaque(left: Dim, right: Dim) -> Dim:
    """Return a symbolic size that stands for the quotient of two sizes, named
    ``(left)/(right)``."""
    return Dim.of(f"({left})/({right})")


def attribute_kinds(attributes: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return pairs of an attribute's name and its kind: ``size``, ``truth``, ``function`` or
    ``number``. The kind follows from the attribute's default."""

    def kind(default: Any) -> str:
        if default == "size" or isinstance(default, bool):
            return "truth" if isinstance(default, bool) else "size"
        if isinstance(default, list):
            return "sides" * isinstance(default[0], list) + f"axes {len(default)}"
        return "function" if isinstance(default, str) else "number"

    return sorted((name, kind(default)) for name, default in attributes.items())


# Keys of the equations of a layer without a scan.
EQUATION_KEYS = ("equations", "training", "inference")


def meaning(library: Library, kind: str, name: str, attributes: Mapping[str, Attribute]) -> Meaning:
    """Return the identity (meaning) of a definition: the name by which backends recognise it, its
    checksum, and the names of the functions that its attributes choose, e.g. an activation."""
    functions = {
        attribute: known_name(library, "function", value.function)
        for attribute, value in attributes.items()
        if isinstance(value, FunctionName) and value.function not in BUILTINS
    }
    return Meaning(known_name(library, kind, name), checksum(library, kind, name), functions)


def pseudo_layer_meaning(layer: Meaning) -> Meaning:
    """Return the identity (meaning) of a pseudo-layer: a layer without equations, which has only
    the parameters and noise that ``layer`` itself declares."""
    return Meaning(f"parameters of {layer.name}", checksum_of("held", layer.checksum), {})


def known_name(library: Library, kind: str, name: str) -> str:
    """Return the name by which backends recognise a definition.

    If a shipped definition has the same checksum (meaning), this is the name of the shipped
    definition. Otherwise it is the definition's own name; the checksum is added if a shipped
    definition has the same name.
    """
    if not library.folders and not library.overrides and not library.local:
        return name  # all definitions are shipped; do not read them all, which takes 0.1 s
    shipped, own_checksum = _shipped(kind), checksum(library, kind, name)
    same_meaning = [
        shipped_name
        for shipped_name, shipped_checksum in shipped.items()
        if shipped_checksum == own_checksum
    ]
    if same_meaning:
        return name if name in same_meaning else same_meaning[0]
    return f"{name}@{own_checksum}" if name in shipped else name


def checksum(library: Library, kind: str, name: str) -> str:
    """Return the checksum of a definition, which includes the functions that it calls.

    Raises:
        SpecError: the definition, or a function that it calls, cannot be read.
    """
    key = (kind, name)
    if key not in library.checksums:
        library.reading.append(name)
        try:
            library.checksums[key] = _DefinitionHasher(library).hash_definition(
                library.find(kind, name)
            )
        finally:
            library.reading.pop()
    return library.checksums[key]


@cache
def _shipped(kind: str) -> Mapping[str, str]:
    library = Library()
    return {name: checksum(library, kind, name) for name in library.names(kind)}


class _DefinitionHasher:
    """A calculator of the checksums of definitions. It computes the checksum of an expression from
    the checksums of the names in the expression."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def hash_definition(self, definition: Definition) -> str:
        spec, document = definition.content, definition.document
        if isinstance(spec, schema.Layer):
            return self._hash_layer(spec, document)
        if isinstance(spec, schema.Loss):
            return self._hash_loss(spec, document)
        if isinstance(spec, Optimizer):
            return self._hash_optimizer(spec, document)
        function = content(definition, schema.Function)
        arguments = {n: checksum_of("argument", number) for number, n in enumerate(function.inputs)}
        return self.hash_function(definition, arguments)

    def _hash_layer(self, spec: schema.Layer, document: Document) -> str:
        axes = Axes(spec.attributes)
        inputs = axes.inputs(spec.inputs)
        groups = [
            sorted(
                (name, axes.shape(names_given.shape, document), *_condition(names_given))
                for name, names_given in group.items()
            )
            for group in (spec.parameters, spec.state, spec.statistics)
        ]
        names_given = _name_checksums("attribute", spec.attributes) | axes.names()
        names_given |= self._hash_layers(spec, axes, document)
        noise = sorted((n, axes.shape(g.shape, document), g.law) for n, g in spec.noise.items())
        constants = sorted(
            (
                name,
                axes.shape(c.shape, document),
                c.index and axes.shape([c.index], document),
                c.value,
            )
            for name, c in spec.constants.items()
        )
        for group in (
            *(spec.inputs, spec.parameters, spec.state, spec.noise, spec.statistics),
            spec.constants,
        ):
            names_given |= _name_checksums("given", group)
        carried = [*spec.state, *spec.statistics]
        texts = {form: getattr(spec, form) for form in EQUATION_KEYS}
        if spec.scan is not None:
            texts = {"step": spec.scan.step}
            names_given |= _slice_checksums(spec.scan)
        names_given |= self._hash_scans(spec, names_given, document)
        results = []
        for form, text in texts.items():
            if text is not None:
                path = ("scan", form) if spec.scan else (form,)
                names = self.hash_equations(
                    parse_equations(text, document.locator(path)), names_given
                )
                results.append((form, [names[name] for name in (*spec.outputs, *carried)]))
        later = [part for part in (noise, constants) if part]
        return checksum_of(
            "layer", inputs, attribute_kinds(spec.attributes), groups, carried, results, *later
        )

    def _hash_scans(self, spec: schema.Layer, outer_names: Names, document: Document) -> Names:
        """Return a dictionary from name to checksum, for the output of each loop of a layer and for
        the states after each loop. ``outer_names`` has the checksums of names that the loops can
        read."""
        checksums: Names = {}
        for name, scan in spec.scans.items():
            steps = parse_equations(scan.step, document.locator(("scans", name, "step")))
            after = self.hash_equations(steps, {**outer_names, **_slice_checksums(scan)})
            carried = [(state, after[state]) for state in scan.carries]
            checksums[name] = checksum_of("steps", after[scan.output], carried)
            checksums |= {
                state: checksum_of("last", state, checksums[name]) for state in scan.carries
            }
        return checksums

    def _hash_layers(self, spec: schema.Layer, axes: Axes, document: Document) -> Names:
        """Return a dictionary from the name of each nested layer to a checksum of its definition
        and attributes."""
        checksums = {}
        for name, use in spec.layers.items():
            at = document.place_of(("layers", name))
            if use.layer in self.library.reading:
                circle = " -> ".join([*self.library.reading, use.layer])
                raise SpecError(f"a layer cannot contain itself: {circle}", at)
            declared = content(self.library.find("layer", use.layer, at), schema.Layer).attributes
            values = {**declared, **(use.model_extra or {})}
            kinds = sorted(declared.items())
            attribute_parts = [
                (n, self._hash_attribute(values[n], kind, spec, axes, at)) for n, kind in kinds
            ]
            links = use.repeat and str(read_dim(use.repeat, axes.dims, at))
            own_checksum = checksum(self.library, "layer", use.layer)
            shared = () if use.shares is None else (use.shares,)
            checksums[name] = checksum_of(
                "layer", name, own_checksum, attribute_parts, links, *shared
            )
        return checksums

    def _hash_attribute(
        self, value: Any, default: Any, spec: schema.Layer, axes: Axes, at: Place
    ) -> str:
        if isinstance(value, list):
            return repr([self._hash_attribute(v, default, spec, axes, at) for v in value])
        sizes = {**axes.numbers, **axes.dims}
        if value in (SAME, VALID):
            return repr(value)
        if default == "size":
            return str(read_dim(value, sizes, at))
        if not isinstance(value, str):
            return repr(value)
        if value in spec.attributes:
            return checksum_of("attribute", value)
        if not isinstance(default, str):
            return str(size_of(parse_expression(value, Locator(at)), sizes))
        return repr(value) if value in BUILTINS else checksum(self.library, "function", value)

    def _hash_loss(self, spec: schema.Loss, document: Document) -> str:
        axes = Axes(spec.attributes)
        inputs = axes.inputs(spec.inputs)
        names_given = _name_checksums("attribute", spec.attributes) | axes.names()
        names_given |= _name_checksums("given", spec.inputs)
        scanned: list[Any] = []
        if spec.scan is not None:
            states = {n: axes.shape(state.shape, document) for n, state in spec.state.items()}
            starts = [(n, shape, spec.state[n].init) for n, shape in sorted(states.items())]
            slices = {n: checksum_of("slice", source) for n, source in spec.scan.over.items()}
            step = parse_equations(spec.scan.step, document.locator(("scan", "step")))
            names_given |= _name_checksums("given", states)
            after = self.hash_equations(step, names_given | slices)
            names_given |= {name: checksum_of("last", after[name]) for name in states}
            scanned = [starts, sorted((name, after[name]) for name in states)]
        equations = parse_equations(spec.equations, document.locator(("equations",)))
        names = self.hash_equations(equations, names_given)
        return checksum_of(
            "loss", inputs, attribute_kinds(spec.attributes), names[spec.output], *scanned
        )

    def _hash_optimizer(self, spec: Optimizer, document: Document) -> str:
        names_given = _name_checksums("attribute", spec.attributes)
        names_given |= _name_checksums("given", (*UPDATE_NAMES, *spec.slots))
        for name, text in spec.total.items():
            part = parse_expression(text, document.locator(("total", name)))
            names_given[name] = checksum_of("total", self.hash_expression(part, names_given))
        parts: list[Any] = [*self._hash_update(spec, names_given, document.locator(("update",)))]
        if spec.matrices is not None:
            names_given |= _name_checksums("size", MATRIX_NAMES)
            names_given |= _name_checksums("given", spec.matrices.slots)
            locate = document.locator(("matrices", "update"))
            parts += self._hash_update(spec.matrices, names_given, locate)
        return checksum_of("optimizer", attribute_kinds(spec.attributes), *parts)

    def _hash_update(
        self, spec: Optimizer | Matrices, names_given: Names, locate: Locate
    ) -> tuple[Any, Any]:
        names = self.hash_equations(parse_equations(spec.update, locate), names_given)
        slots = [(n, s.shape if isinstance(s, ShapedSlot) else s) for n, s in spec.slots.items()]
        return sorted(slots), [(name, names[name]) for name in ("p", *sorted(spec.slots))]

    def hash_equations(self, equations: Iterable[tree.Assignment], names_given: Names) -> Names:
        """Return a dictionary from name to checksum, for the names that equations assign and for
        the names in ``names_given``."""
        names = dict(names_given)
        for equation in equations:
            value = self.hash_expression(equation.value, names)
            for number, target in enumerate(equation.targets):
                names[target.id] = checksum_of("result", number, value) if number else value
        return names

    def hash_expression(self, expr: tree.Expr, names: Names) -> str:
        """Return the checksum of an expression. ``names`` has the checksums of the names in the
        expression."""
        match expr:
            case tree.Number(value):
                return checksum_of("number", float(value))
            case tree.Negate(tree.Number(value)):
                return checksum_of("number", -float(value))
            case tree.Negate(operand) | tree.Invert(operand):
                return checksum_of(
                    "-" if isinstance(expr, tree.Negate) else "~",
                    self.hash_expression(operand, names),
                )
            case tree.Name(name):
                return names[name] if name in names else self._hash_literal(TRUTHS.get(name, name))
            case tree.Binary(operator, left, right):
                return checksum_of(
                    operator, self.hash_expression(left, names), self.hash_expression(right, names)
                )
            case tree.Compare(operator, left, right):
                if operator in (">", ">="):
                    operator, left, right = operator.replace(">", "<"), right, left
                return checksum_of(
                    operator, self.hash_expression(left, names), self.hash_expression(right, names)
                )
            case tree.Index(inner, items):
                item_parts = [self._hash_item(item, names) for item in items]
                return checksum_of("index", self.hash_expression(inner, names), item_parts)
            case tree.List(items):
                return checksum_of("list", *(self.hash_expression(item, names) for item in items))
            case tree.Rest():
                return checksum_of("...")
            case tree.Call():
                return self._hash_call(expr, names)

    def _hash_item(self, item: tree.Item, names: Names) -> Any:
        if isinstance(item, tree.IndexItem) and not isinstance(item.value, int):
            return "at", self.hash_expression(item.value, names)
        if not isinstance(item, tree.SliceItem):
            return item
        ends = [
            None if end is None else self.hash_expression(end, names)
            for end in (item.start, item.stop)
        ]
        return ends, item.step

    def _hash_call(self, expr: tree.Call, names: Names) -> str:
        arguments = [self.hash_expression(argument, names) for argument in expr.arguments]
        if expr.function in names or expr.function in BUILTINS:
            function = names.get(expr.function, expr.function)
            keywords = sorted(
                (name, self.hash_expression(value, names)) for name, value in expr.keywords
            )
            return checksum_of("call", function, *arguments, keywords)
        definition = self.library.find("function", expr.function)
        inputs = content(definition, schema.Function).inputs
        named = {name: self.hash_expression(value, names) for name, value in expr.keywords}
        return self.hash_function(definition, dict(zip(inputs, arguments, strict=False)) | named)

    def _hash_literal(self, value: bool | float | str) -> str:
        """Return the checksum of a number, boolean or text that an attribute has in equations."""
        if isinstance(value, bool):
            return checksum_of("truth", value)
        if isinstance(value, float | int):
            return checksum_of("number", float(value))
        if self.library.has("function", value):
            return checksum(self.library, "function", value)
        return checksum_of("word", value)

    def hash_function(self, definition: Definition, arguments: Names) -> str:
        """Return the checksum of a function's call. ``arguments`` maps each argument to its
        checksum. If an attribute is missing in ``arguments``, it has its default."""
        spec, locate = content(definition, schema.Function), definition.document.locator
        axes = Axes(spec.attributes)
        inputs = axes.inputs(spec.inputs)
        equations = parse_equations(spec.equations, locate(("equations",)))
        defaults = {name: self._hash_literal(value) for name, value in spec.attributes.items()}
        names = self.hash_equations(equations, axes.names() | defaults | arguments)
        # Include the shapes of the inputs, on which the axes of `axis=...` depend.
        shapes = [shape for _, shape in inputs]
        return checksum_of("function", shapes, names[spec.output])


def _condition(declared: object) -> tuple[str, ...]:
    """Return the name of the attribute that decides whether a layer has a parameter (key ``when``),
    as a tuple with one name; () if there is no such attribute."""
    when = declared.when if isinstance(declared, schema.LayerParameter) else None
    return () if when is None else (when,)


def _slice_checksums(scan: schema.Scan) -> Names:
    way = () if (scan.axis, scan.reverse) == (1, False) else (scan.axis, scan.reverse)
    return {name: checksum_of("slice", source, *way) for name, source in scan.over.items()}


def _name_checksums(kind: str, names: Iterable[str]) -> Names:
    """Return a dictionary from name to checksum, for names that equations can read. ``kind`` says
    what the names are, e.g. attributes."""
    return {name: checksum_of(kind, name) for name in names}
