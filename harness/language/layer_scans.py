"""The loops of layers over the steps of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.errors import SpecError, did_you_mean
from harness.files.complaints import KeyPath
from harness.language import schema
from harness.language.expressions import parse_equations
from harness.language.instances import LayerCall
from harness.language.loss_calls import SINGULAR, CallEvaluator
from harness.language.scope import BoundValue, Scope, check_assigned, check_read, check_used
from harness.program.dims import Dim, shape_text
from harness.program.ir import Type


class ScanEvaluator(CallEvaluator):
    """Evaluates the loops of a layer, and what becomes of its states."""

    def states_of(self, call: LayerCall) -> None:
        """The initial states: those given, else what the definition says."""
        for name, state in call.instance.layer.state.items():
            shape = call.dims("state", name, state.shape)
            if name not in call.values:
                fill = self.builder.constant(state.start)
                call.values[name] = self.builder.emit("broadcast_to", fill, shape=shape)
            elif self.type_of(call.values[name]) != Type(shape):
                raise self.failure(call.values[name], call.place)(
                    f"{call.instance.name}: state {name} is {shape_text(shape)}"
                )

    def check_kept(
        self, call: LayerCall, section: str, name: str, wanted: Type, value: int
    ) -> None:
        """Check that a state or a statistic keeps its shape."""
        if self.type_of(value) != wanted:
            at = call.instance.definition.document.place_of_key((section, name))
            raise self.failure(value, call.scope.assigned.get(name, at))(
                f"{SINGULAR[section]} {name!r} is {wanted}, and cannot become {self.type_of(value)}"
            )

    def one_scan(self, call: LayerCall) -> tuple[int, list[int]]:
        """The stacked output and the last states of a layer's loop over time."""
        spec = call.instance.layer
        assert spec.scan is not None
        return self._loop(call, spec.scan, ("scan",), list(spec.state))

    def several_scans(self, call: LayerCall) -> list[int]:
        """The last states of several loops. Their stacked outputs come into scope by their names,
        and states as they are after the last step. What a step assigns is its own."""
        spec, inner = call.instance.layer, call.scope
        last: dict[str, int] = {}
        given = dict(inner.names)
        for name, scan in spec.scans.items():
            own = Scope(dict(given), frozenset(scan.carries), inner.rest)
            part = replace(call, scope=own)
            stacked, after = self._loop(part, scan, ("scans", name), scan.carries)
            inner.names[name] = BoundValue(stacked)
            last |= dict(zip(scan.carries, after, strict=True))
            inner.used |= own.used - own.assigned.keys() | own.used & set(scan.carries)
        inner.names |= {name: BoundValue(value) for name, value in last.items()}
        inner.changing = frozenset()
        return [last[name] for name in spec.state]

    def _loop(
        self, call: LayerCall, scan: schema.Scan, path: KeyPath, carried: Sequence[str]
    ) -> tuple[int, list[int]]:
        """The stacked output of a loop, and what it carries after the last step."""
        document, inner = call.instance.definition.document, call.scope
        sequences, slices = self._slices(call, scan, path)
        carries = [self.builder.value(self.type_of(call.values[n])) for n in carried]
        inner.names.update(zip(carried, map(BoundValue, carries), strict=True))
        self.builder.begin()
        equations = parse_equations(scan.step, document.locator((*path, "step")))
        self.run(equations, inner, f"{call.label}/")
        at = document.place_of((*path, "output"))
        output = self.result(inner, scan.output, at)
        axis = scan.axis
        if len(self.type_of(output).shape) < axis:
            told = "the axis batch" if axis == 1 else f"{axis} axes, after which the steps come"
            raise self.failure(output, at)(f"the output of a step needs {told}")
        check_read(equations, inner, carried)
        check_assigned(inner, carried, document, "state", "state")
        check_used(inner, scan.over, document, (*path, "over"), "slice")
        after = [inner.value(name) for name in carried]
        for name, value in zip(carried, after, strict=True):
            self.check_kept(call, "state", name, self.type_of(call.values[name]), value)
        body = self.builder.end([*carries, *slices], [*after, output])
        first = [call.values[n] for n in carried]
        backwards = self._backwards(call, scan, path)
        last, stacked = self.builder.scan(body, first, sequences, reverse=backwards)
        return self.builder.axis_back(stacked[0], axis), last

    def _backwards(self, call: LayerCall, scan: schema.Scan, path: KeyPath) -> bool:
        """Whether a scan goes from the last step to the first."""
        if isinstance(scan.reverse, bool):
            return scan.reverse
        found = call.instance.attributes.get(scan.reverse)
        if not isinstance(found, bool):
            raise SpecError(
                f"reverse is true, false, or an attribute that is, found {scan.reverse!r}",
                call.instance.definition.document.place_of((*path, "reverse")),
            )
        call.scope.used.add(scan.reverse)
        return found

    def _slices(
        self, call: LayerCall, scan: schema.Scan, path: KeyPath
    ) -> tuple[list[int], list[int]]:
        """The inputs with the steps first, and one step's slice of each, which come into scope."""
        instance, inner = call.instance, call.scope
        document = instance.definition.document
        sequences: list[int] = []
        slices: list[int] = []
        lengths: list[Dim] = []
        known = (*instance.layer.inputs, *instance.layer.noise)
        for name, source in scan.over.items():
            at = document.place_of((*path, "over", name))
            if source not in known:
                hint = did_you_mean(source, known)
                nor = ", nor noise" if instance.layer.noise else ""
                raise SpecError(f"cannot scan over {source!r}: it is not an input{nor}{hint}", at)
            value = inner.value(source)
            type_ = self.type_of(value)
            axis = scan.axis
            if len(type_.shape) <= axis:
                raise self.failure(value, at)(f"a scan goes over axis {axis}, and there is none")
            inner.used.add(source)
            lengths.append(type_.shape[axis])
            if lengths[-1] != lengths[0]:
                raise self.failure(value, at)(
                    f"the inputs of a scan have the same length, found {lengths[-1]} "
                    f"after {lengths[0]}"
                )
            rest = (*type_.shape[:axis], *type_.shape[axis + 1 :])
            one = Type(rest, type_.kind, type_.bound)
            if source in call.means:  # the same at every step
                inner.names[name] = BoundValue(self.builder.filled(call.means[source], one.shape))
                continue
            sequences.append(self.builder.axis_first(value, axis))
            slices.append(self.builder.value(one, f"{call.label}/{name}"))
            inner.names[name] = BoundValue(slices[-1])
        return sequences, slices
