"""How a training goes through its rows: what the spec says of it, and what is usual."""

from __future__ import annotations

from collections.abc import Sequence

from harness.command.ranges import EPOCHS
from harness.errors import UsageError
from harness.language import schema
from harness.language.model import Spec

# The rows of a batch where neither spec nor request says how many.
BATCH = 32


def training_of(spec: Spec) -> schema.Training:
    """The spec's ``training``. Without one: one epoch, in batches of :data:`BATCH` shuffled rows,
    at the learning rate of its optimizer. Rows of a model that carries a state keep their order,
    and fill whole batches.

    Raises:
        UsageError: the spec has no optimizer.
    """
    if spec.update is None:
        raise UsageError(f"{spec.name} has no optimizer: it cannot be trained")
    if spec.model.training is not None:
        return spec.model.training
    rate = spec.update.attributes["learning_rate"]
    carries = bool(spec.programs["training"].state)
    return schema.Training(
        batch=BATCH,
        shuffle=not carries,
        whole_batches=carries,
        phases=[schema.Phase(epochs=1, learning_rate=rate)],
    )


def rates_of(spec: Spec, epochs: int | None) -> Sequence[float]:
    """The learning rate of each epoch: the spec's phases, cut or carried on to ``epochs``.

    Raises:
        UsageError: the spec has no optimizer, or its epochs are too many.
    """
    training = training_of(spec)
    EPOCHS.check(sum(phase.epochs for phase in training.phases), f"epochs of {spec.name}")
    rates = [phase.learning_rate for phase in training.phases for _ in range(phase.epochs)]
    if epochs is None:
        return rates
    return (rates + [rates[-1]] * epochs)[:epochs]
