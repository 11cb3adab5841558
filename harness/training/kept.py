"""What a worker hands over to be kept, held against what the model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.errors import HarnessError, UsageError
from harness.program.signature import check_arrays, port_shapes
from harness.program.updates import slot_shapes
from harness.training.request import Setup


class TrainingError(HarnessError):
    """The worker failed; ``traceback`` is its own."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


def check_kept(setup: Setup, found: Mapping[str, Any]) -> None:
    """A snapshot has every array of the model and its optimizer, of its shape, as floats.

    Raises:
        TrainingError: it has not; the message names the array.
    """
    program, rule = setup.training, setup.spec.update
    sizes = {"batch": setup.recipe.batch}
    slots = slot_shapes(rule, port_shapes(program, program.parameters)) if rule else {}
    groups = [
        ("parameter", port_shapes(program, program.parameters), found["parameters"]),
        ("statistic", port_shapes(program, program.statistics), found["statistics"]),
        ("state", port_shapes(program, program.state, sizes), found["state"]),
        *((f"slot {n} of", shapes, found["slots"].get(n, {})) for n, shapes in slots.items()),
    ]
    try:
        for group, shapes, given in groups:
            check_arrays(group, shapes, given)
            for name, array in given.items():
                if array.dtype not in (np.float32, np.float64):
                    raise UsageError(f"{group} {name}: expected floats, found {array.dtype}")
    except UsageError as error:
        raise TrainingError(f"{setup.request.backend} failed: snapshot: {error}") from None
