"""A model's layers as they are called: parameters are made at the first call, then shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.errors import Place, SpecError
from harness.files.complaints import KeyPath
from harness.language import schema
from harness.language.attributes import Attribute
from harness.language.declared_axes import read_dims
from harness.language.init_clauses import Initial, LawAttributes, names_in_laws, read_init
from harness.language.library import Definition, content
from harness.language.noise import mean_of, read_law
from harness.language.scope import BoundValue, Scope, as_sizes
from harness.language.size_expressions import FREE_SIZES, names_of_sizes
from harness.program.builder import Builder
from harness.program.dims import Dim, Shape, shape_text
from harness.program.ir import Phase, Port, Type


@dataclass
class Instance:
    """A layer of a model: its definition, its attributes, and its parameters once made.

    ``init`` are the laws that the model gives; ``place_of`` finds what the model says of it.
    ``noise`` are the ports of all calls, as every call is given its own.
    ``inner`` are its own layers: those of its definition, made at the first call, or, in a
    ``chain``, the links. ``inside`` are the definitions around it, and where each is used.
    ``outer`` are the attributes of the layer around it, which the laws of ``init`` may name.
    ``shares`` is the layer whose parameters it takes; it then counts as that layer's own call.
    """

    name: str
    definition: Definition
    attributes: dict[str, Attribute]
    init: Mapping[str, Initial]
    place_of: Callable[[KeyPath], Place]
    parameters: dict[str, Port] = field(default_factory=dict)
    statistics: dict[str, Port] = field(default_factory=dict)
    noise: list[Port] = field(default_factory=list)
    calls: int = 0
    chain: bool = False
    inner: dict[str, Instance] = field(default_factory=dict)
    inside: tuple[tuple[str, Place], ...] = ()
    shares: Instance | None = None
    outer: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def layer(self) -> schema.Layer:
        """The definition's content."""
        return content(self.definition, schema.Layer)

    @property
    def sizes(self) -> dict[str, Dim]:
        """The attributes that are sizes."""
        return {n: a for n, a in self.attributes.items() if isinstance(a, Dim)}


def leaves(instances: Iterable[Instance]) -> Iterator[Instance]:
    """The layers that hold parameters, in order: those that are made of no others, or have
    parameters or noise beside them, before those inside."""
    for instance in instances:
        if instance.shares is not None:
            continue
        if not instance.inner or instance.parameters or instance.noise:
            yield instance
        yield from leaves(instance.inner.values())


@dataclass
class LayerCall:
    """One call of a layer while its equations are evaluated. ``means`` are what noise is in
    inference, by its name."""

    instance: Instance
    place: Place
    label: str
    values: dict[str, int]
    scope: Scope
    sizes: dict[str, Dim]
    means: dict[str, float] = field(default_factory=dict)

    def dims(self, section: str, name: str, axes: list[int | str]) -> Shape:
        """The declared shape of a parameter or state, in this call."""
        document = self.instance.definition.document
        path = (section, name, "shape")
        known = {**as_sizes(self.instance.attributes), **self.sizes}
        self.scope.used.update(names_of_sizes(axes))
        return read_dims(
            axes, known, self.scope.rest, lambda number: document.place_of((*path, number))
        )


def make_variables(call: LayerCall, builder: Builder, places: dict[int, Place]) -> None:
    """Make the parameters and statistics, or check that shared ones fit this call too."""
    instance = call.instance
    for section, ports in (
        ("parameters", instance.parameters),
        ("statistics", instance.statistics),
    ):
        declared: Mapping[str, schema.Parameter] = getattr(instance.layer, section)
        for name, parameter in declared.items():
            shape = call.dims(section, name, parameter.shape)
            # A later call, and a use with a law of its own, have no need of what the law names.
            call.scope.used.update(names_in_laws(parameter.init))
            full = f"{instance.name}.{name}"
            if instance.shares is not None and name not in ports:
                raise _not_yet(call, instance.shares, name)
            if name in ports:
                made = builder.types[ports[name].value].shape
                _check_shared(full, made, shape, places[ports[name].value], call.place)
                continue
            _check_fixed(full, shape, call.place)
            value = builder.value(Type(shape), full)
            places[value] = call.place
            ports[name] = Port(full, value, _initial(call, section, name, parameter, shape))
    _check_blocks(call, builder)


def make_noise(
    call: LayerCall, builder: Builder, places: dict[int, Place], phase: Phase
) -> list[int]:
    """Bring noise into scope: inputs of the program, anew for every call, and in inference its
    mean. Returns the inputs, in order.

    Raises:
        SpecError: a law or a shape is wrong.
    """
    instance, document, made = call.instance, call.instance.definition.document, []
    prefix = instance.name + (f".{instance.calls}" if instance.calls > 1 else "")
    for name, declared in instance.layer.noise.items():
        at = document.place_of(("noise", name, "law"))
        law = read_law(declared, instance.attributes, call.scope.used, at)
        shape = call.dims("noise", name, declared.shape)
        if phase == "inference":
            call.means[name] = mean_of(law)
            value = builder.filled(call.means[name], shape)
        else:
            value = builder.value(Type(shape), f"{prefix}.{name}")
            instance.noise.append(Port(f"{prefix}.{name}", value, law))
            made.append(value)
        places[value] = call.place
        call.scope.names[name] = BoundValue(value)
    return made


def _not_yet(call: LayerCall, owner: Instance, name: str) -> SpecError:
    if name in owner.layer.parameters:
        return SpecError(
            f"{owner.name} has the parameters of this layer, and is called later: call it before",
            call.place,
        )
    known = ", ".join(owner.layer.parameters) or "none of its own"
    return SpecError(
        f"{owner.layer.layer} has no parameter {name!r} to share (it has {known})",
        call.instance.place_of(("shares",)),
    )


def _initial(
    call: LayerCall, section: str, name: str, parameter: schema.Parameter, shape: Shape
) -> dict[str, object]:
    """The law of a parameter: the model's, which draws it by itself; else the definition's."""
    instance = call.instance
    if section == "parameters" and name in instance.init:
        own, at = instance.init[name], instance.place_of(("init", name))
        return read_init(own, shape, None, call.sizes, LawAttributes(instance.outer), at)
    at = instance.definition.document.place_of((section, name, "init"))
    block = f"{instance.name}.{parameter.block}" if parameter.block else None
    known = LawAttributes(instance.attributes, call.scope.used)
    return read_init(parameter.init, shape, block, call.sizes, known, at)


def _check_shared(full: str, made: Shape, shape: Shape, first: Place, place: Place) -> None:
    if made != shape:
        raise SpecError(
            f"{full} is shared: {shape_text(made)} since the call at {first}, "
            f"{shape_text(shape)} here",
            place,
        )


def _check_fixed(full: str, shape: Shape, place: Place) -> None:
    """Arrays decide batch and time, and the same parameters must serve them all."""
    for dim in shape:
        for name in dim.names:
            if name in FREE_SIZES:
                raise SpecError(
                    f"{full} would be {shape_text(shape)}: a parameter cannot depend on {name}, "
                    "which the arrays decide",
                    place,
                )


def _check_blocks(call: LayerCall, builder: Builder) -> None:
    """The parameters of a block lie side by side: they differ in the last axis only."""
    instance = call.instance
    first: dict[str, Shape] = {}
    for name, parameter in instance.layer.parameters.items():
        if parameter.block is None:
            continue
        shape = builder.types[instance.parameters[name].value].shape
        other = first.setdefault(parameter.block, shape)
        if not shape or shape[:-1] != other[:-1]:
            raise SpecError(
                f"block {parameter.block!r} holds {shape_text(other)} and {shape_text(shape)}: "
                "only the last axis may differ",
                instance.definition.document.place_of(("parameters", name, "block")),
            )
