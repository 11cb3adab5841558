"""Writing on, character after character, on one backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.arrays import Array
from harness.command.ranges import LENGTH, SEED, TEMPERATURE, TOP_K, check_fields
from harness.convert.weights import Weights, load
from harness.language.initializers import generator
from harness.language.model import Spec, load_spec
from harness.runtime.answers import IllFormed
from harness.runtime.labels import check_device
from harness.text.vocabulary import Vocabulary
from harness.training.generate.model import Reader, reader, vocabulary
from harness.training.generate.reading import Reading, ReadingPace
from harness.training.generate.request import GenerateError, GenerateRequest
from harness.worker.remote import WorkerFault

RANGES = {"length": LENGTH, "temperature": TEMPERATURE, "top_k": TOP_K, "seed": SEED}
Choose = Callable[[Array], int]


@dataclass(frozen=True)
class TextWriter:
    """A request that was found to be possible."""

    request: GenerateRequest
    spec: Spec
    weights: Weights
    reader: Reader
    vocabulary: Vocabulary
    prompt: tuple[int, ...]

    def write(self, backend: str, pace: ReadingPace | None = None) -> Iterator[str]:
        """The characters after the prompt, as they are found; ``pace`` is told what they take.

        Raises :class:`UsageError` for a device or dtype that is not offered, and
        :class:`GenerateError` for a backend that fails.
        """
        request = self.request
        training = self.spec.program("training", **self.weights.sizes)
        text, choose = list(self.prompt), chooser(request, len(self.vocabulary))
        given = (request, self.reader, training, self.weights, backend, text, pace or ReadingPace())
        reading = Reading(*given)
        try:
            for _, found in zip(range(request.length), reading.probabilities(), strict=False):
                text.append(choose(found))
                yield self.vocabulary.characters[text[-1]]
        except WorkerFault as fault:
            raise GenerateError(f"{backend} failed: {fault}", fault.traceback) from None
        except IllFormed as error:
            raise GenerateError(f"{backend} failed: forward: {error}") from None
        finally:
            reading.worker.close()


def prepare(request: GenerateRequest) -> TextWriter:
    """Load and check everything; :class:`HarnessError` for what cannot be."""
    check_fields(request, RANGES)
    check_device(request.device, request.backends)
    spec = load_spec(request.spec, request.folders)
    weights = load(request.weights)
    known, letters = reader(spec, weights), vocabulary(weights)
    letters.check_classes(known.classes)
    prompt = tuple(int(i) for i in letters.encode(request.prompt))
    known.check_prompt(request.prompt)
    return TextWriter(request, spec, weights, known, letters, prompt)


def chooser(request: GenerateRequest, characters: int) -> Choose:
    """How the next character is taken from probabilities ``[classes]``.

    Never the padding, nor a class without a character. The random numbers depend on the seed only.
    """
    random = generator(request.seed, "generate")

    def choose(probabilities: Array) -> int:
        if not np.isfinite(probabilities).all():
            raise GenerateError("the probabilities are not finite: the weights are of no use")
        allowed = probabilities[1:characters]
        if allowed.min(initial=0.0) < 0 or not allowed.any():
            raise GenerateError(
                "the output holds no probabilities: "
                + ("some are below 0" if allowed.any() else "all are 0")
            )
        if not request.temperature:
            return 1 + int(np.argmax(allowed))
        # The likeliest has 0, whatever the temperature: the others' may become -inf, but not NaN.
        with np.errstate(divide="ignore", over="ignore"):
            scores = np.log(allowed) - np.log(allowed.max())
            scores /= request.temperature
        if request.top_k:
            scores[np.argsort(-scores, kind="stable")[request.top_k :]] = -np.inf
        weights: Array = np.exp(scores)
        return 1 + int(random.choice(len(weights), p=weights / weights.sum()))

    return choose
