"""From a model file to its program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.dims import Dim, shape_text
from harness.errors import Place, SpecError, did_you_mean
from harness.program import Phase, Port, Program, Type
from harness.spec import schema
from harness.spec.builtins import BUILTINS
from harness.spec.evaluate import Binding, Scope, Tensor
from harness.spec.expressions import parse_equations, parse_expression
from harness.spec.layers import Instance, LayerEvaluator, read_attributes
from harness.spec.library import Definition, Library, content
from harness.spec.shapes import read_dim
from harness.spec.update import UpdateRule, lower_update

# The sizes that arrays decide; every other size has a number in the spec.
FREE_SIZES = ("batch", "time")


class Spec:
    """A loaded model: its programs at both phases, its optimizer's update, its training and data.

    Loading checks all of it; an instance that exists is right.
    """

    def __init__(self, library: Library, definition: Definition) -> None:
        self.library = library
        self.document = definition.document
        self.model = content(definition, schema.Model)
        self.name = self.model.model
        self.programs: dict[Phase, Program] = {
            "training": _Lowering(self, "training").program(),
            "inference": _Lowering(self, "inference").program(),
        }
        self.update: UpdateRule | None = self._update()
        self._check_data()

    def program(self, phase: Phase = "training", **sizes: int) -> Program:
        """The program at a phase, with some sizes overridden."""
        known = self.programs[phase].sizes
        for name in sizes:
            if name not in known:
                names = sorted(known)
                raise SpecError(
                    f"{self.name} has no size {name!r}{did_you_mean(name, names)} "
                    f"(known: {', '.join(names)})",
                    self.document.place_of(("sizes",)),
                )
        return self.programs[phase].with_sizes(**sizes)

    def rule(self, name: str, **attributes: float) -> UpdateRule:
        """The update rule of any optimizer in the spec's library."""
        return lower_update(self.library, name, attributes, None)

    def _update(self) -> UpdateRule | None:
        use = self.model.optimizer
        if use is None:
            return None

        def place_of(name: str, key: bool) -> Place:
            path = ("optimizer", name)
            return self.document.place_of_key(path) if key else self.document.place_of(path)

        return lower_update(self.library, use.optimizer, use.model_extra or {}, place_of)

    def _check_data(self) -> None:
        if self.model.data is None:
            return
        arrays = self.model.data.arrays
        wanted = [*self.model.inputs, *self.model.targets]
        for name, source in arrays.items():
            at = self.document.place_of_key(("data", "arrays", name))
            if name not in wanted:
                hint = did_you_mean(name, wanted)
                raise SpecError(f"{name!r} is neither an input nor a target{hint}", at)
            if (source.offset is None) == (source.zeros is None):
                raise SpecError(f"{name}: give either offset or zeros", at)
        for name in wanted:
            if name not in arrays:
                at = self.document.place_of(("data", "arrays"))
                raise SpecError(f"no array for {name!r}", at)


class _Lowering:
    """One pass over a model at one phase."""

    def __init__(self, spec: Spec, phase: Phase) -> None:
        self.spec, self.model, self.document = spec, spec.model, spec.document
        self.phase: Phase = phase
        self.evaluator = LayerEvaluator(spec.library, phase)
        self.sizes = {n: Dim.of(n) for n in (*self.model.sizes, *FREE_SIZES)}
        self.used_sizes: set[str] = set()

    def program(self) -> Program:
        """Lower everything."""
        model, evaluator = self.model, self.evaluator
        self._check_names()
        inputs = self._ports("inputs", model.inputs)
        state = self._ports("state", model.state)
        self._instances()
        scope = Scope({p.name: Tensor(p.value) for p in (*inputs, *state)})
        equations = parse_equations(model.equations, self.document.locator(("equations",)))
        evaluator.run(equations, scope, "")
        targets = self._ports("targets", model.targets)
        assigned = [t.id for a in equations for t in a.targets]
        self._check_assigned(scope, assigned, inputs, state)
        outputs = [
            Port(n, self._value(scope, n)) for n in dict.fromkeys(assigned) if n not in model.state
        ]
        new_state = [Port(p.name, self._value(scope, p.name)) for p in state]
        scope.names.update({p.name: Tensor(p.value) for p in targets})
        loss, metrics = self._losses(scope, targets)
        instances = evaluator.instances.values()
        statistics = [p for i in instances for p in i.statistics.values()]
        self._check_sizes()
        return Program(
            name=model.model,
            phase=self.phase,
            sizes=dict(model.sizes),
            types=evaluator.builder.types,
            names=evaluator.builder.names,
            nodes=tuple(evaluator.builder.nodes),
            inputs=tuple(inputs),
            targets=tuple(targets),
            state=tuple(state),
            statistics=tuple(statistics),
            parameters=tuple(p for i in instances for p in i.parameters.values()),
            outputs=tuple(outputs),
            new_state=tuple(new_state),
            new_statistics=tuple(
                Port(p.name, evaluator.moved.get(p.value, p.value)) for p in statistics
            ),
            loss=loss,
            metrics=tuple(metrics),
        )

    def _check_names(self) -> None:
        seen: dict[str, str] = {}
        for section in ("sizes", "inputs", "state", "layers", "targets", "metrics"):
            for name in getattr(self.model, section):
                at = self.document.place_of_key((section, name))
                if name in seen:
                    raise SpecError(f"{name!r} is declared in {seen[name]} too", at)
                if name in BUILTINS or (section == "sizes" and name in FREE_SIZES):
                    raise SpecError(f"{name!r} is taken: it is a name of the language", at)
                seen[name] = section

    def _ports(
        self, section: str, declared: Mapping[str, schema.Input] | Mapping[str, schema.State]
    ) -> list[Port]:
        ports = []
        for name, given in declared.items():
            at = self.document.place_of((section, name, "shape"))
            shape = tuple(self._dim(axis, at) for axis in given.shape)
            bound = None
            if isinstance(given, schema.Input) and given.index is not None:
                bound = self._dim(given.index, self.document.place_of((section, name, "index")))
            type_ = Type(shape, "float" if bound is None else "index", bound)
            value = self.evaluator.builder.value(type_, name)
            self.evaluator.places[value] = self.document.place_of_key((section, name))
            init = {"init": given.init} if isinstance(given, schema.State) else None
            ports.append(Port(name, value, init))
        return ports

    def _dim(self, axis: int | str, at: Place) -> Dim:
        dim = read_dim(axis, self.sizes, at)
        self.used_sizes.update(dim.names)
        return dim

    def _instances(self) -> None:
        for name, use in self.model.layers.items():
            at = self.document.place_of(("layers", name, "layer"))
            definition = self.spec.library.find("layer", use.layer, at)
            layer = content(definition, schema.Layer)
            _check_form(definition, layer)

            def place_of(attribute: str, key: bool, name: str = name) -> Place:
                path = ("layers", name, attribute)
                return self.document.place_of_key(path) if key else self.document.place_of(path)

            given = use.model_extra or {}
            owner = f"layer {use.layer!r}"
            attributes = read_attributes(
                layer.attributes, given, definition, self.sizes, at, owner, place_of
            )
            for value in attributes.values():
                if isinstance(value, Dim):
                    self.used_sizes.update(value.names)
            for parameter in use.init:
                if parameter not in layer.parameters:
                    hint = did_you_mean(parameter, layer.parameters)
                    known = ", ".join(layer.parameters) or "none"
                    at = self.document.place_of_key(("layers", name, "init", parameter))
                    raise SpecError(
                        f"{use.layer} has no parameter {parameter!r}{hint} (known: {known})", at
                    )
            self.evaluator.instances[name] = Instance(name, definition, attributes, use.init, at)

    def _value(self, scope: Scope, name: str) -> int:
        bound: Binding = scope.names[name]
        assert isinstance(bound, Tensor)
        return bound.value

    def _check_assigned(
        self, scope: Scope, assigned: Iterable[str], inputs: list[Port], state: list[Port]
    ) -> None:
        for port in inputs:
            at = self.document.place_of_key(("inputs", port.name))
            if port.name in assigned:
                raise SpecError(f"input {port.name!r} cannot be assigned", at)
            if port.name not in scope.used:
                raise SpecError(f"input {port.name!r} is declared but never used", at)
        for port in state:
            at = self.document.place_of_key(("state", port.name))
            if port.name not in scope.used or port.name not in assigned:
                raise SpecError(f"state {port.name!r} must be read and assigned", at)
            found = self.evaluator.type_of(self._value(scope, port.name))
            if found != self.evaluator.type_of(port.value):
                declared = self.evaluator.type_of(port.value)
                raise SpecError(f"state {port.name} is {declared}, assigned {found}", at)
        for name, instance in self.evaluator.instances.items():
            if not instance.calls:
                at = self.document.place_of_key(("layers", name))
                raise SpecError(f"layer {name!r} is declared but never called", at)

    def _losses(self, scope: Scope, targets: list[Port]) -> tuple[int | None, list[Port]]:
        evaluator = self.evaluator
        evaluator.losses = True
        loss, metrics = None, []
        texts = {("loss",): self.model.loss} if self.model.loss else {}
        texts.update({("metrics", n): text for n, text in self.model.metrics.items()})
        for path, text in texts.items():
            expr = parse_expression(text, self.document.locator(path))
            value = evaluator.tensor(expr, scope)
            if evaluator.type_of(value) != Type(()):
                shape = shape_text(evaluator.type_of(value).shape)
                raise SpecError(
                    f"{path[-1]} is one number: reduce {shape} with mean(...) or sum(...)",
                    self.document.place_of(path),
                )
            if path == ("loss",):
                loss = value
            else:
                metrics.append(Port(path[-1], value))
        for port in targets:
            if port.name not in scope.used:
                at = self.document.place_of_key(("targets", port.name))
                raise SpecError(f"target {port.name!r} is declared but never used", at)
        return loss, metrics

    def _check_sizes(self) -> None:
        for name in self.model.sizes:
            if name not in self.used_sizes:
                at = self.document.place_of_key(("sizes", name))
                raise SpecError(f"size {name!r} is declared but never used", at)


def _check_form(definition: Definition, layer: schema.Layer) -> None:
    """A layer has one of three forms: equations, a scan, or one form for each phase."""
    phased = layer.training is not None or layer.inference is not None
    forms = [layer.equations is not None, layer.scan is not None, phased]
    root = definition.document.place_of(())
    if sum(forms) != 1 or (phased and (layer.training is None or layer.inference is None)):
        message = "a layer has 'equations', or 'scan', or both 'training' and 'inference'"
        raise SpecError(message, root)
    if (layer.scan is None) == (layer.output is None):
        raise SpecError("'output' stands beside the equations, or inside 'scan'", root)
    if layer.state and layer.scan is None:
        raise SpecError("'state' needs a 'scan'", definition.document.place_of_key(("state",)))


def load_spec(
    name: str,
    folders: Iterable[str | Path] = (),
    overrides: Mapping[tuple[str, str], str] | None = None,
) -> Spec:
    """Load a model by name or by its file's path.

    ``folders`` hold further definitions (``layers/NAME.yaml`` ...), found before those that ship.
    Raises :class:`~harness.errors.SpecError` for a wrong file, ``UsageError`` for an unknown name.
    """
    library = Library(tuple(Path(f) for f in folders), dict(overrides or {}))
    return Spec(library, library.model(name))


__all__ = ["FREE_SIZES", "Spec", "load_spec"]
