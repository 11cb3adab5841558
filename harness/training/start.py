"""How a training begins in a worker: on which path, and from which parameters."""

from __future__ import annotations

import time

from harness.errors import UsageError
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.runtime.paths import COMPILED_PATHS
from harness.training.kept import TrainingError
from harness.training.remote import TrainRemote
from harness.training.request import PATHS
from harness.training.trainer import SUMMED
from harness.worker.remote import offers_path

# A trial of a path: so many further runs of it, unless one takes longer than these seconds.
TRIES, LONG = 3, 1.0


def load_first(remote: TrainRemote) -> None:
    """Load the parameters that the seed gives."""
    training, seed = remote.setup.training, remote.setup.request.seed
    remote.load(initial_parameters(training, seed), initial_statistics(training))


def trials(remote: TrainRemote) -> dict[str, float]:
    """Seconds a step on each path, compiled, from the first parameters. Nothing of it is kept."""
    count = min(SUMMED, len(remote.setup.feed.epoch(0)))

    def seconds() -> float:
        began = time.perf_counter()
        remote.run(remote.setup.rates[0], 0, 0, count)
        return time.perf_counter() - began

    found: dict[str, float] = {}
    hello = remote.worker.hello or {}
    for path in (path for path in PATHS if offers_path(hello, path)):
        remote.begin(path)
        load_first(remote)
        try:
            seconds()  # compiles
        except (TrainingError, UsageError):
            # A step may be too long for a compiler: the path that gives it none is here, too.
            if path in COMPILED_PATHS:
                continue
            raise
        first = seconds()
        more = [seconds() for _ in range(TRIES if first < LONG else 0)]
        found[path] = min([first, *more]) / count
    return found
