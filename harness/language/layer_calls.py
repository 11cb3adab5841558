"""Calls of layers: states come in and go out, a scan loops over time, statistics move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import SpecError, several
from harness.language.call_arguments import inputs_of
from harness.language.call_info import held_info, layer_info
from harness.language.expressions import Assignment, Call, parse_equations
from harness.language.instances import Instance, LayerCall, make_noise, make_variables
from harness.language.layer_scans import ScanEvaluator
from harness.language.layer_uses import LayerMaker, Owner, handed
from harness.language.library import Library
from harness.language.loss_calls import SINGULAR
from harness.language.meaning import meaning
from harness.language.scope import BoundValue, Scope, check_assigned, check_read, check_used
from harness.program.ir import Meaning, Phase


class LayerEvaluator(ScanEvaluator):
    """Evaluates equations in which layers and losses may be called."""

    def __init__(self, library: Library, phase: Phase, numbers: Mapping[str, int]) -> None:
        super().__init__(library)
        self.phase = phase
        self.maker = LayerMaker(library, numbers)
        self.instances: dict[str, Instance] = {}
        self.moved: dict[int, int] = {}  # a statistic's value -> its new value

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        return tuple(sorted([*super().callable_names(scope), *scope.layers]))

    def assigned(self, assignment: Assignment, scope: Scope) -> Sequence[int]:
        """The values of an assignment's targets; a layer gives its output, then its states.

        Raises:
            SpecError: there are more or fewer targets than results.
        """
        expr = assignment.value
        if not (isinstance(expr, Call) and expr.function in scope.layers):
            return super().assigned(assignment, scope)
        with self.at(expr.place):
            results = self.layer(scope.layers[expr.function], expr, scope)
        count = len(assignment.targets)
        if count in (1, len(results)):
            return results[:count]
        states = scope.layers[expr.function].layer.state
        names = ", ".join(("y", *states)[: len(results)])
        raise SpecError(
            f"{expr.function} gives {several(len(results), 'result')}, its output, then its state; "
            f"{count} names are assigned: write '{names} = {expr.function}(...)'",
            assignment.place,
        )

    def call(self, expr: Call, scope: Scope) -> int:
        if expr.function in scope.layers:
            return self.layer(scope.layers[expr.function], expr, scope)[0]
        return super().call(expr, scope)

    def layer(self, instance: Instance, expr: Call, scope: Scope) -> list[int]:
        """Call a layer: its output, then its final states; of a chain, the output alone."""
        spec = instance.layer
        inputs = list(spec.inputs)
        states = () if instance.chain else list(spec.state)
        values = inputs_of(self, expr, scope, inputs, states)
        if not instance.chain:
            return self._applied(instance, expr, values)
        instance.calls += 1
        for link in instance.inner.values():
            values[inputs[0]] = self._applied(link, expr, dict(values))[0]
        return [values[inputs[0]]]

    def _applied(self, instance: Instance, expr: Call, values: dict[str, int]) -> list[int]:
        """The results of a layer that is not a chain."""
        spec = instance.layer
        instance.calls += 1  # after its arguments, which may be calls of the same layer
        owner = instance.shares or instance
        owner.calls += owner is not instance
        label = instance.name + (f"#{owner.calls}" if owner.calls > 1 else "")
        inner = Scope(dict(instance.attributes), frozenset({*spec.state, *spec.statistics}))
        call = LayerCall(instance, expr.place, label, values, inner, instance.sizes)
        inner.used.update(call.sizes)
        self.bind_inputs(expr, spec.inputs, values, inner, call.sizes)
        with self.called(instance.name, expr.place):
            if spec.layers:
                return [self._composed(call)]
            return self._alone(call)

    def _composed(self, call: LayerCall) -> int:
        """The output of a layer that is made of others: its equations stand where it is called."""
        instance, inner, spec = call.instance, call.scope, call.instance.layer
        document = instance.definition.document
        owner = Owner(
            document, f"{instance.name}.", call.sizes, instance.attributes, instance.inside
        )
        if not instance.inner:
            instance.inner = self.maker.make(owner, spec.layers)
        for name, use in spec.layers.items():
            inner.used.update(handed(use, instance.attributes))
            self._check_same(call, name, self.maker.attributes(owner, name, use))
        inner.layers = instance.inner
        if spec.parameters or spec.noise:
            self.own(call, meaning(self.library, "layer", spec.layer, instance.attributes))
        inner.names.update({n: d for n, d in call.sizes.items() if n not in inner.names})
        equations = parse_equations(str(spec.equations), document.locator(("equations",)))
        self.run(equations, inner, f"{call.label}/")
        output = self.result(inner, str(spec.output), document.place_of(("output",)))
        check_read(equations, inner, ())
        for name, part in instance.inner.items():
            if not part.calls:
                at = document.place_of_key(("layers", name))
                raise SpecError(f"layer {name!r} is declared but never called", at)
        self._check_total(call)
        self.places.setdefault(output, call.place)
        return output

    def own(self, call: LayerCall, holder: Meaning) -> None:
        """Bring the parameters and the noise into scope that a layer, or a model, has beside its
        layers: as results of a call that gives nothing else, so that a layer has them, as all."""
        instance, spec = call.instance, call.instance.layer
        names = (*spec.parameters, *spec.noise)
        make_variables(call, self.builder, self.places)
        self.builder.begin()
        noise = make_noise(call, self.builder, self.places, self.phase)
        own = {n: port.value for n, port in instance.parameters.items()}
        # How many numbers are drawn, inputs say.
        given = [call.values[n] for n in spec.inputs] if spec.noise else []
        held = [*own.values(), *(call.scope.value(n) for n in spec.noise)]
        one = self.builder.constant(1.0)  # what a call gives is a value of its own
        results = [self.builder.emit("multiply", one, value) for value in held]
        info = held_info(call, holder, bool(noise))
        made = self.close([*given, *noise, *own.values()], results, info)
        call.scope.names.update(zip(names, map(BoundValue, made), strict=True))
        self.places.update(dict.fromkeys(made, call.place))

    def _check_same(self, call: LayerCall, name: str, attributes: Mapping[str, Any]) -> None:
        """A layer that is called again has the same layers inside."""
        part = call.instance.inner[name]
        for attribute, value in attributes.items():
            if value != part.attributes[attribute]:
                raise SpecError(
                    f"{part.name} is shared: {attribute} is {part.attributes[attribute]} since an "
                    f"earlier call, {value} here",
                    call.place,
                )

    def _alone(self, call: LayerCall) -> list[int]:
        """The results of a layer with equations of its own, as one call that may be claimed."""
        instance, inner, values = call.instance, call.scope, call.values
        spec = instance.layer
        self.states_of(call)
        make_variables(call, self.builder, self.places)
        for name, port in {**instance.parameters, **instance.statistics}.items():
            inner.names[name] = BoundValue(self.moved.get(port.value, port.value))
        inner.names.update({n: d for n, d in call.sizes.items() if n not in inner.names})
        self.builder.begin()
        noise = make_noise(call, self.builder, self.places, self.phase)
        given = [*(values[n] for n in (*spec.inputs, *spec.state)), *noise]
        given += [inner.value(n) for n in (*spec.parameters, *spec.statistics)]
        output, finals = self.one_scan(call) if spec.scan else self._equations(call)
        self._check_total(call)
        info = layer_info(self.library, call, bool(noise))
        results = self.close(given, [output, *finals], info)
        results = results[: 1 + len(spec.state)]
        self.places.update(dict.fromkeys(results, call.place))
        return results

    def _equations(self, call: LayerCall) -> tuple[int, list[int]]:
        """The output of a layer's equations, its last states and its new statistics."""
        instance, inner = call.instance, call.scope
        spec, document = instance.layer, instance.definition.document
        finals = self.several_scans(call) if spec.scans else []
        key = "equations" if spec.equations is not None else self.phase
        equations = parse_equations(getattr(spec, key), document.locator((key,)))
        if key == "inference":
            inner.changing = frozenset()
        self.run(equations, inner, f"{call.label}/")
        check_used(inner, spec.scans, document, "scans", "scan")
        assert spec.output is not None
        output = self.result(inner, spec.output, document.place_of(("output",)))
        check_read(equations, inner, spec.statistics)
        if key == "training":
            names = spec.statistics
            check_assigned(inner, names, document, "statistics", "statistic")
        for name, port in instance.statistics.items():
            finals.append(inner.value(name))
            self.check_kept(call, "statistics", name, self.type_of(port.value), finals[-1])
            self.moved[port.value] = finals[-1]
        return output, finals

    def _check_total(self, call: LayerCall) -> None:
        spec, definition, inner = call.instance.layer, call.instance.definition, call.scope
        if spec.inference is not None and self.phase == "inference":
            return  # inference needs less: what the two forms use is checked in training
        for section, singular in SINGULAR.items():
            check_used(inner, getattr(spec, section), definition.document, section, singular)
