"""Calls of layers and losses: parameters are made at the first call and shared by the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.dims import Dim, Shape, shape_text
from harness.errors import Place, SpecError, did_you_mean
from harness.program import Node, Phase, Port, Type
from harness.spec import schema
from harness.spec.evaluate import (
    Evaluator,
    FunctionName,
    Scope,
    Tensor,
    check_read,
    check_used,
)
from harness.spec.expressions import Assignment, Call, parse_equations
from harness.spec.initial import read_init
from harness.spec.library import Definition, Library, content
from harness.spec.shapes import REST, match, read_dim, substitute

Attribute = FunctionName | float | Dim


@dataclass
class Instance:
    """A layer of a model: its definition, its attributes, and its parameters once made."""

    name: str
    definition: Definition
    attributes: dict[str, Attribute]
    init: Mapping[str, Any]
    place: Place
    parameters: dict[str, Port] = field(default_factory=dict)
    statistics: dict[str, Port] = field(default_factory=dict)
    calls: int = 0

    @property
    def layer(self) -> schema.Layer:
        """The definition's content."""
        return content(self.definition, schema.Layer)


class LayerEvaluator(Evaluator):
    """Evaluates equations in which layers and losses may be called."""

    def __init__(self, library: Library, phase: Phase) -> None:
        super().__init__(library)
        self.phase = phase
        self.instances: dict[str, Instance] = {}
        self.losses = False  # whether losses may be called: in `loss` and `metrics` only
        self.moved: dict[int, int] = {}  # a statistic's value -> its new value

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        names = [*super().callable_names(scope), *self.instances]
        if self.losses:
            names.extend(self.library.names("loss"))
        return tuple(sorted(names))

    def assigned(self, assignment: Assignment, scope: Scope) -> Sequence[int]:
        expr = assignment.value
        if isinstance(expr, Call) and expr.function in self.instances:
            with self.at(expr.place):
                results = self.layer(self.instances[expr.function], expr, scope)
            count = len(assignment.targets)
            if count in (1, len(results)):
                return results[:count]
            raise SpecError(
                f"{expr.function} gives {len(results)} results (its output, then its state); "
                f"{count} names are assigned",
                assignment.place,
            )
        return super().assigned(assignment, scope)

    def call(self, expr: Call, scope: Scope) -> int:
        if expr.function in self.instances:
            return self.layer(self.instances[expr.function], expr, scope)[0]
        if self.losses and self.library.has("loss", expr.function):
            return self.loss(expr, scope)
        return super().call(expr, scope)

    def loss(self, expr: Call, scope: Scope) -> int:
        """Call a loss: one value for each example."""
        definition = self.library.find("loss", expr.function, expr.place)
        spec = content(definition, schema.Loss)
        values = self.arguments(expr, scope, list(spec.inputs), ())
        inner, sizes = Scope({}), {}
        attributes = read_attributes(spec.attributes, {}, definition, {}, expr.place, expr.function)
        inner.names.update(attributes)
        self.bind_inputs(expr, spec.inputs, values, inner, sizes)
        self.builder.begin()
        equations = parse_equations(spec.equations, definition.document.locator(("equations",)))
        self.run(equations, inner, f"{expr.function}/")
        output = self.result(inner, spec.output, definition.document.place_of(("output",)))
        check_used(inner, spec.inputs, definition, "inputs", "input")
        check_read(equations, inner, ())
        info = {
            "kind": "loss",
            "label": expr.function,
            "definition": expr.function,
            "attributes": _plain(attributes),
            "roles": tuple(spec.inputs),
            "results": (spec.output,),
        }
        return self._close([values[n] for n in spec.inputs], [output], info)[0]

    def arguments(
        self, expr: Call, scope: Scope, inputs: Sequence[str], optional: Sequence[str]
    ) -> dict[str, int]:
        """Positional arguments are inputs; keywords are inputs or initial states."""
        if len(expr.arguments) > len(inputs):
            raise SpecError(
                f"{expr.function} takes {', '.join(inputs)}; found {len(expr.arguments)} arguments",
                expr.place,
            )
        values = {n: self.tensor(a, scope) for n, a in zip(inputs, expr.arguments, strict=False)}
        known = [*inputs, *optional]
        for name, argument in expr.keywords:
            if name not in known or name in values:
                problem = "is given twice" if name in values else "is unknown"
                raise SpecError(
                    f"{expr.function}: argument {name!r} {problem}{did_you_mean(name, known)} "
                    f"(known: {', '.join(known)})",
                    argument.place,
                )
            values[name] = self.tensor(argument, scope)
        for name in inputs:
            if name not in values:
                raise SpecError(f"{expr.function}: argument {name!r} is missing", expr.place)
        return values

    def bind_inputs(
        self,
        expr: Call,
        inputs: Mapping[str, Any],
        values: Mapping[str, int],
        inner: Scope,
        sizes: dict[str, Dim],
    ) -> None:
        """Match the arguments' shapes with the declared ones and put them in scope."""
        for name, declared in inputs.items():
            value = values[name]
            axes = declared.shape if isinstance(declared, schema.Input) else declared
            fail = self.failure(value, expr.place)
            match(f"{expr.function}: {name}", axes, self.type_of(value), sizes, inner.rest, fail)
            inner.names[name] = Tensor(value)
        for name, declared in inputs.items():
            bound = self.type_of(values[name]).bound
            wanted = declared.index if isinstance(declared, schema.Input) else None
            if wanted is None and bound is not None:
                raise self.failure(values[name], expr.place)(
                    f"{expr.function}: {name} is declared as floats, found an index"
                )
            if wanted is not None and sizes.setdefault(wanted, bound or Dim()) != bound:
                raise self.failure(values[name], expr.place)(
                    f"{expr.function}: {name} is an index below {wanted} = {sizes[wanted]}, "
                    + ("found floats" if bound is None else f"found one below {bound}")
                )

    def layer(self, instance: Instance, expr: Call, scope: Scope) -> list[int]:
        """Call a layer: its output, then its final states."""
        spec, document = instance.layer, instance.definition.document
        instance.calls += 1
        label = instance.name + (f"#{instance.calls}" if instance.calls > 1 else "")
        values = self.arguments(expr, scope, list(spec.inputs), list(spec.state))
        inner = Scope(dict(instance.attributes))
        sizes = {n: d for n, d in instance.attributes.items() if isinstance(d, Dim)}
        inner.used.update(sizes)
        self.bind_inputs(expr, spec.inputs, values, inner, sizes)
        self._states(instance, expr, values, sizes, inner.rest)
        self._variables(instance, sizes, inner.rest, expr.place)
        for name, port in {**instance.parameters, **instance.statistics}.items():
            inner.names[name] = Tensor(self.moved.get(port.value, port.value))
        inner.names.update({n: d for n, d in sizes.items() if n not in inner.names})
        self.builder.begin()
        if spec.scan is not None:
            output, finals = self._scan(instance, inner, values, label)
        else:
            text = spec.equations or (
                spec.training if self.phase == "training" else spec.inference
            )
            key = "equations" if spec.equations else self.phase
            equations = parse_equations(text or "", document.locator((key,)))
            self.run(equations, inner, f"{label}/")
            output = self.result(inner, spec.output or "", document.place_of(("output",)))
            check_read(equations, inner, spec.statistics)
            finals = [self._value(inner, n) for n in spec.statistics]
            for port, final in zip(instance.statistics.values(), finals, strict=True):
                self.moved[port.value] = final
        self._check_total(instance, inner)
        roles = [*spec.inputs, *spec.state, *spec.parameters, *spec.statistics]
        given = [values[n] for n in (*spec.inputs, *spec.state)]
        given += [self._value(inner, n) for n in spec.parameters]
        statistics = [port.value for port in instance.statistics.values()]
        info = {
            "kind": "layer",
            "instance": instance.name,
            "label": label,
            "definition": spec.layer,
            "attributes": _plain(instance.attributes),
            "sizes": dict(sizes),
            "roles": tuple(roles),
            "results": (spec.output or spec.scan.output if spec.scan else spec.output,
                        *spec.state, *spec.statistics),
        }
        results = self._close([*given, *statistics], [output, *finals], info)
        return results[: 1 + len(spec.state)]

    def _value(self, scope: Scope, name: str) -> int:
        bound = scope.names[name]
        assert isinstance(bound, Tensor)
        return bound.value

    def _close(self, inputs: list[int], outputs: list[int], info: dict[str, Any]) -> list[int]:
        body = self.builder.end(inputs, outputs)
        self.builder.append(
            Node("call", tuple(inputs), tuple(outputs), info, body, self.builder.place)
        )
        return outputs

    def _states(
        self,
        instance: Instance,
        expr: Call,
        values: dict[str, int],
        sizes: dict[str, Dim],
        rest: list[Dim],
    ) -> None:
        for name, state in instance.layer.state.items():
            shape = tuple(substitute(state.shape, sizes, tuple(rest)))
            if name not in values:
                fill = self.builder.constant(0.0 if state.init == "zeros" else 1.0)
                values[name] = self.builder.emit("broadcast_to", fill, shape=shape)
            elif self.type_of(values[name]) != Type(shape):
                raise self.failure(values[name], expr.place)(
                    f"{expr.function}: state {name} is {shape_text(shape)}"
                )

    def _variables(
        self, instance: Instance, sizes: dict[str, Dim], rest: list[Dim], place: Place
    ) -> None:
        """Make the parameters and statistics, or check that shared ones fit this call too."""
        spec, document = instance.layer, instance.definition.document
        for section, ports in (
            ("parameters", instance.parameters),
            ("statistics", instance.statistics),
        ):
            declared: Mapping[str, schema.Parameter] = getattr(spec, section)
            for name, parameter in declared.items():
                shape: list[Dim] = []
                for axis in parameter.shape:
                    at = document.place_of((section, name, "shape"))
                    shape.extend(rest if axis == REST else [read_dim(axis, sizes, at)])
                full = f"{instance.name}.{name}"
                if name in ports:
                    self._check_shared(ports[name], tuple(shape), full, place)
                    continue
                init = instance.init.get(name, parameter.init)
                at = document.place_of((section, name, "init"))
                law = read_init(init, tuple(shape), parameter.block, sizes, instance.name, at)
                value = self.builder.value(Type(tuple(shape)), full)
                self.places[value] = place
                ports[name] = Port(full, value, law)

    def _check_shared(self, port: Port, shape: Shape, full: str, place: Place) -> None:
        made = self.type_of(port.value).shape
        if made != shape:
            raise SpecError(
                f"{full} is shared, {shape_text(made)} since {self.places[port.value]}, "
                f"but {shape_text(shape)} here",
                place,
            )

    def _scan(
        self, instance: Instance, inner: Scope, values: Mapping[str, int], label: str
    ) -> tuple[int, list[int]]:
        spec, document = instance.layer, instance.definition.document
        assert spec.scan is not None
        sequences, slices = [], []
        for slice_name, source in spec.scan.over.items():
            at = document.place_of(("scan", "over", slice_name))
            if source not in spec.inputs:
                hint = did_you_mean(source, spec.inputs)
                raise SpecError(f"cannot scan over {source!r}: it is no input{hint}", at)
            inner.used.add(source)
            sequence = self.builder.swap_first_two(values[source])
            sequences.append(sequence)
            type_ = self.type_of(sequence)
            slices.append(self.builder.value(Type(type_.shape[1:], type_.kind, type_.bound),
                                             f"{label}/{slice_name}"))
            inner.names[slice_name] = Tensor(slices[-1])
        carries = [self.builder.value(self.type_of(values[n])) for n in spec.state]
        for name, carry in zip(spec.state, carries, strict=True):
            inner.names[name] = Tensor(carry)
        self.builder.begin()
        equations = parse_equations(spec.scan.step, document.locator(("scan", "step")))
        self.run(equations, inner, f"{label}/")
        at = document.place_of(("scan", "output"))
        output = self.result(inner, spec.scan.output, at)
        check_read(equations, inner, spec.state)
        after = [self._value(inner, name) for name in spec.state]
        body = self.builder.end([*carries, *slices], [*after, output])
        last, stacked = self.builder.scan(body, [values[n] for n in spec.state], sequences)
        return self.builder.swap_first_two(stacked[0]), last

    def _check_total(self, instance: Instance, inner: Scope) -> None:
        spec, definition = instance.layer, instance.definition
        if spec.inference is not None and self.phase == "inference":
            return  # inference needs less: what the two forms use is checked in training
        for section in ("inputs", "attributes", "parameters", "state", "statistics"):
            names = getattr(spec, section)
            check_used(inner, names, definition, section, section.rstrip("s").replace("ie", "y"))


def read_attributes(
    declared: Mapping[str, float | str],
    given: Mapping[str, Any],
    definition: Definition,
    sizes: Mapping[str, Dim],
    place: Place,
    owner: str,
    place_of: Any = None,
) -> dict[str, Attribute]:
    """Attributes of a layer or loss: defaults, then what the model gives, checked by kind."""
    result: dict[str, Attribute] = {}
    for name in given:
        if name not in declared:
            at = place_of(name, True) if place_of else place
            raise SpecError(
                f"unknown attribute {name!r} of {owner}{did_you_mean(name, declared)} "
                f"(known: {', '.join(declared) or 'none'})",
                at,
            )
    for name, default in declared.items():
        value = given.get(name, default)
        at = place_of(name, False) if place_of and name in given else place
        if default == "size":
            if name not in given:
                raise SpecError(f"attribute {name!r} of {owner} is missing: give a size", place)
            result[name] = read_dim(value, sizes, at)
        elif isinstance(default, str):
            if not isinstance(value, str):
                raise SpecError(f"attribute {name!r} names a function, found {value!r}", at)
            result[name] = FunctionName(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise SpecError(f"attribute {name!r} is a number, found {value!r}", at)
        else:
            result[name] = float(value)
    return result


def _plain(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    return {n: a.function if isinstance(a, FunctionName) else a for n, a in attributes.items()}
