"""The calls of a graph during a rewrite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.porting.graph import Dim, ModelGraph, TracedCall


class Calls:
    """The calls of a graph during a rewrite, in order.

    ``weights`` holds the shape of each of the model's arrays, and whether it is trained.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.by_name = graph.by_name
        self.outputs = dict(graph.outputs)
        self.weights = graph.weights
        self.count = 0
        # How often the value of each call that was rewritten is used.
        self.uses: Counter[str] = Counter()
        # The calls that use the value of each call, before the current rule.
        self.users: dict[str, list[TracedCall]] = {}

    def new(
        self,
        like: TracedCall,
        op: str,
        inputs: Sequence[Any],
        shape: Sequence[Dim],
        **attributes: Any,
    ) -> TracedCall:
        """Return a new call at the place of ``like``; it is not yet in the graph."""
        self.count += 1
        return replace(
            like,
            name=f"{like.name}_{self.count}",
            op=op,
            inputs=tuple(inputs),
            attributes=attributes,
            shape=tuple(shape),
            values=None,
        )

    def on(
        self, call: TracedCall, inputs: Sequence[Any], shape: Sequence[Dim], **changed: Any
    ) -> TracedCall:
        """Return the same call on other inputs, with some changed attributes, as a new call."""
        return replace(
            self.new(call, call.op, inputs, shape), attributes={**call.attributes, **changed}
        )

    def layer(
        self,
        like: TracedCall,
        layer: str,
        inputs: Sequence[Any],
        shape: Sequence[Dim],
        settings: Mapping[str, Any],
        weights: Mapping[str, Sequence[str]] | None = None,
        **more: Any,
    ) -> TracedCall:
        """Return a new call of a shipped layer; see
        :meth:`harness.runtime.own_model.graph.GraphBuilder.layer`."""
        attributes = {"layer": layer, "settings": settings, "weights": weights or {}, **more}
        return self.new(like, "layer", inputs, shape, channels=-1, **attributes)

    def rewrite(
        self,
        rule: Callable[[Calls, TracedCall, Mapping[str, TracedCall]], Iterable[TracedCall] | str],
    ) -> None:
        """Apply a rule to each call in order.

        The rule returns the calls that replace this call, the last of which has its value; or the
        name of a call with the same value.
        """
        done: dict[str, TracedCall] = {}
        names: dict[str, str] = {}
        sources = [name for call in self.by_name.values() for name in call.sources]
        uses = Counter([*sources, *self.outputs.values()])
        self.uses.clear()
        self.users = {name: [] for name in self.by_name}
        for call in self.by_name.values():
            for name in call.sources:
                self.users[name].append(call)
        for call in self.by_name.values():
            renamed = call.with_inputs([names.get(i, i) for i in call.inputs])
            result = rule(self, renamed, done)
            new_calls = [] if isinstance(result, str) else list(result)
            done.update((new.name, new) for new in new_calls)
            names[call.name] = result if isinstance(result, str) else new_calls[-1].name
            self.uses[names[call.name]] += uses[call.name]
        self.outputs = {n: names.get(v, v) for n, v in self.outputs.items()}
        self.by_name = done

    def drop_unused(self) -> None:
        """Remove calls whose value is not used, except inputs."""
        used = set(self.outputs.values())
        used_calls: list[TracedCall] = []
        for call in reversed(self.by_name.values()):
            if call.name in used or call.op == "input":
                used_calls.append(call)
                used.update(call.sources)
        self.by_name = {call.name: call for call in reversed(used_calls)}
