"""``harness.train`` and ``harness.generate``: train a model on a text, and continue a text with
trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from harness.api import arguments
from harness.api.arguments import takes_options
from harness.api.picture import Picture
from harness.arrays import Array
from harness.convert import weights as files
from harness.convert.weights import Weights
from harness.environments.columns import choose_one
from harness.errors import UsageError, several, shorten
from harness.files.forms import plain
from harness.output.notebook import frame, html_table
from harness.report import svg_pictures
from harness.report.inputs import TrainedHistory, TrainedWeights
from harness.training.console import prepared
from harness.training.generate.console import differences, request_of
from harness.training.generate.request import GenerateOptions
from harness.training.generate.writing import ReadingPace
from harness.training.generate.writing import prepare as prepare_writer
from harness.training.options import TrainOptions

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.api.arguments import Names
    from harness.api.keywords import GenerateKeywords, TrainKeywords
    from harness.language.model import Spec

SHOWN = 60  # the most characters of a text in one line


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """Trained weights and their history; ``path`` is their file, or None if none was requested."""

    weights: Weights
    path: Path | None = None

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The results of each epoch, one dictionary per epoch. Its entry ``curve`` is a list of
        mean losses, each over a section of the epoch."""
        epochs: Sequence[Mapping[str, Any]] = self.weights.history["epochs"]
        return epochs

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Parameters and moving statistics by name, as accepted by the argument ``parameters`` of
        :func:`harness.run`."""
        return {**self.weights.parameters, **self.weights.statistics}

    @property
    def loss(self) -> float | None:
        """The mean loss of the last epoch; None before the first epoch."""
        return float(self.history[-1]["loss"]) if self.history else None

    def json(self) -> Any:
        """Return what ``harness train --json`` prints, as lists and dictionaries."""
        weights = self.weights
        return plain({"spec": weights.spec, "sizes": dict(weights.sizes), **weights.history})

    def plot(self) -> Picture:
        """Draw the loss by epoch.

        Raises:
            UsageError: matplotlib is not installed.
        """
        history = TrainedHistory.model_validate(dict(self.weights.history))
        trained = TrainedWeights("this run", self.weights.spec, history)
        return Picture.of(lambda: svg_pictures.losses([trained]))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the weights to a file that every backend can read.

        Raises:
            WeightsError: the file cannot be written, or is an existing file of another kind.
        """
        files.save(Path(path), self.weights)

    def _title(self) -> str:
        weights = self.weights
        epochs = several(len(self.history), "epoch")
        return f"{weights.spec} on {weights.history['backend']}: {epochs}"

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        return f"<Trained: {self._title()}{loss}>"

    def _columns(self) -> tuple[str, ...]:
        metrics = (f"held-out {name}" for name in self._metrics())
        return ("epoch", "learning rate", "loss", "held-out loss", *metrics, "characters/s")

    def _metrics(self) -> list[str]:
        return list(self.history[-1]["held_out_metrics"]) if self.history else []

    def _rows(self) -> list[list[str]]:
        return [
            [
                str(entry["epoch"]),
                f"{entry['learning_rate']:g}",
                f"{entry['loss']:.4f}",
                "-" if entry["held_out_loss"] is None else f"{entry['held_out_loss']:.4f}",
                *(f"{entry['held_out_metrics'][name]:.4f}" for name in self._metrics()),
                f"{entry['characters_per_second']:,.0f}",
            ]
            for entry in self.history
        ]

    def __str__(self) -> str:
        """Return a table with a line for each epoch."""
        rows = [list(self._columns()), *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.rjust, row, widths)) for row in rows)
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._columns(), self._rows())

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each epoch.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame({n: v for n, v in entry.items() if n != "memory"} for entry in self.history)


@dataclass(frozen=True, repr=False)
class Generated:
    """Texts with which the backends continued a prompt."""

    prompt: str
    texts: Mapping[str, str]
    paces: Mapping[str, ReadingPace] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The prompt, followed by the continuation of the first backend."""
        return self.prompt + next(iter(self.texts.values()))

    def json(self) -> Any:
        """Return what ``harness generate --json`` prints, as lists and dictionaries."""
        paces = {backend: pace.record() for backend, pace in self.paces.items()}
        data = {"prompt": self.prompt, "texts": self.texts, "same": self.same, "pace": paces}
        return plain(data)

    @property
    def same(self) -> bool:
        """True if all backends wrote the same text."""
        return len(set(self.texts.values())) == 1

    def __repr__(self) -> str:
        comparison = "the same text" if self.same else "different texts"
        by = (
            f"{comparison} on {', '.join(self.texts)}"
            if len(self.texts) > 1
            else next(iter(self.texts))
        )
        return f"<Generated by {by}: {shorten(self.text, SHOWN)!r}>"

    def __str__(self) -> str:
        """Return the text of the first backend, and the positions at which the texts of other
        backends differ from it."""
        return "\n".join(filter(None, (self.text, differences(self.texts))))

    def _repr_html_(self) -> str:
        rows = [[backend, text] for backend, text in self.texts.items()]
        fits = len(self.prompt) <= SHOWN
        prompt = self.prompt if fits else shorten(self.prompt, SHOWN)
        title = f"after {prompt!r}"
        return html_table(title, ("backend", "text"), rows, differences(self.texts), words=2)

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each backend.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame({"backend": backend, "text": text} for backend, text in self.texts.items())


@takes_options(TrainOptions)
def train(
    spec: str | PathLike[str] | Spec, backend: str, **options: Unpack[TrainKeywords]
) -> Trained:
    """Train a model on a text in a separate process, with the learning rates that the spec
    declares.

    Returns:
        The weights and the history of the training; ``to_pandas()`` has a row for each epoch.

    Raises:
        UsageError: an argument has an unknown value, or files exist and no option says whether to
            resume or replace them.
        Diverged: the loss, or a parameter, became NaN or infinite.
        Disproved: the first steps do not agree with the oracle.
        TrainingError: the backend failed.
        HarnessError: the spec or the text is wrong.
    """
    values = arguments.of(TrainOptions, {"spec": spec, "backend": backend, **options})
    column, python = choose_one(values["backend"], values.get("python"))
    with prepared({**values, "backend": column, "python": python}) as training:
        return Trained(training.run(values.get("resume", False)), training.path)


@takes_options(GenerateOptions)
def generate(
    spec: str | PathLike[str] | Spec,
    backends: Names,
    *,
    weights: str | PathLike[str],
    prompt: str,
    **options: Unpack[GenerateKeywords],
) -> Generated:
    """Continue a prompt with trained weights, on one backend or on several.

    Returns:
        The texts by backend; ``print`` shows the prompt with its continuation.

    Raises:
        UsageError: an argument has an unknown value.
        GenerateError: a backend failed.
        HarnessError: the spec or the weights are wrong.
    """
    arguments_given = {"spec": spec, "backends": backends, "weights": weights, "prompt": prompt}
    values = arguments.of(GenerateOptions, {**arguments_given, **options})
    if values["weights"] is None:
        raise arguments.wrong_type("weights", "the path of a file that 'harness train' wrote", None)
    if not values["backends"]:
        raise UsageError("backends is empty: name one backend, or several to compare their texts")
    request = request_of(values)
    writer, paces = (
        prepare_writer(request),
        {backend_name: ReadingPace() for backend_name in request.backends},
    )
    texts = {
        backend_name: "".join(writer.write(backend_name, pace))
        for backend_name, pace in paces.items()
    }
    return Generated(prompt, texts, paces)
