"""How a training begins in a worker: on which path, and from which parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from harness.program.serial import encode
from harness.spec.initial_values import initial_parameters, initial_statistics
from harness.train.request import PATHS, Setup
from harness.train.trainer import SUMMED

# A trial of a path: so many further runs of it, unless one takes longer than these seconds.
TRIES, LONG = 3, 1.0


class Ask(Protocol):
    """Has the worker answer to a verb of training."""

    def __call__(self, verb: str, **payload: Any) -> Any: ...


def begin(call: Ask, setup: Setup, path: str) -> Mapping[str, Any]:
    """A training on a path, still without parameters; the path of each layer and the settings."""
    request = setup.request
    told: Mapping[str, Any] = call(
        "begin",
        training=encode(setup.training),
        inference=encode(setup.inference),
        rule=encode(setup.spec.update),
        path=path,
        dtype=request.dtype,
        device=request.device,
        recipe=asdict(setup.recipe),
        text=setup.text.text.indices.told(),
        seed=request.seed,
    )
    return told


def load_first(call: Ask, setup: Setup) -> None:
    """The parameters that the seed gives."""
    call(
        "load",
        parameters=initial_parameters(setup.training, setup.request.seed),
        statistics=initial_statistics(setup.training),
        slots={},
        state={},
        steps=0,
    )


def trials(call: Ask, setup: Setup) -> dict[str, float]:
    """Seconds a step on each path, compiled, from the first parameters. Nothing of it is kept."""
    count = min(SUMMED, len(setup.feed.epoch(0)))

    def seconds() -> float:
        began = time.perf_counter()
        call("run", rate=setup.rates[0], epoch=0, first=0, count=count)
        return time.perf_counter() - began

    found: dict[str, float] = {}
    for path in PATHS:
        begin(call, setup, path)
        load_first(call, setup)
        seconds()  # compiles
        first = seconds()
        more = [seconds() for _ in range(TRIES if first < LONG else 0)]
        found[path] = min([first, *more]) / count
    return found
