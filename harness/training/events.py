"""What is told of a training while it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.training.request import Setup


class TrainEvents:
    """What a run tells while it goes; override what is of interest."""

    def anew(self, place: Path) -> None:
        """The run was to be taken up, and there is no checkpoint: it begins at the first step."""

    def doubted(self, backend: str, doubts: Sequence[str]) -> None:
        """What of a backend looks like a mistake, when its worker has started."""

    def tried(self, seconds: Mapping[str, float]) -> None:
        """The paths were tried: seconds a step on each, of which the fastest is taken."""

    def proved(self, proof: Mapping[str, Any]) -> None:
        """The first steps are right: see :func:`harness.training.proof.prove`."""

    def began(self, setup: Setup, epoch: int, step: int) -> None:
        """The run begins, or is taken up, at a step of an epoch."""

    def stepped(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Steps were made: the mean loss of the epoch so far, characters a second of late."""

    def ended(self, entry: Mapping[str, Any]) -> None:
        """An epoch is done."""
