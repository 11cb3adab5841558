"""The layers that a model or a layer's definition names: instances that can be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.errors import ErrorList, Place, SpecError, did_you_mean
from harness.files.complaints import KeyPath
from harness.language import schema
from harness.language.attributes import Attribute, GivenAttributes, read_attributes
from harness.language.document import Document
from harness.language.init_clauses import names_in_laws
from harness.language.instances import Instance
from harness.language.library import Library, content
from harness.language.scope import FunctionName
from harness.language.size_expressions import FREE_SIZES, names_of_sizes, read_dim
from harness.program.dims import Dim

# Layers in layers, and layers in all: a few short definitions can grow without end.
MAX_NESTED = 20
MAX_LAYERS = 10_000


@dataclass(frozen=True)
class Owner:
    """Whose layers they are: a model's, or those of a layer that is called.

    ``prefix`` begins the names of the instances; ``sizes`` and ``attributes`` are what the values
    of theirs may name.
    """

    document: Document
    prefix: str
    sizes: Mapping[str, Dim]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    inside: tuple[tuple[str, Place], ...] = ()


@dataclass
class LayerMaker:
    """Makes instances. ``numbers`` are the sizes of the model, of which ``structural`` have decided
    how many layers there are."""

    library: Library
    numbers: Mapping[str, int]
    structural: set[str] = field(default_factory=set)
    count: int = 0

    def make(self, owner: Owner, uses: Mapping[str, schema.LayerUse]) -> dict[str, Instance]:
        """The instances of a section ``layers``, by the names that equations call them by.

        Raises:
            SpecError: a definition or an attribute is unknown or wrong, a name is taken, layers
                hold themselves, or there are too many.
        """
        errors = ErrorList()
        found: dict[str, Instance] = {}
        for name, use in uses.items():
            with errors.part():
                self._check_name(owner, name)
                found[name] = self._instance(owner, name, use)
        errors.end()
        for name, use in uses.items():
            if use.shares is not None:
                _share(owner, name, use, found)
        return found

    def _check_name(self, owner: Owner, name: str) -> None:
        for kind in ("function", "loss"):
            if self.library.has(kind, name):
                at = owner.document.place_of_key(("layers", name))
                raise SpecError(f"{name!r} is taken: it is a {kind}", at)

    def _instance(self, owner: Owner, name: str, use: schema.LayerUse) -> Instance:
        at = owner.document.place_of(("layers", name, "layer"))
        inside = (*owner.inside, (use.layer, at))
        self._check_nesting(inside)
        definition = self.library.find("layer", use.layer, at)
        layer = content(definition, schema.Layer)

        def below(path: KeyPath) -> Place:
            return owner.document.place_of(("layers", name, *path))

        for parameter in use.init:
            if parameter not in layer.parameters:
                raise _no_parameter(use.layer, layer, parameter, owner.document, name)
        attributes = self.attributes(owner, name, use)
        instance = Instance(f"{owner.prefix}{name}", definition, attributes, use.init, below)
        instance.inside, instance.outer = inside, owner.attributes
        links = 1 if use.repeat is None else self._links(owner, name, use.repeat)
        self.count += links
        if self.count > MAX_LAYERS:
            raise SpecError(f"the layers come to more than {MAX_LAYERS:,}", at)
        if use.repeat is not None:
            instance.chain = True
            instance.inner = {
                str(number): replace(
                    instance,
                    name=f"{instance.name}.{number}",
                    parameters={},
                    statistics={},
                    noise=[],
                    chain=False,
                    inner={},
                )
                for number in range(links)
            }
        return instance

    def attributes(self, owner: Owner, name: str, use: schema.LayerUse) -> dict[str, Attribute]:
        """What a use gives to a layer, and the defaults of what it does not.

        Raises:
            SpecError: one is unknown, or not of its kind.
        """
        document = owner.document
        at = document.place_of(("layers", name, "layer"))
        definition = self.library.find("layer", use.layer, at)

        def place_of(attribute: str, key: bool) -> Place:
            path = ("layers", name, attribute)
            return document.place_of_key(path) if key else document.place_of(path)

        extra = use.model_extra or {}
        given = GivenAttributes(
            f"layer {use.layer!r}", extra, at, definition.document, place_of, owner.attributes
        )
        layer = content(definition, schema.Layer)
        found = read_attributes(self.library, layer.attributes, given, owner.sizes)
        for attribute, unusual in layer.unusual.items():
            value = found[attribute]
            if isinstance(value, float) and value < unusual.below:
                # A value that was handed on is given where the model uses the outermost layer.
                written = isinstance(extra.get(attribute), int | float) or not owner.inside
                place = given.at(attribute) if written else owner.inside[0][1]
                self.library.unusual[place] = (
                    f"{attribute} {value:g} of {use.layer!r} is unusual: {unusual.note}"
                )
        return found

    def _check_nesting(self, inside: tuple[tuple[str, Place], ...]) -> None:
        names = [name for name, _ in inside]
        at = inside[-1][1]
        if names[-1] in names[:-1]:
            circle = inside[names.index(names[-1]) :]
            told = " -> ".join(f"{name} ({place})" for name, place in circle)
            raise SpecError(f"a layer cannot hold itself: {told}", at)
        if len(names) > MAX_NESTED:
            raise SpecError(f"layers hold each other more than {MAX_NESTED} deep", at)

    def _links(self, owner: Owner, name: str, repeat: int | str) -> int:
        """How many layers a chain has."""
        at = owner.document.place_of(("layers", name, "repeat"))
        dim = read_dim(repeat, owner.sizes, at)
        for size in dim.names:
            if size in FREE_SIZES:
                raise SpecError(
                    f"repeat is {dim}, and {size} is decided by the arrays: there cannot be more "
                    "or fewer parameters for other arrays",
                    at,
                )
        self.structural.update(dim.names)
        links = dim.resolve(self.numbers)
        if links < 1:
            raise SpecError(f"repeat is {dim} = {links}: a chain has 1 layer or more", at)
        return links


def _share(owner: Owner, name: str, use: schema.LayerUse, found: Mapping[str, Instance]) -> None:
    """Give a layer the parameters of another one: it is from then on that one by name."""
    at = owner.document.place_of(("layers", name, "shares"))
    known = [n for n in found if n != name]
    if use.shares not in known:
        hint = did_you_mean(use.shares, known)
        raise SpecError(f"no other layer {use.shares!r} here{hint} (known: {', '.join(known)})", at)
    instance, other = found[name], found[use.shares]
    parts = (instance.layer, other.layer)
    chained = instance.chain or other.chain or other.shares is not None
    if chained or any(part.layers or part.statistics or not part.parameters for part in parts):
        raise SpecError(
            f"{use.layer} cannot share the parameters of {other.layer.layer}: both must be single "
            "layers with parameters of their own, and without statistics",
            at,
        )
    if use.init:
        raise SpecError(
            f"parameters that are shared are drawn once: give 'init' at {use.shares!r}",
            owner.document.place_of_key(("layers", name, "init")),
        )
    instance.shares, instance.name, instance.parameters = other, other.name, other.parameters


def handed(use: schema.LayerUse, attributes: Mapping[str, Attribute]) -> set[str]:
    """The attributes of a layer, no sizes, that it hands to one of its own."""
    own = {
        name for name, value in attributes.items() if isinstance(value, FunctionName | bool | float)
    }
    given = names_of_sizes((use.model_extra or {}).values())
    return own.intersection(given.union(*map(names_in_laws, use.init.values())))


def _no_parameter(
    kind: str, layer: schema.Layer, parameter: str, document: Document, name: str
) -> SpecError:
    at = document.place_of_key(("layers", name, "init", parameter))
    if layer.layers:
        own = f"own parameter {parameter!r} (known: {', '.join(layer.parameters)})"
        has = own if layer.parameters else "parameters but those of its layers"
        return SpecError(f"{kind} has no {has}: give 'init' under 'layers' in its own file", at)
    known = ", ".join(layer.parameters) or "none"
    hint = did_you_mean(parameter, layer.parameters)
    return SpecError(f"{kind} has no parameter {parameter!r}{hint} (known: {known})", at)
