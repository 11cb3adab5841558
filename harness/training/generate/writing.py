"""Continue a text, character by character, on one backend."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.command.declared import check_ranges
from harness.convert.weights import Weights, load
from harness.language.initializers import generator
from harness.language.model import Spec, load_spec
from harness.oracle.tolerance import worst
from harness.oracle.yardstick import Reference
from harness.program.ir import Program, walk_nodes
from harness.program.primitives import offers_needed
from harness.program.signature import group_of
from harness.runtime.answers import IllFormed, whole
from harness.runtime.labels import check_device
from harness.runtime.session import Session
from harness.text.vocabulary import Vocabulary
from harness.training.generate.model import Reader, check_results, reader, vocabulary
from harness.training.generate.request import GenerateError, GenerateRequest
from harness.training.proof import look_closer
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault, check_offered, hello_of, offers_of
from harness.worker.worker import Worker

# Read a text on one backend: each character once with kept values, or the whole text each time.

DAY = 24 * 3600.0
# The oracle checks the first PROVEN results of each way of reading, and later the results whose
# number is a power of 2.
PROVEN = 3
# The ways of reading: each character once, or all characters that the model can read each time.
KEPT, ALL = "kept", "all"


@dataclass
class ReadingPace:
    """The calls and seconds of each way of reading, without the first call, which compiles."""

    calls: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, way: str, seconds: float) -> None:
        """Count a call in one way of reading."""
        if way in self.calls:
            self.seconds[way] = self.seconds.get(way, 0.0) + seconds
        self.calls[way] = self.calls.get(way, -1) + 1

    def told(self) -> dict[str, dict[str, float]]:
        """Return the characters, and the characters per second, of each way of reading."""
        return {
            way: {"characters": count, "characters_per_second": count / self.seconds[way]}
            for way, count in self.calls.items()
            if count
        }


@dataclass
class Reading:
    """A backend's reading of a text that grows; ``text`` holds the indices of the characters.

    As long as the text fits into the window, and if the model allows it, each character is read
    once (:data:`KEPT`). Otherwise all characters that the model can read are read each time
    (:data:`ALL`).
    """

    request: GenerateRequest
    reader: Reader
    training: Program
    weights: Weights
    backend: str
    text: list[int]
    pace: ReadingPace = field(default_factory=ReadingPace)

    def __post_init__(self) -> None:
        request = self.request
        environment = {**request.environment, **request.environments.get(self.backend, {})}
        python = request.pythons.get(self.backend, sys.executable)
        self.worker = Worker(Launch(self.backend, python, environment))
        self._remote = Remote(self.worker, DAY)
        self._reference: Reference | None = None

    def probabilities(self) -> Iterator[Array]:
        """Yield the probabilities ``[classes]`` of the next character.

        The caller adds a character to ``text`` between two results.

        Raises:
            GenerateError: the backend does not agree with the oracle.
            IllFormed: its results do not have the model's shapes.
            UsageError: the backend does not offer the device, the dtype or the path.
            WorkerFault: the backend failed.
        """
        step = self.reader.step if self.request.cache else None
        if step is not None and len(self.text) < self.reader.window and self._offered(step):
            yield from self._by_steps(step)
        yield from self._by_all()

    def _offered(self, program: Program) -> bool:
        needed = offers_needed(node.op for node in walk_nodes(program.nodes))
        return needed <= offers_of(hello_of(self.worker), self.request.dtype)

    def _by_steps(self, program: Program) -> Iterator[Array]:
        """Yield the probabilities from a program that reads each character once.

        The kept values start as ones. If the program reads an entry that was never written, the
        comparison with the oracle therefore fails.
        """
        known, given = self.reader, 0
        self._open(program)
        state = {p.name: np.ones(program.shape(p, {"batch": 1})) for p in program.state}
        for position in range(known.window):
            inputs = known.inputs([self.text[position]])
            inputs[program.inputs[-1].name] = np.array([position])
            asked = position + 1 == len(self.text)
            results = self._forward(inputs, state, KEPT if asked else "")
            check_results(program, known.output, results, 1)
            state = group_of(results, "state.")
            if not asked:
                continue
            if _is_proven(given) or position == known.window - 1:
                output = f"output.{known.output}"
                self._prove(known.inputs(self.text), {}, {output: results[output]})
            given += 1
            yield known.probabilities(results)

    def _by_all(self) -> Iterator[Array]:
        known, number = self.reader, 0
        self._open(known.program)
        state, unread = known.first_state(), self.text
        while True:
            inputs = known.inputs(unread)
            results = self._forward(inputs, state, ALL)
            time_read = len(unread) if known.stateful else min(len(unread), known.window)
            check_results(known.program, known.output, results, time_read)
            if _is_proven(number):
                self._prove(inputs, state, results)
            number += 1
            state = group_of(results, "state.")
            yield known.probabilities(results)
            unread = self.text[-(1 if known.stateful else known.reach) :]

    def _open(self, program: Program) -> None:
        request, programs = self.request, (self.training, program)
        check_offered(self.worker, request.device, request.dtype, programs, request.path)
        self._remote.open(*programs, None, request.path, request.dtype, request.device)
        parameters, statistics = dict(self.weights.parameters), dict(self.weights.statistics)
        self._remote.call("load", parameters=parameters, statistics=statistics)

    def _forward(self, inputs: Arrays, state: Arrays, way: str) -> ArrayDict:
        began = time.perf_counter()
        found = whole(self._remote.forward("inference", inputs, state))
        if way:
            self.pace.add(way, time.perf_counter() - began)
        return found

    def _prove(self, inputs: Arrays, state: Arrays, results: Arrays) -> None:
        """Compare results with the last steps of the oracle, which reads the whole text."""
        if self._reference is None:
            self._reference = Reference(self.training, self.reader.program)

        def run(session: Session) -> list[ArrayDict]:
            session.load(self.weights.parameters, self.weights.statistics)
            found = session.forward("inference", inputs, state)
            return [{name: _last(found[name], np.shape(a)) for name, a in results.items()}]

        expected = self._reference.expect(run)
        wrong = worst(expected.deviations(results, self.request.dtype))
        if not wrong.agrees:
            at = (self.request.spec, self.backend, self.request.device, self.request.folders)
            raise GenerateError(
                f"{self.backend} does not agree with the oracle: {wrong}; {look_closer(*at, {})}"
            )


def _is_proven(number: int) -> bool:
    """Return whether the oracle checks a result; ``number`` counts the results from 0."""
    return number < PROVEN or number & (number - 1) == 0


def _last(array: Array, shape: Sequence[int]) -> Any:
    """Return the last time steps of an array, as many as ``shape`` has."""
    return array if array.shape == shape else array[:, -shape[1] :]


Choose = Callable[[Array], int]


@dataclass(frozen=True)
class TextWriter:
    """A checked request with its loaded model."""

    request: GenerateRequest
    spec: Spec
    weights: Weights
    reader: Reader
    vocabulary: Vocabulary
    prompt: tuple[int, ...]

    def write(self, backend: str, pace: ReadingPace | None = None) -> Iterator[str]:
        """Yield the characters after the prompt; ``pace`` records the speed.

        Raise :class:`UsageError` if the device or dtype is not offered, and :class:`GenerateError`
        if the backend fails.
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
    """Load and check the request's model; raise a :class:`HarnessError` if something is wrong."""
    check_ranges(request)
    check_device(request.device, request.backends)
    spec = load_spec(request.spec, request.folders)
    weights = load(request.weights)
    known, letters = reader(spec, weights), vocabulary(weights)
    letters.check_classes(known.classes)
    prompt = tuple(int(i) for i in letters.encode(request.prompt))
    known.check_prompt(request.prompt)
    return TextWriter(request, spec, weights, known, letters, prompt)


def chooser(request: GenerateRequest, characters: int) -> Choose:
    """Return a function that chooses the next character from the probabilities ``[classes]``.

    It never chooses the padding, or a class without a character. Its random numbers depend only on
    the seed.
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
        # The likeliest character has score 0 at any temperature. Other scores may be -inf, but not
        # NaN.
        with np.errstate(divide="ignore", over="ignore"):
            scores = np.log(allowed) - np.log(allowed.max())
            scores /= request.temperature
        if request.top_k:
            scores[np.argsort(-scores, kind="stable")[request.top_k :]] = -np.inf
        weights: Array = np.exp(scores)
        return 1 + int(random.choice(len(weights), p=weights / weights.sum()))

    return choose
