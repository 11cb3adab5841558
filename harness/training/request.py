"""Preparation of a training: load the spec and the data, and check them and the options."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from harness.command.declared import check_ranges
from harness.command.ranges import SIZES
from harness.environments.columns import choose_one
from harness.errors import UsageError, check_known
from harness.files.system import usable_cores
from harness.files.user_file import MAX_WEIGHTS
from harness.language.model import Spec, load_spec
from harness.language.schema import ArrayFile
from harness.program.ir import Program
from harness.program.signature import port_shapes
from harness.program.updates import UpdateRule, slot_entries
from harness.runtime.labels import check_device
from harness.runtime.memory import check_fits
from harness.text.corpus import Corpus, corpus
from harness.training.feed import (
    Feed,
    Recipe,
    RowFeed,
    needed_sizes,
    rates_of,
    recipe,
    recipe_of_rows,
)
from harness.training.options import TrainingOptions
from harness.training.table import Declared, Table, TableFeed, table
from harness.worker.launch import Launch, thread_settings

PATHS = ("derived", "compiled", "native", "native-compiled", "equations")
FASTEST = "fastest"  # the fastest of these in trials before the training
SERVICE = "harness.training.service:handler"


@dataclass(frozen=True)
class TrainRequest(TrainingOptions):
    """The request of a training. The class :class:`.TrainingOptions` has its fields."""

    @property
    def launch(self) -> Launch:
        """The description of the worker to start: its backend, interpreter, environment variables
        and number of cores."""
        cores = self.threads or usable_cores()
        environment = {**thread_settings(cores), **self.environment}
        return Launch(
            self.backend, self.python or sys.executable, environment, service=SERVICE, cores=cores
        )


@dataclass(frozen=True)
class Setup:
    """A checked request of a training, with its loaded spec and data.

    - ``sizes`` has the sizes of the spec, changed by the request. If a text has more different
      characters than the model accepts, the size with that limit is raised.
    - ``training`` and ``inference`` are the model's programs for training and for inference.
    - ``recipe`` has the rules for making batches, and ``feed`` makes batches by these rules.
    - ``rates`` has the learning rate of each epoch.
    """

    request: TrainRequest
    spec: Spec
    data: Corpus | Table
    sizes: Mapping[str, int]
    training: Program
    inference: Program
    recipe: Recipe
    rates: Sequence[float]
    feed: RowFeed

    @property
    def facts(self) -> dict[str, object]:
        """The settings that determine the results of a training, as JSON data (e.g. seed, dtype,
        checksum of the data). Backend and versions are not included. A training can only resume
        from a checkpoint with the same settings."""
        request = self.request
        return {
            "text": {"name": self.data.name, "sha256": self.data.sha256},
            "seed": request.seed,
            "dtype": request.dtype,
            "sizes": dict(self.sizes),
            "recipe": asdict(self.recipe),
        }

    @property
    def characters(self) -> int:
        """The number of characters in the rows of an epoch: a character that is in several rows
        counts several times."""
        return self.feed.epoch(0).rows * self.recipe.length


def prepare(request: TrainRequest) -> Setup:
    """Load and check the spec and the data that a request names; raise a :class:`HarnessError` if
    something is wrong."""
    _check(request)
    spec = load_spec(request.spec, request.folders)
    rates = rates_of(spec, request.epochs)
    declared = _declared(spec, request)
    changed: Mapping[str, int]
    data: Corpus | Table
    if declared is not None:
        changed, training = request.sizes, spec.program("training", **request.sizes)
        data = table(spec, training, declared, request.data)
        batch_recipe = recipe_of_rows(spec, data.rows, request.batch, request.held_out)
        time = data.sizes.get("time", 1)
    else:
        data = corpus(request.text or "builtin", request.encoding)
        batch_recipe = recipe(spec, request.batch, request.held_out, len(data.text))
        changed = {**needed_sizes(spec, len(data.vocabulary)), **request.sizes}
        training, time = spec.program("training", **changed), batch_recipe.length
    assert spec.update is not None, "without an optimizer there are no rates"
    _check_size(training, spec.update)
    check_fits(training, batch_recipe.batch, time, request.sizes)
    return Setup(
        request=request,
        spec=spec,
        data=data,
        sizes=dict(training.sizes),
        training=training,
        inference=spec.program("inference", **changed),
        recipe=batch_recipe,
        rates=rates,
        feed=_feed(training, batch_recipe, data, request),
    )


def _declared(spec: Spec, request: TrainRequest) -> Declared | None:
    """Return the ``data`` section that says which arrays the model is trained on; return None if
    the model is trained on a text.

    Raises:
        UsageError: the request gives a text to a model of arrays, or arrays to a model of text.
    """
    declared = spec.model.data
    if isinstance(declared, Declared):
        if request.text is not None:
            raise UsageError(f"{spec.name} is not trained on a text: leave --text out")
        return declared
    if request.data is None:
        return None
    if declared is not None or request.text is not None:
        raise UsageError(f"{spec.name} is trained on a text (--text): leave --data out")
    return ArrayFile(npz=request.data.name)


def _feed(training: Program, given: Recipe, data: Corpus | Table, request: TrainRequest) -> RowFeed:
    if isinstance(data, Table):
        return TableFeed(training, given, data.here(), request.dtype, request.seed)
    return Feed(training, given, data.text.indices.array, request.dtype, request.seed)


def _check(request: TrainRequest) -> None:
    column, _ = choose_one(request.backend, request.python)
    check_device(request.device, (column,))
    check_known("path", request.path, (*PATHS, FASTEST))
    check_ranges(request)
    for name, size in request.sizes.items():
        SIZES.check(size, f"size {name!r}")


def _check_size(training: Program, rule: UpdateRule) -> None:
    """Raise :class:`UsageError` if the checkpoint of a model would be too large to save. This is
    checked before memory is allocated."""
    shapes = port_shapes(training, training.parameters)
    parameter_count = sum(map(math.prod, shapes.values()))
    needed_bytes = 8 * (parameter_count + slot_entries(rule, shapes))
    if needed_bytes > MAX_WEIGHTS:
        sizes = ", ".join(f"{name}={size}" for name, size in training.sizes.items())
        raise UsageError(
            f"{training.name} has {parameter_count:,} parameters at {sizes}: with the optimizer's "
            f"slots they take {needed_bytes:,} bytes, but at most {MAX_WEIGHTS:,} (half of this "
            "machine's memory) are allowed; give smaller sizes"
        )
