"""The graph of a traced model whose lengths are expressions of free sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.arrays import Array

# A length or number: a constant, or an expression of free sizes.
Dim = int | str


def minus_one(length: Dim) -> Dim:
    """Return the last index of an axis of this length."""
    return length - 1 if isinstance(length, int) else f"{length} - 1"


@dataclass(frozen=True)
class TracedCall:
    """A call of a traced model, whose lengths and numbers may be expressions of free sizes.

    ``values`` has the numbers of a call that depends on no input, one array per trace.
    """

    name: str
    op: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any]
    shape: tuple[Dim, ...]
    kind: str = "float"
    modules: tuple[tuple[str, str], ...] = ()
    place: str = ""
    values: tuple[Array, ...] | None = field(default=None, compare=False)

    @property
    def sources(self) -> list[str]:
        """The names of the calls among the inputs; the other inputs are numbers."""
        return [i for i in self.inputs if isinstance(i, str)]

    def with_inputs(self, inputs: Sequence[Any]) -> TracedCall:
        """Return the same call with other inputs."""
        return replace(self, inputs=tuple(inputs))


@dataclass(frozen=True)
class ModelGraph:
    """A model's graph with free sizes.

    Attributes:
        calls: The calls, in an order in which each follows its inputs.
        outputs: The names of the calls that the model returns, by output name.
        weights: The shape of each of the model's arrays, and whether it is trained.
        sizes: The free sizes, each with its length in every trace.
        config: The whole numbers of the model's configuration.
        names: The paths that replace paths of layers in the spec; empty for made-up names.
    """

    calls: tuple[TracedCall, ...]
    outputs: Mapping[str, str]
    weights: Mapping[str, tuple[tuple[int, ...], bool]]
    sizes: Mapping[str, tuple[int, ...]]
    config: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, TracedCall]:
        """The calls by name."""
        return {call.name: call for call in self.calls}

    @property
    def unused_weights(self) -> list[str]:
        """The trained arrays on which no output depends."""
        calls, waiting = self.by_name, [*self.outputs.values()]
        seen: set[str] = set()
        # The starts of the names of all arrays of a layer, which has rules instead of their names.
        starts: tuple[str, ...] = ()
        while waiting:
            name = waiting.pop()
            if name not in seen and (call := calls.get(name)) is not None:
                waiting += [*call.sources, *_texts(call.attributes)]
                starts += tuple(f"{theirs}." for _, theirs in call.attributes.get("rules", ()))
            seen.add(name)
        trained = [name for name, (_, is_trained) in self.weights.items() if is_trained]
        return [name for name in trained if name not in seen and not name.startswith(starts)]


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested attributes, e.g. the names of a layer's weights."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, TracedCall):
        yield from _texts((value.inputs, value.attributes))
    elif isinstance(value, Mapping):
        yield from _texts([*value.values()])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
