"""``harness.train`` and ``harness.generate``: weights from a text, and texts from weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from harness.api import arguments
from harness.api.signature import takes_options
from harness.api.trained import Generated, Trained
from harness.command.declared import build
from harness.environments.columns import choose, one
from harness.errors import UsageError
from harness.training.console import check_place
from harness.training.generate.request import GenerateOptions, GenerateRequest
from harness.training.generate.writing import prepare as prepare_writer
from harness.training.options import TrainOptions
from harness.training.request import TrainRequest, prepare
from harness.training.run import TrainingRun

if TYPE_CHECKING:
    from os import PathLike

    from harness.api.arguments import Names
    from harness.api.keywords import GenerateKeywords, TrainKeywords
    from harness.language.model import Spec


@takes_options(TrainOptions)
def train(
    spec: str | PathLike[str] | Spec, backend: str, **options: Unpack[TrainKeywords]
) -> Trained:
    """Train a model on a text, as the spec's own phases say, in a process of the backend's own.

    Returns:
        The weights and the history of the training; ``to_pandas()`` has a row for each epoch.

    Raises:
        UsageError: an argument is none that there is, or files are there and nothing says what is
            to become of them.
        Diverged: the loss, or a parameter, became NaN or infinite.
        Disproved: the first steps do not agree with the oracle.
        TrainingError: the backend failed.
        HarnessError: the spec or the text is wrong.
    """
    given = arguments.of(TrainOptions, {"spec": spec, "backend": backend, **options})
    place, resume = given.get("weights"), given.get("resume", False)
    column, python = one(given["backend"], given.get("python"))
    request = build(TrainRequest, {**given, "backend": column, "python": python})
    if place is not None:
        check_place(place, resume, given.get("force", False))
    setup = prepare(request)
    with TrainingRun(setup, place) as training:
        if place is not None:
            # Again: another training may have come to its end since.
            check_place(place, resume, given.get("force", False), mine=True)
        return Trained(training.run(resume), place)


@takes_options(GenerateOptions)
def generate(
    spec: str | PathLike[str] | Spec,
    backends: Names,
    *,
    weights: str | PathLike[str],
    prompt: str,
    **options: Unpack[GenerateKeywords],
) -> Generated:
    """Continue a prompt with weights that were trained, on one backend or on several.

    Returns:
        The texts by backend; ``print`` shows the prompt with its continuation.

    Raises:
        UsageError: an argument is none that there is.
        GenerateError: a backend failed.
        HarnessError: the spec or the weights are wrong.
    """
    named = {"spec": spec, "backends": backends, "weights": weights, "prompt": prompt}
    given = arguments.of(GenerateOptions, {**named, **options})
    if given["weights"] is None:
        raise arguments.refused("weights", "the path of a file that 'harness train' wrote", None)
    if not given["backends"]:
        raise UsageError("backends is empty: name one, or several whose texts are compared")
    columns = choose(given["backends"], given.get("pythons"))
    process = {"backends": columns.names, "pythons": columns.pythons}
    writer = prepare_writer(build(GenerateRequest, {**given, **process}))
    return Generated(prompt, {one: "".join(writer.write(one)) for one in columns.names})
