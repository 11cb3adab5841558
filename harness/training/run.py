"""A run of a training: this process loops over the epochs, and a worker process runs the steps."""

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
from harness.files.atomic import call_if_written, sweep
from harness.files.lock import hold_lock
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.model import fingerprint
from harness.program.updates import LEAST_SCALE, SCALE
from harness.runtime.paths import COMPILED_PATHS
from harness.training import checkpoint
from harness.training.checkpoint import Checkpoint
from harness.training.proof import prove
from harness.training.remote import TrainingError, TrainRemote, check_snapshot
from harness.training.request import FASTEST, PATHS, Setup
from harness.training.service import SUMMED
from harness.worker.remote import check_offered, failure_text, hello_of, offers_path
from harness.worker.worker import Worker

# Events during a training.


class TrainEvents:
    """Callbacks during a training. Override those that you need; the others do nothing."""

    def anew(self, place: Path) -> None:
        """Receive ``place``, the path at which ``--resume`` found no checkpoint. The training then
        starts from the beginning."""

    def doubted(self, backend: str, doubts: Sequence[str]) -> None:
        """Receive warnings about a backend, after its worker has started: some of its attributes
        look like mistakes, e.g. misspelled methods."""

    def tried(self, seconds: Mapping[str, float]) -> None:
        """Receive a dictionary from each path that was tried to its seconds per step. The training
        uses the fastest of these paths."""

    def proved(self, proof: Mapping[str, Any]) -> None:
        """Receive the result of :func:`harness.training.proof.prove`, the check of the first
        steps."""

    def began(self, setup: Setup, epoch: int, step: int) -> None:
        """Receive the epoch and step (both from 0) at which the training begins or resumes."""

    def stepped(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Receive the progress within an epoch. ``loss`` is the mean loss of the epoch so far, and
        ``rate`` is the recent speed in characters per second."""

    def ended(self, entry: Mapping[str, Any]) -> None:
        """Receive the results of a finished epoch, with the fields of
        :class:`.checkpoint.Epoch`."""


# The start of a training in a worker: the choice of its path, and its initial parameters.

# Each path is timed once, and TRIES more times if that takes less than LONG seconds.
TRIES, LONG = 3, 1.0


def load_initial(remote: TrainRemote) -> None:
    """Load the initial parameters into the worker. They depend only on the model and the seed, so
    they are the same on every backend."""
    training, seed = remote.setup.training, remote.setup.request.seed
    remote.calls.load(initial_parameters(training, seed), initial_statistics(training))


def trials(remote: TrainRemote) -> dict[str, float]:
    """Measure each path that the backend offers, and return a dictionary from path to seconds per
    step, without compilation. The trials change the parameters, so the caller must load them again.
    """
    count = min(SUMMED, len(remote.setup.feed.epoch(0)))

    def seconds() -> float:
        began = time.perf_counter()
        remote.calls.run(remote.setup.rates[0], 0, 0, count)
        return time.perf_counter() - began

    by_path: dict[str, float] = {}
    hello = remote.worker.hello or {}
    for path in (path for path in PATHS if offers_path(hello, path)):
        remote.begin(path)
        load_initial(remote)
        try:
            seconds()  # compiles
        except (TrainingError, UsageError):
            # The compiler may fail on a long step. The paths without a compiler are tried too.
            if path in COMPILED_PATHS:
                continue
            raise
        first = seconds()
        repeated = [seconds() for _ in range(TRIES if first < LONG else 0)]
        by_path[path] = min([first, *repeated]) / count
    return by_path


# Seconds of work in one call of the worker. The progress is updated after each call.
CALL = 0.5
# The most points per epoch in the curve of the loss.
POINTS = 20


class Diverged(HarnessError):
    """Error: the loss or a parameter became NaN or infinite."""


class TrainingRun:
    """A training. As a context manager, it locks its files, and ends its worker at the end.

    ``path`` is the weights file; checkpoints are written to the same folder. If ``path`` is None,
    nothing is written. A ``worker`` that the caller passes stays open. ``has_checkpoint`` is True
    if this training has written a checkpoint, and ``has_weights`` if it has written weights.
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
        self._beginning: Mapping[str, Any] = {}
        self._proof: Mapping[str, Any] = {}
        self.has_checkpoint = self.has_weights = False
        self._run, self._replaces = secrets.token_hex(8), ""
        self._open = ExitStack()

    def __enter__(self) -> TrainingRun:
        if self.path is not None:
            self._open.enter_context(hold_lock(self.path))
        if self._own:
            self._open.callback(self.worker.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, resume: bool = False) -> Weights:
        """Train to the end; return the last weights, and save them if there is a path.

        With ``resume``, continue from the checkpoint. Otherwise, old weights and checkpoints are
        replaced as soon as new ones exist.

        Raises:
            Disproved: the first steps are wrong.
            Diverged: the loss, or a parameter, became NaN or infinite.
            TrainingError: the worker fails.
            UsageError: the checkpoint belongs to another training.
        """
        resumed = checkpoint.find(self.path, self.setup) if resume else None
        if resume and resumed is None and self.path is not None:
            self.events.anew(checkpoint.place_of(self.path).absolute())
        self._begin(resumed)
        self.events.began(self.setup, self._position["epoch"], self._position["step"])
        for epoch in range(self._position["epoch"], len(self.setup.rates)):
            self._run_epoch(epoch)
        return self._snapshot().to_use

    def _begin(self, resumed: Checkpoint | None) -> None:
        if self.path is not None:
            sweep(Path(os.path.realpath(self.path)).parent)
        self._start_worker()
        path = self._choose_path(resumed)
        self._beginning = {**self._remote.begin(path), "path": path}
        if self.setup.request.proof:
            self._proof = prove(self._remote)
            self.events.proved(self._proof)
        if resumed is None:
            load_initial(self._remote)
            self._replace_checkpoint()
            return
        self._run = resumed.weights.history["run"]
        self._replaces = resumed.weights.history.get("replaces", "")
        self.has_checkpoint = True
        self.has_weights = self.path is not None and checkpoint.has_weights(self.path, resumed)
        self.history = list(resumed.weights.history["epochs"])
        self._position = dict(resumed.position)
        weights_, steps = resumed.weights, self._position["steps"]
        buffers = resumed.slots, resumed.state, resumed.scaling
        self._remote.calls.load(weights_.parameters, weights_.statistics, *buffers, steps)

    def _choose_path(self, resumed: Checkpoint | None) -> str:
        """Return the execution path: the requested path if there is one, else the path of the
        checkpoint ``resumed``, else the fastest path.

        A resumed training keeps the path of its checkpoint, because other paths round differently.
        This applies only on the same backend.
        """
        request = self.setup.request
        if request.path != FASTEST:
            return request.path
        history = resumed.weights.history if resumed is not None else {}
        if "path" in history and history["backend"] == request.backend:
            return str(history["path"])
        seconds = trials(self._remote)
        self.events.tried(seconds)
        return min(seconds, key=seconds.__getitem__)

    def _start_worker(self) -> None:
        outcome = self.worker.start()
        if not outcome.ok:
            name = self.worker.launch.backend
            raise TrainingError(f"{name} cannot be started: {outcome.cause}", failure_text(outcome))
        request = self.setup.request
        programs = (self.setup.training, self.setup.inference, self.setup.spec.update)
        check_offered(self.worker, request.device, request.dtype, programs, request.path)
        self.events.doubted(request.backend, hello_of(self.worker).get("doubts", ()))

    def _replace_checkpoint(self) -> None:
        """Replace an existing checkpoint of another training by the first checkpoint of this
        training, so that nobody resumes the other training by mistake.

        The weights of the other training stay until this training writes weights.
        """
        if self.path is None:
            return
        place = checkpoint.place_of(self.path)
        has_weights = kinds.check_kind(self.path, kinds.WEIGHTS)
        if has_weights:
            self._replaces = weights.read_digest(self.path)
        if kinds.check_kind(place, kinds.CHECKPOINT) or has_weights:
            with call_if_written(place, partial(setattr, self, "has_checkpoint", True)):
                checkpoint.save(place, self._snapshot())

    def _run_epoch(self, epoch: int) -> None:
        request, position = self.setup.request, self._position
        steps = len(self.setup.feed.epoch(epoch))
        rate, per_step = self.setup.rates[epoch], 0.0
        began = time.perf_counter()
        first = saved = position["step"]
        while position["step"] < steps:
            step = position["step"]
            count = _next_count(per_step, min(steps, saved + _round_up(request.every)) - step)
            started = time.perf_counter()
            sums = self._remote.calls.run(rate, epoch, step, count)
            per_step = (time.perf_counter() - started) / count
            self._add_losses(epoch, step, count, sums)
            speed = self.setup.recipe.batch * self.setup.recipe.length / per_step
            self.events.stepped(epoch, position["step"], self._mean(), speed)
            if position["step"] - saved >= request.every and position["step"] < steps:
                self._save()
                saved = position["step"]
        self._end_epoch(epoch, rate, steps - first, time.perf_counter() - began)

    def _add_losses(self, epoch: int, step: int, count: int, sums: list[float]) -> None:
        position = self._position
        batches, end = self.setup.feed.epoch(epoch), step + count
        starts = range(step, end, SUMMED)
        counts = (batches.rows_of(start, min(start + SUMMED, end)) for start in starts)
        pairs = [list(pair) for pair in zip(sums, counts, strict=True)]
        position["sums"] = [*position["sums"], *pairs]
        position["step"] = step + count
        position["steps"] += count
        loss, _ = self._sum_losses()
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} after steps {step + 1} to {step + count} of epoch "
                f"{epoch + 1}, at a learning rate of {self.setup.rates[epoch]:g}{self._last_good()}"
            )

    def _sum_losses(self) -> tuple[float, int]:
        """Return the sum of the losses and the number of rows, both for the finished part of the
        current epoch.

        The losses are added in the same order after a resume, so the sum is the same to the last
        digit.
        """
        sums = self._position["sums"]
        return sum(total for total, _ in sums), sum(rows for _, rows in sums)

    def _mean(self) -> float:
        loss, rows = self._sum_losses()
        return loss / max(1, rows)

    def _end_epoch(self, epoch: int, rate: float, steps: int, seconds: float) -> None:
        held_out = self._remote.calls.evaluate() or {}
        read = self._sum_losses()[1] * self.setup.recipe.length
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
        snapshot = self._snapshot()
        with call_if_written(
            place := checkpoint.place_of(self.path), partial(setattr, self, "has_checkpoint", True)
        ):
            checkpoint.save(place, snapshot)
        with call_if_written(self.path, partial(setattr, self, "has_weights", True)):
            weights.save(self.path, snapshot.to_use)
        self._replaces = ""

    def _snapshot(self) -> Checkpoint:
        setup, request = self.setup, self.setup.request
        snapshot = self._remote.calls.snapshot()
        check_snapshot(setup, snapshot)
        hello: Mapping[str, Any] = self.worker.hello or {}
        history = {
            "run": self._run,
            **({"replaces": self._replaces} if self._replaces else {}),
            **setup.facts,
            "backend": request.backend,
            "device": request.device,
            "path": self._beginning["path"],
            "paths": dict(self._beginning["paths"]),
            "versions": dict(hello.get("versions", {})),
            "steps": snapshot["steps"],
            **({"proof": dict(self._proof)} if self._proof else {}),
            "epochs": self.history,
        }
        weights_ = Weights(
            setup.spec.name,
            fingerprint(setup.spec),
            dict(setup.sizes),
            snapshot["parameters"],
            snapshot["statistics"],
            setup.data.vocabulary.characters if setup.data.vocabulary else (),
            history,
        )
        buffers = snapshot["slots"], snapshot["state"], dict(self._position), snapshot["scaling"]
        checkpoint_ = Checkpoint(weights_, *buffers)
        if snapshot["scaling"] and snapshot["scaling"][SCALE] < LEAST_SCALE:
            raise Diverged(
                f"in float16, gradients are NaN or infinite at every loss scale, before step "
                f"{snapshot['steps']}{self._last_good()}"
            )
        bad_array = weights.not_finite(checkpoint_.arrays)
        if bad_array is not None:
            raise Diverged(
                f"{bad_array} is not finite after step {snapshot['steps']}{self._last_good()}"
            )
        return checkpoint_

    def _last_good(self) -> str:
        return f"; the last good weights are in {self.path}" if self.has_weights else ""


def _next_count(per_step: float, left: int) -> int:
    """Return the number of steps for the next call of the worker: as many as take about
    :data:`CALL` seconds, but a multiple of :data:`SUMMED`, except at the end of the epoch.

    ``per_step`` is the seconds of a step, and ``left`` the number of steps that may still be made
    before the next checkpoint or the end.
    """
    steps = CALL / per_step if per_step else SUMMED
    return min(left, max(1, int(steps / SUMMED)) * SUMMED)


def _round_up(steps: int) -> int:
    """Round a number of steps up to a multiple of :data:`SUMMED`, the number of steps whose losses
    are summed before they are read."""
    return -(-steps // SUMMED) * SUMMED


__all__ = ["Diverged", "TrainingError", "TrainingRun", "WeightsError"]


def _curve(sums: list[list[float]]) -> list[float]:
    """Return the loss curve of an epoch: the epoch is divided into at most :data:`POINTS` parts,
    and the curve has the mean loss of each part.

    ``sums`` has pairs for smaller parts of the epoch: the sum of the losses and the number of rows.
    """
    together = -(-len(sums) // POINTS)
    parts = [sums[i : i + together] for i in range(0, len(sums), together)]
    return [sum(total for total, _ in p) / sum(rows for _, rows in p) for p in parts]
