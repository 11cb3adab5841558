"""Writing on, character after character, on one backend."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.convert.weights import Weights, load
from harness.errors import HarnessError
from harness.oracle.tolerance import worst
from harness.oracle.yardstick import Reference
from harness.program.signature import group_of
from harness.ranges import LENGTH, SEED, TEMPERATURE, TOP_K, check_fields
from harness.runtime.session import Session
from harness.runtime.tensors import IllFormed, whole
from harness.spec.initializers import generator
from harness.spec.model import Spec, load_spec
from harness.text.vocabulary import Vocabulary
from harness.train.generate.model import Reader, reader, vocabulary
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault
from harness.worker.worker import Worker

DAY = 24 * 3600.0
# So many of the first results are held against the oracle.
PROVEN = 3
RANGES = {"length": LENGTH, "temperature": TEMPERATURE, "top_k": TOP_K, "seed": SEED}
Choose = Callable[[Array], int]


class GenerateError(HarnessError):
    """A backend failed; ``traceback`` is its own."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


@dataclass(frozen=True)
class GenerateRequest:
    """What to write. ``temperature`` of 0 takes the likeliest character each time; ``top_k`` of 0
    leaves all to choose from. ``environment`` is every backend's, ``environments`` by backend."""

    spec: str
    backends: tuple[str, ...]
    weights: Path
    prompt: str
    length: int = 200
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float64"
    path: str = "native"
    folders: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class TextWriter:
    """A request that was found to be possible."""

    request: GenerateRequest
    spec: Spec
    weights: Weights
    reader: Reader
    vocabulary: Vocabulary
    prompt: tuple[int, ...]

    def write(self, backend: str) -> Iterator[str]:
        """The characters after the prompt, as they are found.

        Raises :class:`UsageError` for a device or dtype that is not offered, and
        :class:`GenerateError` for a backend that fails.
        """
        request = self.request
        environment = {**request.environment, **request.environments.get(backend, {})}
        python = request.pythons.get(backend, sys.executable)
        worker = Worker(Launch(backend, python, environment))
        try:
            yield from self._write(backend, worker)
        except WorkerFault as fault:
            raise GenerateError(f"{backend} failed: {fault}", fault.traceback) from None
        except IllFormed as error:
            raise GenerateError(f"{backend} failed: forward: {error}") from None
        finally:
            worker.close()

    def _write(self, backend: str, worker: Worker) -> Iterator[str]:
        request, known = self.request, self.reader
        remote = Remote(worker, DAY)
        training = self.spec.program("training", **self.weights.sizes)
        reference = Reference(training, known.program)
        remote.open(
            training,
            known.program,
            None,
            request.path,
            request.dtype,
            request.device,
        )
        remote.call(
            "load",
            parameters=dict(self.weights.parameters),
            statistics=dict(self.weights.statistics),
        )
        choose = chooser(request, len(self.vocabulary))
        context, state = deque(self.prompt, known.reach), known.first_state()
        unread: Sequence[int] = self.prompt
        for number in range(request.length):
            inputs = known.inputs(unread)
            results = whole(remote.forward("inference", inputs, state))
            known.check_results(results, len(unread))
            if number < PROVEN:
                self._prove(backend, reference, (inputs, state), results)
            state = group_of(results, "state.")
            index = choose(known.probabilities(results))
            context.append(index)
            unread = [index] if known.stateful else context
            yield self.vocabulary.characters[index]

    def _prove(
        self, backend: str, reference: Reference, given: tuple[Arrays, Arrays], results: Arrays
    ) -> None:
        """Hold results against the oracle's; :class:`GenerateError` if they differ."""

        def run(session: Session) -> list[ArrayDict]:
            session.load(self.weights.parameters, self.weights.statistics)
            return [session.forward("inference", *given)]

        expected = reference.expect(run)
        wrong = worst(expected.deviations(results, self.request.dtype))
        if not wrong.agrees:
            raise GenerateError(
                f"{backend} does not agree with the oracle: {wrong}; 'harness check "
                f"{self.request.spec} --backend {backend} --path all' looks closer"
            )


def prepare(request: GenerateRequest) -> TextWriter:
    """Load and check everything; :class:`HarnessError` for what cannot be."""
    check_fields(request, RANGES)
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
        weights: Any = np.exp(scores)
        return 1 + int(random.choice(len(weights), p=weights / weights.sum()))

    return choose
