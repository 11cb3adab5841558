"""Client with which the harness controls a training in a worker; :mod:`harness.training.service` is
the worker's side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.errors import CouldNotRun, UsageError
from harness.program.serial import encoded
from harness.program.signature import check_arrays, index_names, port_shapes
from harness.program.updates import slot_shapes
from harness.runtime.answers import Beginning, Snapshot
from harness.training.request import Setup
from harness.training.service import PREFIX, TrainService
from harness.worker.answers import Forms
from harness.worker.remote import WorkerFault, call_or_raise, client
from harness.worker.worker import Worker

# Checks of a worker's snapshot against the model.


FORMS = Forms(TrainService, PREFIX)


class TrainingError(CouldNotRun):
    """Error: the worker of a training failed."""


def check_snapshot(setup: Setup, snapshot: Snapshot) -> None:
    """Check that ``snapshot``, the current values of a worker's training, has every array of the
    model and optimizer as floats, and in the right shape.

    Raises:
        TrainingError: an array is missing or wrong; the message names it.
    """
    program, rule = setup.training, setup.spec.update
    sizes = {"batch": setup.recipe.batch}
    whole = index_names(program)
    slots = slot_shapes(rule, port_shapes(program, program.parameters)) if rule else {}
    groups = [
        ("parameter", port_shapes(program, program.parameters), snapshot["parameters"]),
        ("statistic", port_shapes(program, program.statistics), snapshot["statistics"]),
        ("state", port_shapes(program, program.state, sizes), snapshot["state"]),
        *((f"slot {n} of", shapes, snapshot["slots"].get(n, {})) for n, shapes in slots.items()),
    ]
    try:
        for group, shapes, arrays in groups:
            check_arrays(group, shapes, arrays)
            for name, array in arrays.items():
                if name not in whole and array.dtype not in (np.float32, np.float64):
                    raise UsageError(f"{group} {name}: expected floats, found {array.dtype}")
    except UsageError as error:
        raise TrainingError(f"{setup.request.backend} failed: snapshot: {error}") from None


@dataclass(frozen=True)
class TrainRemote:
    """A client that controls the training in a worker. ``setup`` is the checked request with its
    spec and data."""

    worker: Worker
    setup: Setup

    @cached_property
    def calls(self) -> TrainService:
        """The methods of :class:`TrainService`, which run in the worker. They raise
        :class:`UsageError` or :class:`TrainingError`."""
        return client(TrainService, self._ask, PREFIX)

    def begin(self, path: str) -> Beginning:
        """Begin a training on the execution path ``path``. The parameters must be loaded
        afterwards."""
        setup, request = self.setup, self.setup.request
        return self.calls.begin(
            training=encoded(setup.training),
            inference=encoded(setup.inference),
            rule=encoded(setup.spec.update),
            path=path,
            dtype=request.dtype,
            device=request.device,
            recipe=asdict(setup.recipe),
            text=setup.data.describe_location(),
            seed=request.seed,
        )

    def _ask(self, verb: str, **payload: Any) -> Any:
        request = self.setup.request
        try:
            return call_or_raise(self.worker, FORMS, verb, payload, request.timeout).value
        except WorkerFault as fault:
            if (error := fault.users_error) is not None:
                raise UsageError(f"{request.backend}: {error}") from None
            name = verb.removeprefix(PREFIX)
            message = f"{request.backend} failed: {name}: {fault.outcome.cause}"
            raise TrainingError(message, fault.traceback) from None
