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
    layers = ", ".join(_layer(layer, told) for layer in told.layers)
    facts = (("sizes of most checks", sizes), ("layers", layers))
    return ModelView(
        name, tuple(fact for fact in facts if fact[1]), told.equations.rstrip(), told.loss
    )


def _layer(name: str, told: CheckedModel) -> str:
    """``norm (batch_norm, momentum 0.1)``: only the attributes that differ from the defaults."""
    definition, changed = told.layers[name], told.attributes.get(name, {})
    facts = [] if name == definition else [definition]
    facts += [f"{attribute} {value}" for attribute, value in changed.items()]
    return f"{name} ({', '.join(facts)})" if facts else name
