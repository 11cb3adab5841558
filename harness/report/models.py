"""The models that a run has checked, as a report shows them: sizes, layers, equations, loss."""

from __future__ import annotations

from dataclasses import dataclass

from harness.results.lines import CheckedModel


@dataclass(frozen=True)
class ModelView:
    """A model. ``facts`` are its sizes and layers, each a word and a text."""

    name: str
    facts: tuple[tuple[str, str], ...]
    equations: str
    loss: str


def model_view(name: str, told: CheckedModel) -> ModelView:
    """A model as the head of a record file has it."""
    sizes = ", ".join(f"{size} {number}" for size, number in told.sizes.items())
    layers = ", ".join(
        layer if layer == definition else f"{layer} ({definition})"
        for layer, definition in told.layers.items()
    )
    facts = (("sizes of most checks", sizes), ("layers", layers))
    return ModelView(
        name, tuple(fact for fact in facts if fact[1]), told.equations.rstrip(), told.loss
    )
