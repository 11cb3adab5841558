"""Trainings as rows of a table, on a page and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.inputs import TrainedWeights

TRAINED = ("training", "epochs", "loss", "held out", "metrics held out")


def trained(trainings: Sequence[TrainedWeights]) -> list[list[str]]:
    """A row of :data:`TRAINED` for each that has ended an epoch, with what its last one came to."""
    rows = []
    for training in trainings:
        epochs = training.history.epochs
        if epochs:
            held, metrics = epochs[-1].held_out_loss, epochs[-1].held_out_metrics
            rows.append(
                [
                    f"{training.spec} on {training.history.backend} ({training.name})",
                    str(len(epochs)),
                    f"{epochs[-1].loss:.4g}",
                    "" if held is None else f"{held:.4g}",
                    ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()),
                ]
            )
    return rows
