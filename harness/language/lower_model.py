"""Conversion of a model's declarations and equations to the program of one phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from harness.errors import ErrorList, Place, SpecError
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.axes import FREE_SIZES, RestAxes, input_type, read_dims
from harness.language.definitions import check_distinct
from harness.language.document import Document
from harness.language.expressions import parse_equations, parse_expression
from harness.language.instances import Instance, LayerCall, Owner, leaves
from harness.language.layer_calls import LayerEvaluator
from harness.language.library import Definition, Library
from harness.language.noise import mean_of, read_law
from harness.language.scope import BoundValue, Scope
from harness.language.wellformed import check_numbers, check_told, room_of
from harness.program.dims import Dim, shape_text
from harness.program.ir import Meaning, Phase, Port, Program, Type

# Parameters of the model itself, outside its layers, such as ``own.latents``.

# The names of these parameters start with this prefix.
OWN = "own"
# Sections of a model whose names occur in exported files.
NAMED = ("inputs", "state", "targets", "layers")


def declared(model: schema.Model) -> Mapping[str, schema.Parameter]:
    """Return the parameters that a model declares outside its layers."""
    return model.parameters if isinstance(model.parameters, dict) else {}


def bring_in(
    evaluator: LayerEvaluator,
    model: schema.Model,
    document: Document,
    scope: Scope,
    sizes: Mapping[str, Dim],
) -> list[Instance]:
    """Bind the parameters that a model declares outside its layers, as results of a pseudo-layer.

    Return a list with this pseudo-layer, or [] if there are no such parameters. The names of the
    parameters are added to ``scope``.

    Raises:
        SpecError: a shape or a distribution is wrong, or the name of the pseudo-layer is used.
    """
    own = declared(model)
    if not own:
        return []
    for section in NAMED:
        if OWN in getattr(model, section):
            raise SpecError(
                f"{OWN!r} is reserved: the model's own parameters are {OWN}.{next(iter(own))} "
                "and so on; choose a different name",
                document.place_of_key((section, OWN)),
            )
    layer = schema.Layer.model_construct(
        layer=f"{OWN}_parameters",
        summary=model.summary,
        source=model.source,
        inputs={},
        parameters=dict(own),
    )
    instance = Instance(OWN, Definition(document, layer), {}, {}, document.place_of, calls=1)
    place = document.place_of_key(("parameters",))
    call = LayerCall(instance, place, OWN, {}, scope, dict(sizes))
    evaluator.own(call, Meaning(model.model, ""))
    return [instance]


SECTIONS = ("sizes", "inputs", "noise", "state", "layers", "targets", "metrics")


class Lowering:
    """The conversion of a model to the program of a phase; ``sizes`` override the model's sizes."""

    def __init__(
        self,
        library: Library,
        model: schema.Model,
        document: Document,
        phase: Phase,
        sizes: Mapping[str, int],
    ) -> None:
        self.library, self.model, self.document = library, model, document
        self.phase: Phase = phase
        self.numbers = {**model.sizes, **sizes}
        self.evaluator = LayerEvaluator(library, phase, self.numbers)
        self.sizes = {n: Dim.of(n) for n in (*self.model.sizes, *FREE_SIZES)}
        self.used_sizes: set[str] = set()

    def program(self) -> Program:
        """Convert the model and return its program."""
        model, evaluator = self.model, self.evaluator
        self._check_names()
        errors = ErrorList()
        with errors.part():
            inputs = self._ports("inputs", model.inputs)
        with errors.part():
            noise = self._noise()
        with errors.part():
            state = self._ports("state", model.state)
        with errors.part():
            self._instances()
        with errors.part():
            equations = parse_equations(model.equations, self.document.locator(("equations",)))
        for path, text in self._reduced().items():
            with errors.part():
                parse_expression(text, self.document.locator(path))
        errors.end()
        scope = Scope(dict(self.sizes), frozenset(model.state), layers=evaluator.instances)
        scope.names.update({p.name: BoundValue(p.value) for p in (*inputs, *noise, *state)})
        own = bring_in(evaluator, model, self.document, scope, self.sizes)
        evaluator.run(equations, scope, "")
        self._name_results()
        targets = self._ports("targets", model.targets)
        self._check_assigned(scope, state)
        scope.names.update({p.name: BoundValue(p.value) for p in targets})
        loss, metrics = self._losses(scope)
        self._check_used(scope)
        instances = list(leaves([*own, *evaluator.instances.values()]))
        self._check_leaves(instances)
        statistics = [p for i in instances for p in i.statistics.values()]
        program = Program(
            name=model.model,
            phase=self.phase,
            sizes=dict(self.numbers),
            types=evaluator.builder.types,
            names=evaluator.builder.names,
            nodes=tuple(evaluator.builder.nodes),
            inputs=(*inputs, *self._drawn(noise, instances)),
            targets=tuple(targets),
            state=tuple(state),
            statistics=tuple(statistics),
            parameters=tuple(p for i in instances for p in i.parameters.values()),
            outputs=tuple(Port(n, scope.value(n)) for n in scope.assigned if n not in model.state),
            new_state=tuple(Port(p.name, scope.value(p.name)) for p in state),
            new_statistics=tuple(
                Port(p.name, evaluator.moved.get(p.value, p.value)) for p in statistics
            ),
            loss=loss,
            metrics=tuple(metrics),
            structural=tuple(sorted(evaluator.maker.structural)),
        )
        program = replace(program, room=room_of(program))
        check_numbers(program, evaluator.places, self.document.place_of_key(("sizes",)))
        check_told(program, evaluator.places, self.document.place_of_key(("equations",)))
        return program

    def _check_names(self) -> None:
        own = ("parameters",) if declared(self.model) else ()
        check_distinct(self.document, self.model, (*SECTIONS, *own))
        for name in self.model.sizes:
            if name in FREE_SIZES:
                at = self.document.place_of_key(("sizes", name))
                raise SpecError(f"{name!r} is reserved: the input arrays decide this size", at)

    def _ports(
        self, section: str, declared: Mapping[str, schema.Input] | Mapping[str, schema.State]
    ) -> list[Port]:
        ports = []
        for name, given in declared.items():
            path = (section, name, "shape")
            shape = read_dims(given.shape, self.sizes, RestAxes(), self._places(path))
            init: dict[str, object] | None
            if isinstance(given, schema.Input):
                type_ = input_type(self.document, given, (section, name), shape, self.sizes)
                init = {"lengths": True} if given.at_most is not None else None
            else:
                type_, init = Type(shape), {"init": given.init}
            for dim in (*shape, type_.bound or Dim()):
                self.used_sizes.update(dim.names)
            value = self.evaluator.builder.value(type_, name)
            self.evaluator.places[value] = self.document.place_of_key((section, name))
            ports.append(Port(name, value, init))
        return ports

    def _noise(self) -> list[Port]:
        """Bind the noise that the model declares: as inputs in training, as the mean in inference.
        Return the new inputs."""
        ports = []
        for name, given in self.model.noise.items():
            path, builder = ("noise", name, "shape"), self.evaluator.builder
            law = read_law(given, {}, set(), self.document.place_of(("noise", name, "law")))
            shape = read_dims(given.shape, self.sizes, RestAxes(), self._places(path))
            for dim in shape:
                self.used_sizes.update(dim.names)
            training = self.phase == "training"
            value = (
                builder.value(Type(shape), name)
                if training
                else builder.filled(mean_of(law), shape)
            )
            self.evaluator.places[value] = self.document.place_of_key(("noise", name))
            ports.append(Port(name, value, law))
        return ports

    def _drawn(self, noise: Iterable[Port], instances: Iterable[Instance]) -> list[Port]:
        if self.phase == "inference":
            return []
        return [*noise, *(port for instance in instances for port in instance.noise)]

    def _places(self, path: KeyPath) -> Callable[[int], Place]:
        return lambda number: self.document.place_of((*path, number))

    def _instances(self) -> None:
        owner = Owner(self.document, "", self.sizes)
        self.evaluator.instances = self.evaluator.maker.make(owner, self.model.layers)
        for instance in self.evaluator.instances.values():
            for dim in instance.sizes.values():
                self.used_sizes.update(dim.names)
        self.used_sizes.update(self.evaluator.maker.structural)

    def _check_leaves(self, instances: Iterable[Instance]) -> None:
        """Check that the names of layers stay different in exported files, where '.' becomes
        '_'."""
        sections = (self.model.inputs, self.model.state, self.model.targets)
        found = {name: name for section in sections for name in section}
        for instance in instances:
            first = found.setdefault(instance.name.replace(".", "_"), instance.name)
            if first != instance.name:
                raise SpecError(
                    f"{first} and {instance.name} have the same name in exported files, "
                    "where '.' becomes '_': rename one of them",
                    instance.place_of(("layer",)),
                )

    def _check_assigned(self, scope: Scope, state: list[Port]) -> None:
        """Check that the equations assign a new value of the same type to each state, and assign no
        name of a layer, target or metric."""
        for section in ("layers", "targets", "metrics"):
            for name in getattr(self.model, section):
                if name in scope.assigned:
                    at = self.document.place_of_key((section, name))
                    raise SpecError(
                        f"{name!r} cannot be assigned: it is declared at {at}", scope.assigned[name]
                    )
        for port in state:
            if port.name not in scope.assigned:
                at = self.document.place_of_key(("state", port.name))
                raise SpecError(f"state {port.name!r} is declared but never assigned", at)
            value, wanted = scope.value(port.name), self.evaluator.type_of(port.value)
            if self.evaluator.type_of(value) != wanted:
                raise self.evaluator.failure(value, scope.assigned[port.name])(
                    f"state {port.name!r} has type {wanted}, which cannot change to "
                    f"{self.evaluator.type_of(value)}"
                )

    def _name_results(self) -> None:
        """Give names to those results of calls that the equations do not name, for messages."""
        builder = self.evaluator.builder
        for node in builder.nodes:
            if node.op == "call":
                label, results = node.attributes["label"], node.attributes["results"]
                for output, result in zip(node.outputs, results, strict=True):
                    builder.names.setdefault(output, f"{label}/{result}")

    def _losses(self, scope: Scope) -> tuple[int | None, list[Port]]:
        scope.losses = True
        found = {path: self._number(text, path, scope) for path, text in self._reduced().items()}
        loss = found.pop(("loss",), None)
        return loss, [Port(name, value) for (_, name), value in found.items()]

    def _reduced(self) -> dict[tuple[str, ...], str]:
        """Return the expressions of the loss and the metrics as texts, by key path."""
        found: dict[tuple[str, ...], str] = {}
        if self.model.loss is not None:
            found["loss",] = self.model.loss
        return found | {("metrics", name): text for name, text in self.model.metrics.items()}

    def _number(self, text: str, path: KeyPath, scope: Scope) -> int:
        value = self.evaluator.tensor(parse_expression(text, self.document.locator(path)), scope)
        found = self.evaluator.type_of(value)
        if found.kind != "float":
            raise SpecError(
                f"{path[-1]} must be a float, found {found}", self.document.place_of(path)
            )
        if found.shape:
            shape = shape_text(found.shape)
            raise SpecError(
                f"{path[-1]} must be one number: reduce {shape} with mean(...) or sum(...)",
                self.document.place_of(path),
            )
        return value

    def _check_used(self, scope: Scope) -> None:
        errors = ErrorList()
        self.used_sizes.update(scope.used)
        called = {name for name, i in self.evaluator.instances.items() if i.calls}
        for section, noun, used, verb in (
            ("inputs", "input", scope.used, "used"),
            ("noise", "noise", scope.used, "used"),
            ("state", "state", scope.used, "used"),
            ("layers", "layer", called, "called"),
            ("parameters", "parameter", scope.used, "used"),
            ("targets", "target", scope.used, "used"),
            ("sizes", "size", self.used_sizes, "used"),
        ):
            given = getattr(self.model, section)
            for name in given if isinstance(given, Mapping) else ():
                if name not in used:
                    at = self.document.place_of_key((section, name))
                    told = f"{noun} {name!r} is declared but never {verb}"
                    errors.found.append(SpecError(told, at))
        errors.end()
