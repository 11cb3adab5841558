"""Evaluation of calls of layers and losses, with their states, loops and moving statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from harness.errors import Place, SpecError, several
from harness.files.forms import KeyPath
from harness.language import schema
from harness.language.attributes import Attribute, as_plain_data, evaluate_inputs
from harness.language.axes import find_size_names, read_dims
from harness.language.checksums import meaning, pseudo_layer_meaning
from harness.language.document import Document
from harness.language.evaluate import Evaluator
from harness.language.expressions import parse_equations
from harness.language.instances import (
    Instance,
    LayerCall,
    LayerMaker,
    Owner,
    make_noise,
    make_variables,
    passed_attributes,
)
from harness.language.library import Library, content
from harness.language.loops import SINGULAR, DeclaredLoop, check_same_type, make_slices, run_loop
from harness.language.scope import (
    BoundValue,
    Scope,
    check_assigned,
    check_read,
    check_used,
    select_sizes,
)
from harness.language.tree import Assignment, Call
from harness.program.dims import shape_text
from harness.program.ir import Composite, Meaning, Node, Phase, Type, needed_nodes

# Attributes of call nodes. Backends need them to run their own layers, and exports to write layers.


def layer_info(library: Library, call: LayerCall, noise: Iterable[str]) -> dict[str, Any]:
    """Return a dictionary with the attributes of the program's node for a layer call. ``noise`` has
    the names of the noise among the node's inputs."""
    spec = call.instance.layer
    return {
        **_common_info(call),
        "meaning": meaning(library, "layer", spec.layer, call.instance.attributes),
        "roles": (
            *(*spec.inputs, *spec.state, *noise),
            *(*call.instance.parameters, *spec.statistics, *spec.constants),
        ),
        "results": (*spec.outputs, *spec.state, *spec.statistics),
    }


def pseudo_layer_info(call: LayerCall, holder: Meaning, noise: Iterable[str]) -> dict[str, Any]:
    """Return the attributes of the program's node for the call of a pseudo-layer.

    A pseudo-layer computes nothing. It returns the parameters and noise that a model itself
    declares, or that a layer with nested layers itself declares. It has inputs only if there is
    noise, whose size depends on the inputs.
    """
    spec = call.instance.layer
    return {
        **_common_info(call),
        "meaning": pseudo_layer_meaning(holder),
        "roles": (
            *(spec.inputs if spec.noise else ()),
            *noise,
            *(*call.instance.parameters, *spec.constants),
        ),
        "results": (*call.instance.parameters, *spec.constants, *spec.noise),
    }


def _common_info(call: LayerCall) -> dict[str, Any]:
    return {
        "kind": "layer",
        "instance": call.instance.name,
        "label": call.label,
        "definition": call.instance.layer.layer,
        "attributes": as_plain_data(call.instance.attributes),
        "sizes": dict(call.sizes),
    }


class LayerEvaluator(Evaluator):
    """An evaluator of equations that may call layers and losses."""

    def __init__(self, library: Library, phase: Phase, numbers: Mapping[str, int]) -> None:
        super().__init__(library)
        self.phase = phase
        self.maker = LayerMaker(library, numbers)
        self.instances: dict[str, Instance] = {}
        self.composites: list[Composite] = []
        self.updated_statistics: dict[int, int] = {}  # statistic's value -> its new value

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        losses = self.library.names("loss") if scope.losses else ()
        return tuple(sorted([*super().callable_names(scope), *losses, *scope.layers]))

    def evaluate_assignment(self, assignment: Assignment, scope: Scope) -> Sequence[int]:
        """Evaluate the right side of an assignment; return a value for each name on the left side.

        The results of a layer are its outputs and its final states. A single name gets the first.

        Raises:
            SpecError: the number of names differs from the number of results.
        """
        expr = assignment.value
        if not (isinstance(expr, Call) and expr.function in scope.layers):
            return super().evaluate_assignment(assignment, scope)
        with self.with_place(expr.place):
            results = self.call_layer(scope.layers[expr.function], expr, scope)
        count = len(assignment.targets)
        if count in (1, len(results)):
            return results[:count]
        layer = scope.layers[expr.function].layer
        outputs = layer.outputs if len(layer.outputs) > 1 else ("y",)
        names = ", ".join((*outputs, *layer.state)[: len(results)])
        contents = "its outputs" if len(outputs) > 1 else "its output"
        states = " and then its states" if len(results) > len(outputs) else ""
        raise SpecError(
            f"{expr.function} returns {several(len(results), 'result')}, {contents}{states}; "
            f"{count} names are assigned: write '{names} = {expr.function}(...)'",
            assignment.place,
        )

    def call(self, expr: Call, scope: Scope) -> int:
        if expr.function in scope.layers:
            return self.call_layer(scope.layers[expr.function], expr, scope)[0]
        name = expr.function
        if scope.losses and name not in scope.names and self.library.has("loss", name):
            return self.call_loss(expr, scope)
        return super().call(expr, scope)

    def call_loss(self, expr: Call, scope: Scope) -> int:
        """Evaluate the call of a loss. Return a value with one loss for each example."""
        name = expr.function
        definition = self.library.find("loss", name, expr.place)
        spec = content(definition, schema.Loss)
        inner, values, attributes = self.evaluate_arguments(
            "loss", name, spec, definition, expr, scope
        )
        self.builder.begin()
        with self.with_call_place(name, expr.place):
            if spec.scan is not None:
                self._append_loss_scan(spec, spec.scan, definition.document, inner)
            output = self.inline_equations(spec, definition.document, inner, f"{name}/")
        info = {
            "kind": "loss",
            "label": name,
            "definition": name,
            "meaning": meaning(self.library, "loss", name, attributes),
            "attributes": as_plain_data(attributes),
            "roles": tuple(spec.inputs),
            "results": (spec.output,),
        }
        (result,) = self.append_call([values[n] for n in spec.inputs], [output], info)
        self.places[result] = expr.place
        return result

    def append_call(
        self, inputs: list[int], outputs: list[int], info: dict[str, Any], count: int = 1
    ) -> list[int]:
        """End the open body of nodes, and append a call node with this body. ``info`` has the
        node's attributes. Return the value numbers of its results.

        The results must be new, different values. If one of the first ``count`` outputs is also an
        input or another output, a copy replaces it.
        """
        for number, output in enumerate(outputs[:count]):
            if output in inputs or output in outputs[:number] + outputs[number + 1 :]:
                outputs[number] = self._copy(output)
        body = self.builder.end(inputs, outputs)
        # Leave out values that only the unused side of a `where` has computed.
        body = replace(body, nodes=needed_nodes(body.nodes, outputs))
        self.builder.append(
            Node("call", tuple(inputs), tuple(outputs), info, body, self.builder.place)
        )
        return outputs

    def _append_loss_scan(
        self, spec: schema.Loss, scan: schema.LossScan, document: Document, inner: Scope
    ) -> None:
        """Append the loop of a loss to the program. In the scope ``inner``, bind the names of the
        states to their values after the last step."""
        starts, carries = [], []
        step_scope = Scope(dict(inner.names), frozenset(spec.state), inner.rest)
        for name, state in spec.state.items():
            inner.used.update(find_size_names(state.shape))
            place_of = partial(_axis_place, document, ("state", name, "shape"))
            shape = read_dims(state.shape, select_sizes(inner.names), inner.rest, place_of)
            starts.append(self.builder.filled(state.start, shape))
            carries.append(self.builder.value(Type(shape)))
        loop = DeclaredLoop(
            document, ("scan",), scan.over, scan.step, step_scope, spec.loss, list(spec.inputs)
        )
        slices = make_slices(self, loop)
        last, _ = run_loop(self, loop, spec.state, starts, carries, slices)
        check_used(step_scope, spec.state, document, "state", "state")
        inner.used |= step_scope.used
        inner.names |= dict(zip(spec.state, map(BoundValue, last), strict=True))

    def call_layer(self, instance: Instance, expr: Call, scope: Scope) -> list[int]:
        """Evaluate the call of a layer. Return the values of its outputs and of its final states.
        For a chain of repeated layers (key ``repeat``), return its outputs only."""
        spec = instance.layer
        inputs = list(spec.inputs)
        states = () if instance.chain else list(spec.state)
        values = evaluate_inputs(self, expr, scope, inputs, states)
        if not instance.chain:
            return self._apply_layer(instance, expr, values)
        instance.calls += 1
        results: list[int] = []
        for link in instance.inner.values():
            results = self._apply_layer(link, expr, dict(values))[: len(spec.outputs)]
            values.update(zip(inputs, results, strict=False))
        return results

    def _apply_layer(self, instance: Instance, expr: Call, values: dict[str, int]) -> list[int]:
        """Evaluate a single call of a layer with ``values`` for its inputs and states; return its
        results."""
        spec = instance.layer
        instance.calls += 1  # arguments may call the same layer, so count after them
        owner = instance.shares or instance
        owner.calls += owner is not instance
        label = instance.name + (f"#{owner.calls}" if owner.calls > 1 else "")
        inner = Scope(dict(instance.attributes), frozenset({*spec.state, *spec.statistics}))
        call = LayerCall(instance, expr.place, label, values, inner, instance.sizes)
        inner.used.update(call.sizes)
        self.bind_inputs(expr.function, expr, spec.inputs, values, inner, call.sizes)
        with self.with_call_place(instance.name, expr.place):
            if spec.layers:
                inputs, results = dict(values), self._inline_layer(call)
                about = (instance.name, label, spec.layer, as_plain_data(instance.attributes))
                ends = (inputs, dict(zip(spec.outputs, results, strict=True)))
                self.composites.append(Composite(*about, dict(call.sizes), *ends))
                return results
            return self._append_layer(call)

    def _inline_layer(self, call: LayerCall) -> list[int]:
        """Evaluate the call of a layer with nested layers: append the nodes of its equations to the
        program. Return its outputs."""
        instance, inner, spec = call.instance, call.scope, call.instance.layer
        document = instance.definition.document
        owner = Owner(
            document, f"{instance.name}.", call.sizes, instance.attributes, instance.inside
        )
        if not instance.inner:
            instance.inner = self.maker.make_layers(owner, spec.layers)
        for name, use in spec.layers.items():
            inner.used.update(passed_attributes(use, instance.attributes))
            self._check_same_attributes(
                call, name, self.maker.read_layer_attributes(owner, name, use)
            )
        inner.layers = instance.inner
        if spec.parameters or spec.constants or spec.noise:
            self.append_pseudo_layer(
                call, meaning(self.library, "layer", spec.layer, instance.attributes)
            )
        inner.names.update({n: d for n, d in call.sizes.items() if n not in inner.names})
        equations = parse_equations(str(spec.equations), document.locator(("equations",)))
        self.run_equations(equations, inner, f"{call.label}/")
        outputs = self._find_outputs(call)
        check_read(equations, inner, ())
        for name, part in instance.inner.items():
            if not part.calls:
                at = document.place_of_key(("layers", name))
                raise SpecError(f"layer {name!r} is declared but never called", at)
        self._check_all_used(call)
        for output in outputs:
            self.places.setdefault(output, call.place)
        return outputs

    def _find_outputs(self, call: LayerCall) -> list[int]:
        """Return the values that the equations of a layer have assigned to its outputs."""
        spec, document = call.instance.layer, call.instance.definition.document
        listed = not isinstance(spec.output, str)
        places = [
            document.place_of(("output", number) if listed else ("output",))
            for number in range(len(spec.outputs))
        ]
        pairs = zip(spec.outputs, places, strict=True)
        return [self.find_output(call.scope, name, place) for name, place in pairs]

    def append_pseudo_layer(self, call: LayerCall, holder: Meaning) -> None:
        """Append the call of a pseudo-layer (see :func:`pseudo_layer_info`), and bind its results
        (the parameters, the constants and the noise) in the scope of ``call``."""
        instance, spec = call.instance, call.instance.layer
        make_variables(call, self.builder, self.places)
        names = (*instance.parameters, *spec.constants, *spec.noise)
        self.builder.begin()
        noise = make_noise(call, self.builder, self.places, self.phase)
        ports = {**instance.parameters, **instance.constants}
        parameters = {n: port.value for n, port in ports.items()}
        # The size of the noise depends on the inputs.
        inputs = [call.values[n] for n in spec.inputs] if spec.noise else []
        values = [*parameters.values(), *(call.scope.value(n) for n in spec.noise)]
        results = list(map(self._copy, values))  # results must be new values
        info = pseudo_layer_info(call, holder, noise)
        taken = [*inputs, *noise.values(), *parameters.values()]
        results_of_call = self.append_call(taken, results, info)
        call.scope.names.update(zip(names, map(BoundValue, results_of_call), strict=True))
        self.places.update(dict.fromkeys(results_of_call, call.place))

    def _copy(self, value: int) -> int:
        """Append nodes that compute a copy of ``value``; return the new value."""
        if self.type_of(value).kind == "float":
            return self.builder.emit("multiply", self.builder.constant(1.0), value)
        return self.builder.emit("squeeze", self.builder.emit("expand_dims", value, axis=0), axis=0)

    def _check_same_attributes(
        self, call: LayerCall, name: str, attributes: Mapping[str, Attribute]
    ) -> None:
        part = call.instance.inner[name]
        for attribute, value in attributes.items():
            if value != part.attributes[attribute]:
                raise SpecError(
                    f"{part.name} is shared: {attribute} was {part.attributes[attribute]} in an "
                    f"earlier call, and is {value} here",
                    call.place,
                )

    def _append_layer(self, call: LayerCall) -> list[int]:
        """Append the call node of a layer without nested layers; return the value numbers of its
        results. A backend may run a layer of its framework instead of the equations in this node.
        """
        instance, inner, values = call.instance, call.scope, call.values
        spec = instance.layer
        self.add_initial_states(call)
        make_variables(call, self.builder, self.places)
        for name, port in (
            *(*instance.parameters.items(), *instance.statistics.items()),
            *instance.constants.items(),
        ):
            inner.names[name] = BoundValue(self.updated_statistics.get(port.value, port.value))
        inner.names.update({n: d for n, d in call.sizes.items() if n not in inner.names})
        self.builder.begin()
        noise = make_noise(call, self.builder, self.places, self.phase)
        inputs = [*(values[n] for n in (*spec.inputs, *spec.state)), *noise.values()]
        inputs += [
            inner.value(n) for n in (*instance.parameters, *spec.statistics, *spec.constants)
        ]
        if spec.scan:
            output, finals = self._append_scan(call, spec.scan, ("scan",), list(spec.state), inner)
            outputs = [output]
        else:
            outputs, finals = self._run_equations(call)
        self._check_all_used(call)
        info = layer_info(self.library, call, noise)
        results = self.append_call(inputs, [*outputs, *finals], info, len(outputs))
        results = results[: len(outputs) + len(spec.state)]
        self.places.update(dict.fromkeys(results, call.place))
        return results

    def _run_equations(self, call: LayerCall) -> tuple[list[int], list[int]]:
        """Evaluate the equations of a layer; return its outputs, and a list with the final states
        and the new statistics."""
        instance, inner = call.instance, call.scope
        spec, document = instance.layer, instance.definition.document
        finals = self.append_scans(call) if spec.scans else []
        key = "equations" if spec.equations is not None else self.phase
        equations = parse_equations(getattr(spec, key), document.locator((key,)))
        if key == "inference":
            inner.changing = frozenset()
        self.run_equations(equations, inner, f"{call.label}/")
        check_used(inner, spec.scans, document, "scans", "scan")
        outputs = self._find_outputs(call)
        check_read(equations, inner, spec.statistics)
        if key == "training":
            names = spec.statistics
            check_assigned(inner, names, document, "statistics", "statistic")
        for name, port in instance.statistics.items():
            finals.append(inner.value(name))
            check_same_type(self, document, inner, "statistics", name, port.value, finals[-1])
            self.updated_statistics[port.value] = finals[-1]
        return outputs, finals

    def add_initial_states(self, call: LayerCall) -> None:
        """Complete ``call.values``: a state that is not an argument of the call gets its initial
        value."""
        for name, state in call.instance.layer.state.items():
            shape = call.dims("state", name, state.shape)
            if name not in call.values:
                fill = self.builder.constant(state.start)
                call.values[name] = self.builder.emit("broadcast_to", fill, shape=shape)
            elif self.type_of(call.values[name]) != Type(shape):
                raise self.error_about(call.values[name], call.place)(
                    f"{call.instance.name}: state {name} must have shape {shape_text(shape)}"
                )

    def append_scans(self, call: LayerCall) -> list[int]:
        """Append all loops of a layer (key ``scans``) to the program. In the scope of ``call``,
        bind the names of their outputs and final states. Return the final states."""
        spec, inner = call.instance.layer, call.scope
        last: dict[str, int] = {}
        outer_names = dict(inner.names)
        for name, scan in spec.scans.items():
            inner_scope = Scope(dict(outer_names), frozenset(scan.carries), inner.rest)
            stacked, after = self._append_scan(
                call, scan, ("scans", name), scan.carries, inner_scope
            )
            inner.names[name] = BoundValue(stacked)
            last |= dict(zip(scan.carries, after, strict=True))
            inner.used |= inner_scope.used - inner_scope.assigned.keys() | inner_scope.used & set(
                scan.carries
            )
        inner.names |= {name: BoundValue(value) for name, value in last.items()}
        inner.changing = frozenset()
        return [last[name] for name in spec.state]

    def _append_scan(
        self,
        call: LayerCall,
        scan: schema.Scan,
        path: KeyPath,
        carried: Sequence[str],
        scope: Scope,
    ) -> tuple[int, list[int]]:
        """Append one loop to the program. Return two things: its output at all steps as one value,
        and the values of the carried states after the last step. ``carried`` names these states."""
        layer = call.instance.layer
        loop = DeclaredLoop(
            document=call.instance.definition.document,
            path=path,
            over=scan.over,
            step=scan.step,
            scope=scope,
            label=call.label,
            sources=(*layer.inputs, *layer.noise),
            others=", nor noise" if layer.noise else "",
            axis=scan.axis,
            means=call.means,
        )
        slices = make_slices(self, loop)
        starts = [call.values[name] for name in carried]
        carries = [self.builder.value(self.type_of(value)) for value in starts]
        reverse = scan.reverse
        if not isinstance(reverse, bool):
            attribute = call.instance.attributes.get(reverse)
            if not isinstance(attribute, bool):
                raise SpecError(
                    f"reverse must be true, false or a boolean attribute, found {reverse!r}",
                    loop.document.place_of((*path, "reverse")),
                )
            scope.used.add(reverse)
            reverse = attribute
        last, (stacked,) = run_loop(
            self, loop, carried, starts, carries, slices, scan.output, reverse
        )
        return stacked, last

    def _check_all_used(self, call: LayerCall) -> None:
        spec, definition, inner = call.instance.layer, call.instance.definition, call.scope
        if spec.inference is not None and self.phase == "inference":
            return  # only training must use all declared names
        for section, singular in SINGULAR.items():
            check_used(inner, getattr(spec, section), definition.document, section, singular)


def _axis_place(document: Document, path: KeyPath, number: int) -> Place:
    return document.place_of((*path, number))
