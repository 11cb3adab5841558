"""Instances of layers in a model. An instance gets its parameters when the model first calls it,
and shares them between all its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.errors import ErrorList, Place, SpecError, did_you_mean, several
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.attributes import Attribute, AttributeSettings, read_attributes
from harness.language.axes import FREE_SIZES, find_size_names, read_dim, read_dims
from harness.language.axis_attributes import flatten, is_dims
from harness.language.constants import read_constant
from harness.language.document import Document
from harness.language.library import Definition, Library, content
from harness.language.noise import is_random, mean_of, read_noise_distribution
from harness.language.parameter_distributions import (
    DistributionAttributes,
    Initial,
    attribute_names_in,
    read_distribution,
)
from harness.language.scope import BoundValue, Missing, Scope, select_sizes
from harness.program.builder import Builder
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Phase, Port, Type


@dataclass
class Instance:
    """A layer of a model: its definition, its attributes, and after the first call, its parameters.

    - ``init``: initial distributions that the model sets in place of the definition's.
    - ``place_of``: returns positions in the section of the model that declares the layer.
    - ``noise``: the noise inputs of all calls; every call has separate noise.
    - ``inner``: the nested layers, created at the first call. If ``chain`` is true (key
      ``repeat``), they are the repeated layers, each applied to the output of the previous one.
    - ``inside``: the enclosing definitions, and the position at which each is used.
    - ``outer``: the attributes of the enclosing layer, whose names may occur in ``init``.
    - ``shares``: the layer that owns the parameters. Calls are counted as calls of that layer.
    """

    name: str
    definition: Definition
    attributes: dict[str, Attribute]
    init: Mapping[str, Initial]
    place_of: Callable[[KeyPath], Place]
    parameters: dict[str, Port] = field(default_factory=dict)
    statistics: dict[str, Port] = field(default_factory=dict)
    constants: dict[str, Port] = field(default_factory=dict)
    noise: list[Port] = field(default_factory=list)
    calls: int = 0
    chain: bool = False
    inner: dict[str, Instance] = field(default_factory=dict)
    inside: tuple[tuple[str, Place], ...] = ()
    shares: Instance | None = None
    outer: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def layer(self) -> schema.Layer:
        """The content of the layer's definition."""
        return content(self.definition, schema.Layer)

    @property
    def declared_parameters(self) -> dict[str, schema.LayerParameter]:
        """The declarations of the layer's parameters by name, without those whose attribute
        ``when`` is false."""
        declared = self.layer.parameters.items()
        return {n: p for n, p in declared if self.attributes.get(p.when or "", True) is True}

    @property
    def sizes(self) -> dict[str, Dim]:
        """The attributes that are sizes, e.g. ``units``, as a dictionary from name to dimension."""
        return {n: a for n, a in self.attributes.items() if isinstance(a, Dim)}


def leaf_layers(instances: Iterable[Instance]) -> Iterator[Instance]:
    """Yield the layers that own parameters or noise, or that have no nested layers.

    Nested layers are searched too; a layer comes before the layers nested in it. If a layer uses
    the parameters of another layer (key ``shares``), it is skipped.
    """
    for instance in instances:
        if instance.shares is not None:
            continue
        if not instance.inner or instance.parameters or instance.constants or instance.noise:
            yield instance
        yield from leaf_layers(instance.inner.values())


@dataclass
class LayerCall:
    """A call of a layer that is being evaluated. ``values`` maps inputs and states to value
    numbers. ``means`` maps each noise array to the mean that replaces it in inference. ``scope``
    has the names that the equations can read."""

    instance: Instance
    place: Place
    label: str
    values: dict[str, int]
    scope: Scope
    sizes: dict[str, Dim]
    means: dict[str, float] = field(default_factory=dict)

    def dims(self, section: str, name: str, axes: list[int | str]) -> Shape:
        """Return the declared shape of a parameter, state or noise array, with the sizes of this
        call."""
        document = self.instance.definition.document
        path = (section, name, "shape")
        sizes = {**select_sizes(self.instance.attributes), **self.sizes}
        self.scope.used.update(find_size_names(axes))
        lists = {n: a for n, a in self.instance.attributes.items() if is_dims(a)}
        return read_dims(
            axes, sizes, self.scope.rest, lambda number: document.place_of((*path, number)), lists
        )


def make_variables(call: LayerCall, builder: Builder, places: dict[int, Place]) -> None:
    """Create the parameters, statistics and constants of a layer at its first call. At later calls,
    check that their shapes fit. ``places`` maps value numbers to positions in the spec, and is
    extended."""
    instance = call.instance
    parameters = instance.declared_parameters
    for name, known in instance.layer.parameters.items():
        if name not in parameters:
            call.scope.used.update(find_size_names(known.shape))
            call.scope.names[name] = Missing()
        call.scope.used.update(filter(None, [known.when]))
    sections: tuple[tuple[str, Mapping[str, schema.Parameter], dict[str, Port]], ...] = (
        ("parameters", parameters, instance.parameters),
        ("statistics", instance.layer.statistics, instance.statistics),
    )
    for section, declared, ports in sections:
        for name, parameter in declared.items():
            shape = call.dims(section, name, parameter.shape)
            # The names in the distribution are used even if the parameter exists already.
            call.scope.used.update(attribute_names_in(parameter.init))
            full = f"{instance.name}.{name}"
            if instance.shares is not None and name not in ports:
                raise _sharing_error(call, instance.shares, name)
            if name in ports:
                existing = builder.types[ports[name].value].shape
                _check_shared(full, existing, shape, places[ports[name].value], call.place)
                continue
            _check_no_free_sizes(full, shape, call.place)
            value = builder.value(Type(shape), full)
            places[value] = call.place
            ports[name] = Port(
                full, value, _initial_distribution(call, section, name, parameter, shape)
            )
    _check_blocks(call, builder)
    for name, constant in instance.layer.constants.items():
        _make_constant(call, name, constant, builder, places)


def _make_constant(
    call: LayerCall,
    name: str,
    declared: schema.ConstantArray,
    builder: Builder,
    places: dict[int, Place],
) -> None:
    instance, full = call.instance, f"{call.instance.name}.{name}"
    shape = call.dims("constants", name, declared.shape)
    _check_no_free_sizes(full, shape, call.place)
    sizes = {**select_sizes(instance.attributes), **call.sizes}
    call.scope.used.update(find_size_names([str(declared.index)]))
    usable = DistributionAttributes(instance.attributes, call.scope.used)
    type_, init = read_constant(declared, name, shape, sizes, usable, instance.definition.document)
    if name in instance.constants:
        value = instance.constants[name].value
        _check_shared(full, builder.types[value].shape, shape, places[value], call.place)
        return
    value = builder.value(type_, full)
    places[value] = call.place
    instance.constants[name] = Port(full, value, init)


def make_noise(
    call: LayerCall, builder: Builder, places: dict[int, Place], phase: Phase
) -> dict[str, int]:
    """Create the noise of a call, and bind its name in the call's scope. In training, noise becomes
    new inputs of the program, whose value numbers are returned by name. In inference, or if all
    draws are equal, it is the mean of its distribution.

    Raises:
        SpecError: a distribution or a shape is wrong.
    """
    instance, document = call.instance, call.instance.definition.document
    new_inputs: dict[str, int] = {}
    prefix = instance.name + (f".{instance.calls}" if instance.calls > 1 else "")
    for name, declared in instance.layer.noise.items():
        at = document.place_of(("noise", name, "law"))
        law = read_noise_distribution(declared, instance.attributes, call.scope.used, at)
        shape = call.dims("noise", name, declared.shape)
        if phase == "inference" or not is_random(law):
            call.means[name] = mean_of(law)
            value = builder.filled(call.means[name], shape)
        else:
            value = builder.value(Type(shape), f"{prefix}.{name}")
            instance.noise.append(Port(f"{prefix}.{name}", value, law))
            new_inputs[name] = value
        places[value] = call.place
        call.scope.names[name] = BoundValue(value)
    return new_inputs


def _sharing_error(call: LayerCall, owner: Instance, name: str) -> SpecError:
    if name in owner.declared_parameters:
        return SpecError(
            f"{owner.name} owns the parameters of this layer: call it before this layer",
            call.place,
        )
    known = ", ".join(owner.declared_parameters) or "none"
    return SpecError(
        f"{owner.layer.layer} has no parameter {name!r} to share (it has {known})",
        call.instance.place_of(("shares",)),
    )


def _initial_distribution(
    call: LayerCall, section: str, name: str, parameter: schema.Parameter, shape: Shape
) -> dict[str, object]:
    """Return the initial distribution of a parameter as a dictionary, see
    :func:`.read_distribution`. If the model sets a distribution, it replaces the definition's. The
    parameter is then not drawn together with others, i.e. it has no ``block``."""
    instance = call.instance
    if section == "parameters" and name in instance.init:
        model_init, at = instance.init[name], instance.place_of(("init", name))
        return read_distribution(
            model_init, shape, None, call.sizes, DistributionAttributes(instance.outer), at
        )
    at = instance.definition.document.place_of((section, name, "init"))
    block = f"{instance.name}.{parameter.block}" if parameter.block else None
    usable = DistributionAttributes(instance.attributes, call.scope.used)
    return read_distribution(parameter.init, shape, block, call.sizes, usable, at)


def _check_shared(full: str, existing: Shape, shape: Shape, first: Place, place: Place) -> None:
    if existing != shape:
        raise SpecError(
            f"{full} is shared: its shape is {shape_text(existing)} in the call at {first}, and "
            f"{shape_text(shape)} here",
            place,
        )


def _check_no_free_sizes(full: str, shape: Shape, place: Place) -> None:
    for dim in shape:
        for name in dim.names:
            if name in FREE_SIZES:
                raise SpecError(
                    f"{full} would have shape {shape_text(shape)}: a parameter's shape cannot "
                    f"depend on {name}, which the input arrays decide",
                    place,
                )


def _check_blocks(call: LayerCall, builder: Builder) -> None:
    instance = call.instance
    first: dict[str, Shape] = {}
    for name, parameter in instance.declared_parameters.items():
        if parameter.block is None:
            continue
        shape = builder.types[instance.parameters[name].value].shape
        first_shape = first.setdefault(parameter.block, shape)
        if not shape or shape[:-1] != first_shape[:-1]:
            raise SpecError(
                f"block {parameter.block!r} holds {shape_text(first_shape)} and "
                f"{shape_text(shape)}: only the last axis may differ",
                instance.definition.document.place_of(("parameters", name, "block")),
            )


# Creation of instances for the layers that a model or the definition of a layer declares.

# Limits of nesting and of the number of layers, because a few short definitions can produce a huge
# model.
MAX_NESTED = 20
MAX_LAYERS = 10_000


@dataclass(frozen=True)
class Owner:
    """A model or layer with a ``layers`` section, which declares layers.

    ``prefix`` starts the names of these layers, e.g. ``blocks.0.``. In the section, attributes may
    be set to names in ``sizes`` and ``attributes``. ``inside`` has the enclosing definitions, and
    the position at which each is used.
    """

    document: Document
    prefix: str
    sizes: Mapping[str, Dim]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    inside: tuple[tuple[str, Place], ...] = ()


@dataclass
class LayerMaker:
    """A factory of layer instances. ``numbers`` maps each size of the model to its number.
    ``structural`` collects the sizes that determine how many layers there are, e.g. the value of
    ``repeat``. ``count`` is the number of layers made so far."""

    library: Library
    numbers: Mapping[str, int]
    structural: set[str] = field(default_factory=set)
    count: int = 0

    def make_layers(self, owner: Owner, uses: Mapping[str, schema.LayerUse]) -> dict[str, Instance]:
        """Create the instances of the layers in a ``layers`` section. Return a dictionary from name
        to instance.

        Raises:
            SpecError: a definition or attribute is unknown or wrong, a name is taken, a layer
                contains itself, or there are too many layers.
        """
        errors = ErrorList()
        instances: dict[str, Instance] = {}
        for name, use in uses.items():
            with errors.part():
                self._check_name(owner, name)
                instances[name] = self._make_instance(owner, name, use)
        errors.end()
        for name, use in uses.items():
            if use.shares is not None:
                _share_parameters(owner, name, use, instances)
        return instances

    def _check_name(self, owner: Owner, name: str) -> None:
        for kind in ("function", "loss"):
            if self.library.has(kind, name):
                at = owner.document.place_of_key(("layers", name))
                raise SpecError(f"{name!r} is already the name of a {kind}", at)

    def _make_instance(self, owner: Owner, name: str, use: schema.LayerUse) -> Instance:
        at = owner.document.place_of(("layers", name, "layer"))
        inside = (*owner.inside, (use.layer, at))
        self._check_nesting(inside)
        definition = self.library.find("layer", use.layer, at)
        layer = content(definition, schema.Layer)

        def place_below(path: KeyPath) -> Place:
            return owner.document.place_of(("layers", name, *path))

        for parameter in use.init:
            if parameter not in layer.parameters:
                raise _unknown_parameter_error(use.layer, layer, parameter, owner.document, name)
        attributes = self.read_layer_attributes(owner, name, use)
        instance = Instance(f"{owner.prefix}{name}", definition, attributes, use.init, place_below)
        instance.inside, instance.outer = inside, owner.attributes
        for parameter in use.init:
            if parameter not in instance.declared_parameters:
                when = layer.parameters[parameter].when
                raise SpecError(
                    f"{use.layer} has no parameter {parameter!r} if {when} is false",
                    owner.document.place_of_key(("layers", name, "init", parameter)),
                )
        length = 1 if use.repeat is None else self._chain_length(owner, name, use.repeat)
        self.count += length
        if self.count > MAX_LAYERS:
            raise SpecError(f"there are more than {MAX_LAYERS:,} layers", at)
        if use.repeat is not None:
            if len(layer.outputs) > len(layer.inputs):
                raise SpecError(
                    f"{use.layer} cannot be repeated: its outputs become the inputs of the next "
                    f"layer, but it has {several(len(layer.outputs), 'output')} and "
                    f"{several(len(layer.inputs), 'input')}; call {name!r} once for each layer",
                    owner.document.place_of_key(("layers", name, "repeat")),
                )
            instance.chain = True
            instance.inner = {
                str(number): replace(
                    instance,
                    name=f"{instance.name}.{number}",
                    parameters={},
                    statistics={},
                    constants={},
                    noise=[],
                    chain=False,
                    inner={},
                )
                for number in range(length)
            }
        return instance

    def read_layer_attributes(
        self, owner: Owner, name: str, use: schema.LayerUse
    ) -> dict[str, Attribute]:
        """Return a dictionary with the attributes of the layer ``name`` in the ``layers`` section
        of ``owner``: the values set there, and the defaults of the definition.

        Raises:
            SpecError: an attribute is unknown, or its value has the wrong kind.
        """
        document = owner.document
        at = document.place_of(("layers", name, "layer"))
        definition = self.library.find("layer", use.layer, at)

        def place_of(attribute: str, key: bool) -> Place:
            path = ("layers", name, attribute)
            return document.place_of_key(path) if key else document.place_of(path)

        extra = use.model_extra or {}
        settings = AttributeSettings(
            f"layer {use.layer!r}", extra, at, definition.document, place_of, owner.attributes
        )
        layer = content(definition, schema.Layer)
        values = read_attributes(self.library, layer.attributes, settings, owner.sizes)
        for attribute, unusual in layer.unusual.items():
            value = values[attribute]
            if isinstance(value, float) and value < unusual.below:
                # A value from an enclosing layer is reported where the model uses that layer.
                set_here = isinstance(extra.get(attribute), int | float) or not owner.inside
                place = settings.at(attribute) if set_here else owner.inside[0][1]
                self.library.unusual[place] = (
                    f"{attribute} {value:g} of {use.layer!r} is unusual: {unusual.note}"
                )
        return values

    def _check_nesting(self, inside: tuple[tuple[str, Place], ...]) -> None:
        names = [name for name, _ in inside]
        at = inside[-1][1]
        if names[-1] in names[:-1]:
            circle = inside[names.index(names[-1]) :]
            chain = " -> ".join(f"{name} ({place})" for name, place in circle)
            raise SpecError(f"a layer cannot contain itself: {chain}", at)
        if len(names) > MAX_NESTED:
            raise SpecError(f"layers are nested more than {MAX_NESTED} levels deep", at)

    def _chain_length(self, owner: Owner, name: str, repeat: int | str) -> int:
        at = owner.document.place_of(("layers", name, "repeat"))
        dim = read_dim(repeat, owner.sizes, at)
        for size in dim.names:
            if size in FREE_SIZES:
                raise SpecError(
                    f"repeat is {dim}, but {size} depends on the input arrays, and the number of "
                    "parameters cannot depend on them",
                    at,
                )
        self.structural.update(dim.names)
        length = dim.resolve(self.numbers)
        if length < 1:
            raise SpecError(f"repeat is {dim} = {length}; it must be at least 1", at)
        return length


def _share_parameters(
    owner: Owner, name: str, use: schema.LayerUse, instances: Mapping[str, Instance]
) -> None:
    """Let the layer ``name``, which has the key ``shares``, use the parameters of the layer that
    this key names. In the program, its parameters have the other layer's name."""
    at = owner.document.place_of(("layers", name, "shares"))
    other_names = [n for n in instances if n != name]
    if use.shares not in other_names:
        hint = did_you_mean(use.shares, other_names)
        raise SpecError(
            f"there is no other layer {use.shares!r}{hint} (known: {', '.join(other_names)})", at
        )
    instance, source = instances[name], instances[use.shares]
    parts = (instance.layer, source.layer)
    chained = instance.chain or source.chain or source.shares is not None
    unfit = [p for p in parts if p.layers or p.statistics or p.constants or not p.parameters]
    if chained or unfit:
        raise SpecError(
            f"{use.layer} cannot share the parameters of {source.layer.layer}: both must be single "
            "layers that own parameters and have no statistics and no constants",
            at,
        )
    if use.init:
        raise SpecError(
            f"shared parameters are initialised once: set 'init' in {use.shares!r}",
            owner.document.place_of_key(("layers", name, "init")),
        )
    instance.shares, instance.name, instance.parameters = source, source.name, source.parameters


def passed_attributes(use: schema.LayerUse, attributes: Mapping[str, Attribute]) -> set[str]:
    """Return which ``attributes`` of a layer, except sizes, are passed on to a layer nested in it.
    ``use`` is the declaration of the nested layer."""
    candidates = {name for name, value in attributes.items() if not isinstance(value, Dim)}
    occurring = find_size_names(flatten((use.model_extra or {}).values()))
    return candidates.intersection(occurring.union(*map(attribute_names_in, use.init.values())))


def _unknown_parameter_error(
    kind: str, layer: schema.Layer, parameter: str, document: Document, name: str
) -> SpecError:
    at = document.place_of_key(("layers", name, "init", parameter))
    if layer.layers:
        own_text = f"own parameter {parameter!r} (known: {', '.join(layer.parameters)})"
        missing = own_text if layer.parameters else "parameters except those of its layers"
        return SpecError(f"{kind} has no {missing}: set 'init' under 'layers' in its own file", at)
    known = ", ".join(layer.parameters) or "none"
    hint = did_you_mean(parameter, layer.parameters)
    return SpecError(f"{kind} has no parameter {parameter!r}{hint} (known: {known})", at)
