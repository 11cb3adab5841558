"""Calls whose equations become the body of one call node, so that a backend may run its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.language import schema
from harness.language.attributes import plain
from harness.language.call_arguments import attributes_of, inputs_of
from harness.language.declared_axes import match
from harness.language.evaluate import Evaluator
from harness.language.expressions import Call, parse_equations
from harness.language.input_types import NAMES, entries_of
from harness.language.library import content
from harness.language.loss_scans import scan_states
from harness.language.meaning import meaning
from harness.language.scope import BoundValue, Scope, check_read, check_used
from harness.program.dims import Dim
from harness.program.ir import Kind, Node

# How the name of a loss starts whose target is class indices.
SPARSE = "sparse_"
SINGULAR: Mapping[str, str] = {
    "inputs": "input",
    "attributes": "attribute",
    "parameters": "parameter",
    "state": "state",
    "noise": "noise",
    "statistics": "statistic",
}


class CallEvaluator(Evaluator):
    """Evaluates equations in which losses may be called."""

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        names = super().callable_names(scope)
        return tuple(sorted([*names, *self.library.names("loss")])) if scope.losses else names

    def call(self, expr: Call, scope: Scope) -> int:
        name = expr.function
        if scope.losses and name not in scope.names and self.library.has("loss", name):
            return self.loss(expr, scope)
        return super().call(expr, scope)

    def loss(self, expr: Call, scope: Scope) -> int:
        """Call a loss: one value for each example. Keywords may be attributes."""
        name = expr.function
        definition = self.library.find("loss", name, expr.place)
        spec, document = content(definition, schema.Loss), definition.document
        attributes = attributes_of(
            self.library, f"loss {name!r}", expr, spec.attributes, document, scope
        )
        values = inputs_of(self, expr, scope, list(spec.inputs), attributes=list(spec.attributes))
        inner = Scope(dict(attributes))
        sizes = {n: d for n, d in attributes.items() if isinstance(d, Dim)}
        self.bind_inputs(expr, spec.inputs, values, inner, sizes)
        inner.names.update({n: d for n, d in sizes.items() if n not in inner.names})
        self.builder.begin()
        with self.called(name, expr.place):
            scan_states(self, spec, document, inner, sizes)
            equations = parse_equations(spec.equations, document.locator(("equations",)))
            self.run(equations, inner, f"{name}/")
            output = self.result(inner, spec.output, document.place_of(("output",)))
            for section in ("inputs", "attributes"):
                check_used(inner, getattr(spec, section), document, section, SINGULAR[section])
            check_read(equations, inner, ())
        info = {
            "kind": "loss",
            "label": name,
            "definition": name,
            "meaning": meaning(self.library, "loss", name, attributes),
            "attributes": plain(attributes),
            "roles": tuple(spec.inputs),
            "results": (spec.output,),
        }
        (result,) = self.close([values[n] for n in spec.inputs], [output], info)
        self.places[result] = expr.place
        return result

    def bind_inputs(
        self,
        expr: Call,
        inputs: Mapping[str, Any],
        values: Mapping[str, int],
        inner: Scope,
        sizes: dict[str, Dim],
    ) -> None:
        """Match the arguments' kinds and shapes with the declared ones and put them in scope."""
        for name, declared in inputs.items():
            found = self.type_of(values[name])
            if (wanted := entries_of(declared)).kind != found.kind:
                raise self.failure(values[name], expr.place)(
                    f"{expr.function}: {name} is declared as {NAMES[wanted.kind]}, found "
                    f"{NAMES[found.kind]}{self._twin(expr.function, found.kind)}"
                )
        for name, declared in inputs.items():
            value = values[name]
            axes = declared.shape if isinstance(declared, schema.Input) else declared
            fail = self.failure(value, expr.place)
            match(f"{expr.function}: {name}", axes, self.type_of(value), sizes, inner.rest, fail)
            inner.names[name] = BoundValue(value)
        for name, declared in inputs.items():
            found = self.type_of(values[name])
            fail = self.failure(values[name], expr.place)
            wanted = entries_of(declared)
            if wanted.size is None or found.bound is None:
                continue
            most = found.bound - wanted.more
            size = wanted.size
            known = Dim(size) if isinstance(size, int) else sizes.setdefault(size, most)
            if known != most:
                told = "" if isinstance(size, int) else f"{size}{' + 1' * wanted.more} = "
                raise fail(
                    f"{expr.function}: {name} is an index below {told}{known + wanted.more}, "
                    f"found one below {found.bound}"
                )

    def _twin(self, loss: str, found: Kind) -> str:
        """The loss that takes class indices where this one takes floats, or the other way round."""
        twin, of = f"{SPARSE}{loss}", "class indices"
        if loss.startswith(SPARSE):
            twin, of = loss.removeprefix(SPARSE), "floats"
        fits = found == ("float" if loss.startswith(SPARSE) else "index")
        return f"; {twin} takes {of}" if fits and self.library.has("loss", twin) else ""

    def close(self, inputs: list[int], outputs: list[int], info: dict[str, Any]) -> list[int]:
        """End the body; a result is a value of its own even where it is just an argument."""
        if outputs[0] in inputs or outputs[0] in outputs[1:]:
            outputs[0] = self.builder.emit("multiply", self.builder.constant(1.0), outputs[0])
        body = self.builder.end(inputs, outputs)
        self.builder.append(
            Node("call", tuple(inputs), tuple(outputs), info, body, self.builder.place)
        )
        return outputs
