"""Conversion of a model's declarations and equations to a program, for training or for
inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from harness.errors import ErrorList, Place, SpecError, did_you_mean
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.axes import FREE_SIZES, RestAxes, input_type, read_dims
from harness.language.axis_attributes import flatten
from harness.language.definitions import check_distinct
from harness.language.document import Document
from harness.language.expressions import parse_equations, parse_expression
from harness.language.instances import Instance, LayerCall, Owner, leaf_layers
from harness.language.layer_calls import LayerEvaluator
from harness.language.library import Definition, Library
from harness.language.noise import mean_of, read_noise_distribution
from harness.language.program_checks import check_free_sizes, check_numbers, room_of
from harness.language.scope import BoundValue, Scope, check_read
from harness.language.tree import Assignment
from harness.program.dims import Dim, shape_text
from harness.program.ir import Meaning, Phase, Port, Program, Type

# Parameters of the model itself, outside its layers, such as ``own.latents``.

# The names of these parameters start with this prefix.
OWN, OWN_LAYER = "own", "own_parameters"
# Sections of a model whose names occur in exported files.
EXPORTED_SECTIONS = ("inputs", "state", "targets", "layers")


def own_parameters(model: schema.Model) -> Mapping[str, schema.Parameter]:
    """Return the parameters that a model declares outside its layers, as a dictionary from name to
    declaration."""
    return model.parameters if isinstance(model.parameters, dict) else {}


def add_own_parameters(
    evaluator: LayerEvaluator,
    model: schema.Model,
    document: Document,
    scope: Scope,
    sizes: Mapping[str, Dim],
) -> list[Instance]:
    """Add the parameters that a model declares outside its layers. In the program, they are results
    of a pseudo-layer: a layer that computes nothing. Bind their names in ``scope``.

    Return a list with this pseudo-layer, or [] if there are no such parameters.

    Raises:
        SpecError: a shape or a distribution is wrong, or the name of the pseudo-layer is used.
    """
    parameters = own_parameters(model)
    if not (parameters or model.constants):
        return []
    for section in EXPORTED_SECTIONS:
        if OWN in getattr(model, section):
            first = next(iter((*parameters, *model.constants)))
            raise SpecError(
                f"{OWN!r} is reserved: the model's own arrays are {OWN}.{first} and so on; "
                "choose a different name",
                document.place_of_key((section, OWN)),
            )
    layer = schema.Layer.model_construct(
        layer=OWN_LAYER,
        summary=model.summary,
        source=model.source,
        inputs={},
        parameters={
            n: schema.LayerParameter.model_construct(shape=p.shape, init=p.init, block=p.block)
            for n, p in parameters.items()
        },
        constants=model.constants,
    )
    instance = Instance(OWN, Definition(document, layer), {}, {}, document.place_of, calls=1)
    place = document.place_of_key(("parameters" if parameters else "constants",))
    call = LayerCall(instance, place, OWN, {}, scope, dict(sizes))
    evaluator.append_pseudo_layer(call, Meaning(model.model, ""))
    return [instance]


SECTIONS = ("sizes", "inputs", "noise", "constants", "state", "layers", "targets", "metrics")


class Lowering:
    """The conversion of a model to the program for ``phase`` (training or inference). ``sizes``
    replace sizes of the model, e.g. ``{"hidden": 7}``."""

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
            inputs = self._make_ports("inputs", model.inputs)
        with errors.part():
            noise = self._make_noise()
        with errors.part():
            state = self._make_ports("state", model.state)
        with errors.part():
            self._make_layers()
        with errors.part():
            equations = parse_equations(model.equations, self.document.locator(("equations",)))
        for path, text in self._scalar_texts().items():
            with errors.part():
                parse_expression(text, self.document.locator(path))
        errors.end()
        scope = Scope(dict(self.sizes), frozenset(model.state), layers=evaluator.instances)
        scope.names.update({p.name: BoundValue(p.value) for p in (*inputs, *noise, *state)})
        pseudo_layers = add_own_parameters(evaluator, model, self.document, scope, self.sizes)
        evaluator.run_equations(equations, scope, "")
        self._name_results()
        targets = self._make_ports("targets", model.targets)
        self._check_assigned(scope, state)
        scope.names.update({p.name: BoundValue(p.value) for p in targets})
        loss, metrics = self._evaluate_scalars(scope)
        outputs = self._make_outputs(equations, scope)
        self._check_used(scope)
        instances = list(leaf_layers([*pseudo_layers, *evaluator.instances.values()]))
        self._check_leaves(instances)
        statistics = [p for i in instances for p in i.statistics.values()]
        constants = [p for i in instances for p in i.constants.values()]
        program = Program(
            name=model.model,
            phase=self.phase,
            sizes=dict(self.numbers),
            types=evaluator.builder.types,
            names=evaluator.builder.names,
            nodes=tuple(evaluator.builder.nodes),
            inputs=(*inputs, *self._noise_inputs(noise, instances)),
            targets=tuple(targets),
            state=tuple(state),
            statistics=(*statistics, *constants),
            parameters=tuple(p for i in instances for p in i.parameters.values()),
            outputs=outputs,
            new_state=tuple(Port(p.name, scope.value(p.name)) for p in state),
            new_statistics=tuple(
                Port(p.name, evaluator.updated_statistics.get(p.value, p.value)) for p in statistics
            ),
            loss=loss,
            metrics=tuple(metrics),
            structural=tuple(sorted(evaluator.maker.structural)),
            composites=tuple(evaluator.composites),
        )
        program = replace(program, room=room_of(program))
        check_numbers(program, evaluator.places, self.document.place_of_key(("sizes",)))
        check_free_sizes(program, evaluator.places, self.document.place_of_key(("equations",)))
        return program

    def _check_names(self) -> None:
        own_section = ("parameters",) if own_parameters(self.model) else ()
        check_distinct(self.document, self.model, (*SECTIONS, *own_section))
        for name in self.model.sizes:
            if name in FREE_SIZES:
                at = self.document.place_of_key(("sizes", name))
                raise SpecError(f"{name!r} is reserved: the input arrays decide this size", at)

    def _make_ports(
        self, section: str, declared: Mapping[str, schema.Input] | Mapping[str, schema.State]
    ) -> list[Port]:
        ports = []
        for name, declaration in declared.items():
            path = (section, name, "shape")
            shape = read_dims(declaration.shape, self.sizes, RestAxes(), self._axis_places(path))
            init: dict[str, object] | None
            if isinstance(declaration, schema.Input):
                type_ = input_type(self.document, declaration, (section, name), shape, self.sizes)
                init = {"lengths": True} if declaration.at_most is not None else None
            else:
                type_, init = Type(shape), {"init": declaration.init}
            for dim in (*shape, type_.bound or Dim()):
                self.used_sizes.update(dim.names)
            value = self.evaluator.builder.value(type_, name)
            self.evaluator.places[value] = self.document.place_of_key((section, name))
            ports.append(Port(name, value, init))
        return ports

    def _make_noise(self) -> list[Port]:
        """Create the values of the model's noise, and return their ports. In training, the noise is
        an input; in inference, the mean of its distribution."""
        ports = []
        for name, declaration in self.model.noise.items():
            path, builder = ("noise", name, "shape"), self.evaluator.builder
            law = read_noise_distribution(
                declaration, {}, set(), self.document.place_of(("noise", name, "law"))
            )
            shape = read_dims(declaration.shape, self.sizes, RestAxes(), self._axis_places(path))
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

    def _noise_inputs(self, noise: Iterable[Port], instances: Iterable[Instance]) -> list[Port]:
        if self.phase == "inference":
            return []
        return [*noise, *(port for instance in instances for port in instance.noise)]

    def _axis_places(self, path: KeyPath) -> Callable[[int], Place]:
        return lambda number: self.document.place_of((*path, number))

    def _make_layers(self) -> None:
        owner = Owner(self.document, "", self.sizes)
        self.evaluator.instances = self.evaluator.maker.make_layers(owner, self.model.layers)
        for instance in self.evaluator.instances.values():
            for value in flatten(instance.attributes.values()):
                if isinstance(value, Dim):
                    self.used_sizes.update(value.names)
        self.used_sizes.update(self.evaluator.maker.structural)

    def _check_leaves(self, instances: Iterable[Instance]) -> None:
        """Check that the names of layers are still different from each other in exported files,
        where "_" replaces "."."""
        sections = (self.model.inputs, self.model.state, self.model.targets)
        names = {name: name for section in sections for name in section}
        for instance in instances:
            first = names.setdefault(instance.name.replace(".", "_"), instance.name)
            if first != instance.name:
                raise SpecError(
                    f"{first} and {instance.name} have the same name in exported files, "
                    "where '.' becomes '_': rename one of them",
                    instance.place_of(("layer",)),
                )

    def _check_assigned(self, scope: Scope, state: list[Port]) -> None:
        """Check that the equations assign a new value of the same type to each state. Also check
        that they assign nothing to a name of a layer, target or metric."""
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
            value, state_type = scope.value(port.name), self.evaluator.type_of(port.value)
            if self.evaluator.type_of(value) != state_type:
                raise self.evaluator.error_about(value, scope.assigned[port.name])(
                    f"state {port.name!r} has type {state_type}, which cannot change to "
                    f"{self.evaluator.type_of(value)}"
                )

    def _make_outputs(self, equations: Sequence[Assignment], scope: Scope) -> tuple[Port, ...]:
        """Return the ports of the outputs: the names in the section ``outputs``, or, without this
        section, all assigned names except states.

        Raises:
            SpecError: an output is not assigned or is listed twice, or a value is never used.
        """
        known = [name for name in scope.assigned if name not in self.model.state]
        declared = known if self.model.outputs is None else self.model.outputs
        errors = ErrorList()
        for number, name in enumerate(declared):
            at = self.document.place_of(("outputs", number))
            if name not in known:
                names = f"{did_you_mean(name, known)} (known: {', '.join(known)})"
                message = f"the equations assign no output {name!r}{names}"
                errors.found.append(SpecError(message, at))
            elif name in declared[:number]:
                errors.found.append(SpecError(f"output {name!r} is listed twice", at))
        errors.end()
        check_read(equations, scope, {*declared, *self.model.state})
        return tuple(Port(name, scope.value(name)) for name in declared)

    def _name_results(self) -> None:
        """Give names to results of calls that the equations leave without a name, because error
        messages use names."""
        builder = self.evaluator.builder
        for node in builder.nodes:
            if node.op == "call":
                label, results = node.attributes["label"], node.attributes["results"]
                for output, result in zip(node.outputs, results, strict=True):
                    builder.names.setdefault(output, f"{label}/{result}")

    def _evaluate_scalars(self, scope: Scope) -> tuple[int | None, list[Port]]:
        scope.losses = True
        values = {
            path: self._evaluate_scalar(text, path, scope)
            for path, text in self._scalar_texts().items()
        }
        loss = values.pop(("loss",), None)
        return loss, [Port(name, value) for (_, name), value in values.items()]

    def _scalar_texts(self) -> dict[tuple[str, ...], str]:
        """Return the expressions of the loss and the metrics: a dictionary from key path, e.g.
        ``("metrics", "accuracy")``, to text."""
        texts: dict[tuple[str, ...], str] = {}
        if self.model.loss is not None:
            texts["loss",] = self.model.loss
        return texts | {("metrics", name): text for name, text in self.model.metrics.items()}

    def _evaluate_scalar(self, text: str, path: KeyPath, scope: Scope) -> int:
        value = self.evaluator.tensor(parse_expression(text, self.document.locator(path)), scope)
        type_ = self.evaluator.type_of(value)
        if type_.kind != "float":
            raise SpecError(
                f"{path[-1]} must be a float, found {type_}", self.document.place_of(path)
            )
        if type_.shape:
            shape = shape_text(type_.shape)
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
            ("constants", "constant", scope.used, "used"),
            ("targets", "target", scope.used, "used"),
            ("sizes", "size", self.used_sizes, "used"),
        ):
            declarations = getattr(self.model, section)
            for name in declarations if isinstance(declarations, Mapping) else ():
                if name not in used:
                    at = self.document.place_of_key((section, name))
                    message = f"{noun} {name!r} is declared but never {verb}"
                    errors.found.append(SpecError(message, at))
        errors.end()
