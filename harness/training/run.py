"""A run of training: the loop over epochs in the parent, the steps in the worker."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from harness.convert import weights
from harness.convert.weights import Weights, WeightsError
from harness.errors import HarnessError, UsageError
from harness.files import kinds
from harness.files.atomic import sweep, telling
from harness.files.lock import held
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.model import fingerprint
from harness.program.updates import LEAST_SCALE, SCALE
from harness.runtime.paths import COMPILED_PATHS
from harness.training import checkpoint
from harness.training.checkpoint import Checkpoint
from harness.training.proof import prove
from harness.training.remote import TrainingError, TrainRemote, check_kept
from harness.training.request import FASTEST, PATHS, Setup
from harness.training.service import SUMMED
from harness.worker.remote import check_offered, hello_of, offers_path, told
from harness.worker.worker import Worker

# What is told of a training while it goes.


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


# How a training begins in a worker: on which path, and from which parameters.

# A trial of a path: so many further runs of it, unless one takes longer than these seconds.
TRIES, LONG = 3, 1.0


def load_first(remote: TrainRemote) -> None:
    """Load the parameters that the seed gives."""
    training, seed = remote.setup.training, remote.setup.request.seed
    remote.calls.load(initial_parameters(training, seed), initial_statistics(training))


def trials(remote: TrainRemote) -> dict[str, float]:
    """Seconds a step on each path, compiled, from the first parameters. Nothing of it is kept."""
    count = min(SUMMED, len(remote.setup.feed.epoch(0)))

    def seconds() -> float:
        began = time.perf_counter()
        remote.calls.run(remote.setup.rates[0], 0, 0, count)
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


# Seconds of work that go into one call of the worker: how often the progress moves.
CALL = 0.5
# Points of the loss curve within an epoch.
POINTS = 20


class Diverged(HarnessError):
    """The loss became NaN or infinite."""


class TrainingRun:
    """A run. Use as a context manager, so that no worker outlives it, and nobody else writes there.

    ``path`` is where the weights go, and beside it the checkpoints; None keeps nothing. A
    ``worker`` that is given stays open. ``kept`` tells whether there is a checkpoint of this run,
    ``saved`` whether there are weights of it.
    """

    def __init__(
        self,
        setup: Setup,
        path: Path | None = None,
        events: TrainEvents | None = None,
        worker: Worker | None = None,
    ) -> None:
        self.setup, self.path, self.events = setup, path, events or TrainEvents()
        self.worker = worker or Worker(setup.request.launch)
        self._own = worker is None
        self._remote = TrainRemote(self.worker, setup)
        self.history: list[dict[str, Any]] = []
        self._position: dict[str, Any] = {"epoch": 0, "step": 0, "steps": 0, "sums": []}
        self._told: Mapping[str, Any] = {}
        self._proof: Mapping[str, Any] = {}
        self.kept = self.saved = False
        self._run, self._replaces = secrets.token_hex(8), ""
        self._open = ExitStack()

    def __enter__(self) -> TrainingRun:
        if self.path is not None:
            self._open.enter_context(held(self.path))
        if self._own:
            self._open.callback(self.worker.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, resume: bool = False) -> Weights:
        """Train to the end; the last weights, which are saved too.

        Without ``resume``, weights and a checkpoint that are there are replaced, each when there
        is a new one.

        Raises:
            Disproved: the first steps are wrong.
            Diverged: the loss, or a parameter, became NaN or infinite.
            TrainingError: the worker fails.
            UsageError: the checkpoint is that of another run.
        """
        found = checkpoint.find(self.path, self.setup) if resume else None
        if resume and found is None and self.path is not None:
            self.events.anew(checkpoint.place_of(self.path).absolute())
        self._begin(found)
        self.events.began(self.setup, self._position["epoch"], self._position["step"])
        for epoch in range(self._position["epoch"], len(self.setup.rates)):
            self._epoch(epoch)
        return self._snapshot().to_use

    def _begin(self, found: Checkpoint | None) -> None:
        if self.path is not None:
            sweep(Path(os.path.realpath(self.path)).parent)
        self._start()
        path = self._chosen(found)
        self._told = {**self._remote.begin(path), "path": path}
        if self.setup.request.proof:
            self._proof = prove(self._remote)
            self.events.proved(self._proof)
        if found is None:
            load_first(self._remote)
            self._replace()
            return
        self._run = found.weights.history["run"]
        self._replaces = found.weights.history.get("replaces", "")
        self.kept = True
        self.saved = self.path is not None and checkpoint.has_weights(self.path, found)
        self.history = list(found.weights.history["epochs"])
        self._position = dict(found.position)
        made, steps = found.weights, self._position["steps"]
        kept = found.slots, found.state, found.scaling
        self._remote.calls.load(made.parameters, made.statistics, *kept, steps)

    def _chosen(self, found: Checkpoint | None) -> str:
        """The path asked for. The fastest is that of the checkpoint, as another rounds otherwise,
        or the one that trials find."""
        request = self.setup.request
        if request.path != FASTEST:
            return request.path
        made_with = found.weights.history if found is not None else {}
        if "path" in made_with and made_with["backend"] == request.backend:
            return str(made_with["path"])
        seconds = trials(self._remote)
        self.events.tried(seconds)
        return min(seconds, key=seconds.__getitem__)

    def _start(self) -> None:
        outcome = self.worker.start()
        if not outcome.ok:
            name = self.worker.launch.backend
            raise TrainingError(f"{name} cannot be started: {outcome.cause}", told(outcome))
        request = self.setup.request
        programs = (self.setup.training, self.setup.inference, self.setup.spec.update)
        check_offered(self.worker, request.device, request.dtype, programs, request.path)
        self.events.doubted(request.backend, hello_of(self.worker).get("doubts", ()))

    def _replace(self) -> None:
        """Where another run has left something: begin with a checkpoint in place of its own, so
        that it cannot be taken up for this one. Its weights stay until there are new ones."""
        if self.path is None:
            return
        place = checkpoint.place_of(self.path)
        there = kinds.check_kind(self.path, kinds.WEIGHTS)
        if there:
            self._replaces = weights.stated_digest(self.path)
        if kinds.check_kind(place, kinds.CHECKPOINT) or there:
            with telling(place, partial(setattr, self, "kept", True)):
                checkpoint.save(place, self._snapshot())

    def _epoch(self, epoch: int) -> None:
        request, position = self.setup.request, self._position
        steps = len(self.setup.feed.epoch(epoch))
        rate, per_step = self.setup.rates[epoch], 0.0
        began = time.perf_counter()
        first = saved = position["step"]
        while position["step"] < steps:
            step = position["step"]
            count = _count(per_step, min(steps, saved + _whole(request.every)) - step)
            started = time.perf_counter()
            sums = self._remote.calls.run(rate, epoch, step, count)
            per_step = (time.perf_counter() - started) / count
            self._add(epoch, step, count, sums)
            speed = self.setup.recipe.batch * self.setup.recipe.length / per_step
            self.events.stepped(epoch, position["step"], self._mean(), speed)
            if position["step"] - saved >= request.every and position["step"] < steps:
                self._save()
                saved = position["step"]
        self._end(epoch, rate, steps - first, time.perf_counter() - began)

    def _add(self, epoch: int, step: int, count: int, sums: list[float]) -> None:
        position = self._position
        batches, end = self.setup.feed.epoch(epoch), step + count
        starts = range(step, end, SUMMED)
        counts = (batches.rows_of(start, min(start + SUMMED, end)) for start in starts)
        made = [list(pair) for pair in zip(sums, counts, strict=True)]
        position["sums"] = [*position["sums"], *made]
        position["step"] = step + count
        position["steps"] += count
        loss, _ = self._summed()
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} after steps {step + 1} to {step + count} of epoch "
                f"{epoch + 1}, at a learning rate of {self.setup.rates[epoch]:g}{self._last_good()}"
            )

    def _summed(self) -> tuple[float, int]:
        """Of the epoch so far: the sum of its losses, always added in the same order, and rows."""
        sums = self._position["sums"]
        return sum(total for total, _ in sums), sum(rows for _, rows in sums)

    def _mean(self) -> float:
        loss, rows = self._summed()
        return loss / max(1, rows)

    def _end(self, epoch: int, rate: float, steps: int, seconds: float) -> None:
        """Close an epoch: its entry, the loss on what is held out, a checkpoint."""
        held_out = self._remote.calls.evaluate() or {}
        read = self._summed()[1] * self.setup.recipe.length
        share = steps / len(self.setup.feed.epoch(epoch))
        entry = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "loss": self._mean(),
            "curve": _curve(self._position["sums"]),
            "held_out_loss": held_out.pop("loss", None),
            "held_out_metrics": {n.removeprefix("metric."): v for n, v in held_out.items()},
            "seconds": seconds,
            "characters_per_second": read * share / seconds,
            "memory": self._remote.calls.memory(),
        }
        self.history.append(entry)
        self._position |= {"epoch": epoch + 1, "step": 0, "sums": []}
        self._save()
        self.events.ended(entry)

    def _save(self) -> None:
        if self.path is None:
            return
        made = self._snapshot()
        with telling(place := checkpoint.place_of(self.path), partial(setattr, self, "kept", True)):
            checkpoint.save(place, made)
        with telling(self.path, partial(setattr, self, "saved", True)):
            weights.save(self.path, made.to_use)
        self._replaces = ""

    def _snapshot(self) -> Checkpoint:
        setup, request = self.setup, self.setup.request
        found = self._remote.calls.snapshot()
        check_kept(setup, found)
        hello: Mapping[str, Any] = self.worker.hello or {}
        history = {
            "run": self._run,
            **({"replaces": self._replaces} if self._replaces else {}),
            **setup.facts,
            "backend": request.backend,
            "device": request.device,
            "path": self._told["path"],
            "paths": dict(self._told["paths"]),
            "versions": dict(hello.get("versions", {})),
            "steps": found["steps"],
            **({"proof": dict(self._proof)} if self._proof else {}),
            "epochs": self.history,
        }
        made = Weights(
            setup.spec.name,
            fingerprint(setup.spec),
            dict(setup.sizes),
            found["parameters"],
            found["statistics"],
            setup.data.vocabulary.characters if setup.data.vocabulary else (),
            history,
        )
        kept = found["slots"], found["state"], dict(self._position), found["scaling"]
        whole = Checkpoint(made, *kept)
        if found["scaling"] and found["scaling"][SCALE] < LEAST_SCALE:
            raise Diverged(
                f"gradients are not finite in float16, whatever the loss is scaled by, before step "
                f"{found['steps']}{self._last_good()}"
            )
        odd = weights.not_finite(whole.arrays)
        if odd is not None:
            raise Diverged(f"{odd} is not finite after step {found['steps']}{self._last_good()}")
        return whole

    def _last_good(self) -> str:
        return f"; the last good weights are in {self.path}" if self.saved else ""


def _count(per_step: float, left: int) -> int:
    """Steps of the next call: whole sums, about :data:`CALL` seconds of them."""
    wanted = CALL / per_step if per_step else SUMMED
    return min(left, max(1, int(wanted / SUMMED)) * SUMMED)


def _whole(steps: int) -> int:
    """As many steps, rounded up to whole sums."""
    return -(-steps // SUMMED) * SUMMED


__all__ = ["Diverged", "TrainingError", "TrainingRun", "WeightsError"]


def _curve(sums: list[list[float]]) -> list[float]:
    """Mean losses over at most :data:`POINTS` stretches of an epoch, all but the last as long."""
    together = -(-len(sums) // POINTS)
    parts = [sums[i : i + together] for i in range(0, len(sums), together)]
    return [sum(total for total, _ in p) / sum(rows for _, rows in p) for p in parts]
