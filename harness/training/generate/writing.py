"""Generation of a text, character by character, on one backend."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.command.declared import check_ranges
from harness.convert.weights import Weights, check, load
from harness.errors import UsageError
from harness.language import schema
from harness.language.initial_values import initial_state
from harness.language.initializers import generator
from harness.language.model import Spec, load_spec
from harness.oracle.tolerance import worst
from harness.oracle.yardstick import Reference
from harness.program.dims import resolve_shape
from harness.program.incremental import NoRow, incremental
from harness.program.ir import Port, Program, walk_nodes
from harness.program.primitives import offers_needed
from harness.program.signature import group_of, result_ports
from harness.runtime.answers import IllFormed, check_all_arrays
from harness.runtime.labels import check_device
from harness.runtime.session import Session
from harness.text.vocabulary import Vocabulary, one_hot
from harness.training.generate.request import GenerateError, GenerateRequest
from harness.training.proof import diagnosis_hint
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault, check_offered, hello_of, offers_of
from harness.worker.worker import Worker

# Use a model to continue a text: convert the text to arrays, and read the probabilities.


@dataclass(frozen=True)
class Reader:
    """The way in which a model reads a text to predict the next character.

    - ``fixed`` is the number of characters that the model reads if each character is a separate
      input. If the inputs have a time axis, ``fixed`` is None, and the model reads at most
      ``window`` characters, as in training.
    - ``offsets`` maps an input to the distance in characters from the start of the window to the
      input's first character; None means an input of zeros.
    - ``output`` is the name of the output with the probabilities.
    - ``stateful`` is True if the model has a state. Such a model reads each character once.
    - ``step`` is a program that reads one character and caches values for later characters in the
      same window; None if the model has no such program.
    """

    program: Program
    offsets: Mapping[str, int | None]
    output: str
    fixed: int | None
    window: int
    stateful: bool
    step: Program | None = None

    @property
    def reach(self) -> int:
        """The maximum number of characters that a model without state reads to predict the next
        character."""
        return self.fixed or self.window

    def check_prompt(self, prompt: str) -> None:
        """Raise :class:`UsageError` if the prompt is too short for the model."""
        least = self.fixed or 1
        if len(prompt) < least:
            needed = f"at least {least} character{'s' if least > 1 else ''}"
            raise UsageError(
                f"{self.program.name} reads {needed}, but the prompt {prompt!r} has {len(prompt)}"
            )

    @property
    def classes(self) -> int:
        """The largest number of characters that a vocabulary can have if the model must be able to
        read and predict all of them."""
        program = self.program
        (written,) = (p for p in program.outputs if p.name == self.output)
        dims = [program.type_of(written).shape[-1]]
        for port in program.inputs:
            if self.offsets[port.name] is not None:
                type_ = program.type_of(port)
                dims.append(type_.bound or type_.shape[-1])
        return min(dim.resolve(program.sizes) for dim in dims)

    def inputs(self, indices: Sequence[int]) -> dict[str, Array]:
        """Return a dictionary from input name to array, with batch size 1. ``indices`` are the
        characters to read, as indices into the vocabulary.

        If there are more characters than the model can read, only the last of them are used.
        """
        text = np.asarray(indices, np.int64)
        if self.fixed is not None or not self.stateful:
            text = text[-self.reach :]
        return {port.name: self._input(port, text) for port in self.program.inputs}

    def first_state(self) -> dict[str, Array]:
        """Return a dictionary with the model's state before it reads the first character."""
        return initial_state(self.program, 1)

    def probabilities(self, results: Arrays) -> Array:
        """Return the probabilities ``[classes]`` of the next character. ``results`` are the model's
        results for the text so far."""
        output = np.asarray(results[f"output.{self.output}"], np.float64)
        last: Array = output.reshape(-1, output.shape[-1])[-1]
        return last

    def _input(self, port: Port, text: Array) -> Array:
        offset, type_ = self.offsets[port.name], self.program.type_of(port)
        if offset is None:
            return np.zeros(self.program.shape(port, {"batch": 1}))
        rank = len(type_.shape) - (type_.bound is None)
        characters = text[offset] if rank == 1 else text
        indices = np.reshape(characters, (1,) if rank == 1 else (1, -1))
        if type_.bound is not None:
            return indices
        return one_hot(indices, type_.shape[-1].resolve(self.program.sizes))


def check_results(program: Program, output: str, results: Mapping[str, Array], time: int) -> None:
    """Check the shapes of a backend's results after it has read ``time`` characters. ``output`` is
    the name of the output with the probabilities.

    Raises:
        IllFormed: the output or a state is missing, or has another shape.
    """
    sizes = {**program.sizes, "batch": 1, "time": time}
    ports = result_ports(program, "forward")
    name = f"output.{output}"
    expected = {name: ports[name], **{n: v for n, v in ports.items() if n.startswith("state.")}}
    for name, value in expected.items():
        if name not in results:
            raise IllFormed(f"{name}: nothing was returned")
        shape = resolve_shape(program.types[value].shape, sizes)
        if results[name].shape != shape:
            actual = list(results[name].shape)
            raise IllFormed(f"{name}: expected shape {list(shape)}, found {actual}")


def reader(spec: Spec, weights: Weights) -> Reader:
    """Return a :class:`Reader` for a spec's model, which has the sizes that the weights have.

    Raise :class:`UsageError` if the spec cannot read a text, and :class:`WeightsError` if the
    weights belong to another model.
    """
    check(weights, spec)
    data = spec.model.data
    if not isinstance(data, schema.Data):
        raise UsageError(f"{spec.name} has no 'data' section for a text, so it cannot read one")
    program = spec.program("inference", **weights.sizes)
    offsets = {p.name: data.arrays[p.name].offset for p in program.inputs}
    wide = any("time" in _axis_names(program, port) for port in program.inputs)
    single = [offset for offset in offsets.values() if offset is not None]
    output, window = _output(program), data.windows.length
    return Reader(
        program,
        offsets,
        output,
        None if wide else max(single, default=0) + 1,
        window,
        bool(program.state),
        _step(program, offsets, output, window) if wide else None,
    )


def _step(
    program: Program, offsets: Mapping[str, int | None], output: str, window: int
) -> Program | None:
    """Return a program that reads one character per call and caches values for later characters;
    return None if the model does not allow that."""
    without_time = (p for p in program.inputs if "time" not in _axis_names(program, p))
    if any(offsets[port.name] is not None for port in without_time):
        return None
    try:
        return incremental(program, output, window)
    except NoRow:
        return None


def _axis_names(program: Program, port: Port) -> list[str]:
    return [name for dim in program.type_of(port).shape for name in dim.names]


def vocabulary(weights: Weights) -> Vocabulary:
    """Return the vocabulary that is stored with the weights; raise :class:`UsageError` if there is
    none."""
    if not weights.vocabulary:
        raise UsageError(
            f"the weights of {weights.spec} have no vocabulary, so their classes are not "
            "characters; create weights with 'harness train'"
        )
    characters = Vocabulary(tuple(weights.vocabulary))
    if len(characters) < 2:
        raise UsageError(
            f"the vocabulary of the weights of {weights.spec} has only the padding character"
        )
    return characters


def _output(program: Program) -> str:
    """Return the name of the output with the probabilities of the next character.

    This is the last output in the spec whose value no other output uses.
    """
    ends = [n for n in result_ports(program, "ends") if n.startswith("output.")]
    if not ends:
        raise UsageError(f"{program.name} has no output to read a character from")
    return ends[-1].removeprefix("output.")


# Read a text on one backend: each character once with kept values, or the whole text each time.

DAY = 24 * 3600.0
# The oracle checks the first PROVEN results of each way of reading, and later the results whose
# number is a power of 2.
PROVEN = 3
# The ways of reading: each character once, or all characters that the model can read each time.
KEPT, ALL = "kept", "all"


@dataclass
class ReadingPace:
    """The number of calls, and their seconds, for each way of reading: each character once
    (:data:`KEPT`), or the whole window for each new character (:data:`ALL`). The first call of each
    way is left out, because it compiles."""

    calls: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, way: str, seconds: float) -> None:
        """Count a call and its seconds for one way of reading: :data:`KEPT` or :data:`ALL`."""
        if way in self.calls:
            self.seconds[way] = self.seconds.get(way, 0.0) + seconds
        self.calls[way] = self.calls.get(way, -1) + 1

    def record(self) -> dict[str, dict[str, float]]:
        """Return a dictionary from each way of reading (:data:`KEPT`, :data:`ALL`) to its number of
        characters and its characters per second."""
        return {
            way: {"characters": count, "characters_per_second": count / self.seconds[way]}
            for way, count in self.calls.items()
            if count
        }


@dataclass
class Reading:
    """A model on one backend that reads a growing text. ``text`` has the indices of its characters.

    There are two ways of reading. While the text fits into the window, and if the model has a
    program that reads single characters, the model reads each character once and stores values for
    later characters (:data:`KEPT`). Otherwise, the model reads its whole window for each new
    character (:data:`ALL`).
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
        """Yield the probabilities ``[classes]`` of the next character, again and again.

        Before the caller asks for the next probabilities, it adds a character to ``text``.

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
        """Yield the probabilities ``[classes]`` from a program that reads each character once.

        The cached values start as ones, not zeros, to detect a program that wrongly reads an entry
        before it is written. A 0 could have no effect on the result. A 1 changes it, so the
        comparison with the oracle fails.
        """
        reader, proven_count = self.reader, 0
        self._open(program)
        state = {p.name: np.ones(program.shape(p, {"batch": 1})) for p in program.state}
        for position in range(reader.window):
            inputs = reader.inputs([self.text[position]])
            inputs[program.inputs[-1].name] = np.array([position])
            is_last = position + 1 == len(self.text)
            results = self._forward(inputs, state, KEPT if is_last else "")
            check_results(program, reader.output, results, 1)
            state = group_of(results, "state.")
            if not is_last:
                continue
            if _is_proven(proven_count) or position == reader.window - 1:
                output = f"output.{reader.output}"
                self._prove(reader.inputs(self.text), {}, {output: results[output]})
            proven_count += 1
            yield reader.probabilities(results)

    def _by_all(self) -> Iterator[Array]:
        reader, number = self.reader, 0
        self._open(reader.program)
        state, unread = reader.first_state(), self.text
        while True:
            inputs = reader.inputs(unread)
            results = self._forward(inputs, state, ALL)
            time_read = len(unread) if reader.stateful else min(len(unread), reader.window)
            check_results(reader.program, reader.output, results, time_read)
            if _is_proven(number):
                self._prove(inputs, state, results)
            number += 1
            state = group_of(results, "state.")
            yield reader.probabilities(results)
            unread = self.text[-(1 if reader.stateful else reader.reach) :]

    def _open(self, program: Program) -> None:
        request, programs = self.request, (self.training, program)
        check_offered(self.worker, request.device, request.dtype, programs, request.path)
        self._remote.open(*programs, None, request.path, request.dtype, request.device)
        parameters, statistics = dict(self.weights.parameters), dict(self.weights.statistics)
        self._remote.call("load", parameters=parameters, statistics=statistics)

    def _forward(self, inputs: Arrays, state: Arrays, way: str) -> ArrayDict:
        began = time.perf_counter()
        results = check_all_arrays(self._remote.forward("inference", inputs, state))
        if way:
            self.pace.add(way, time.perf_counter() - began)
        return results

    def _prove(self, inputs: Arrays, state: Arrays, results: Arrays) -> None:
        """Compare a backend's ``results`` with the results of the oracle for the same characters
        (``inputs``) and the same state before them."""
        if self._reference is None:
            self._reference = Reference(self.training, self.reader.program)

        def run(session: Session) -> list[ArrayDict]:
            session.load(self.weights.parameters, self.weights.statistics)
            found = session.forward("inference", inputs, state)
            return [{name: _last_steps(found[name], np.shape(a)) for name, a in results.items()}]

        expected = self._reference.expect(run)
        wrong = worst(expected.deviations(results, self.request.dtype))
        if not wrong.agrees:
            at = (self.request.spec, self.backend, self.request.device, self.request.folders)
            raise GenerateError(
                f"{self.backend} does not agree with the oracle: {wrong}; {diagnosis_hint(*at, {})}"
            )


def _is_proven(number: int) -> bool:
    """Return whether the oracle checks the result with this number, counted from 0: the first
    :data:`PROVEN` results, then each result whose number is a power of 2."""
    return number < PROVEN or number & (number - 1) == 0


def _last_steps(array: Array, shape: Sequence[int]) -> Any:
    """Return the last time steps of ``array``, as many as ``shape[1]``, the time axis of
    ``shape``."""
    return array if array.shape == shape else array[:, -shape[1] :]


Choose = Callable[[Array], int]


@dataclass(frozen=True)
class TextWriter:
    """A request that has been checked, with its loaded model and weights. The method :meth:`write`
    generates the text."""

    request: GenerateRequest
    spec: Spec
    weights: Weights
    reader: Reader
    vocabulary: Vocabulary
    prompt: tuple[int, ...]

    def write(self, backend: str, pace: ReadingPace | None = None) -> Iterator[str]:
        """Yield the characters after the prompt, one by one. ``pace`` records the speed.

        Raise :class:`UsageError` if the backend does not offer the device or dtype, and
        :class:`GenerateError` if the backend fails.
        """
        request = self.request
        training = self.spec.program("training", **self.weights.sizes)
        text, choose = list(self.prompt), chooser(request, len(self.vocabulary))
        reading_arguments = (
            request,
            self.reader,
            training,
            self.weights,
            backend,
            text,
            pace or ReadingPace(),
        )
        reading = Reading(*reading_arguments)
        try:
            for _, probabilities in zip(
                range(request.length), reading.probabilities(), strict=False
            ):
                text.append(choose(probabilities))
                yield self.vocabulary.characters[text[-1]]
        except WorkerFault as fault:
            raise GenerateError(f"{backend} failed: {fault}", fault.traceback) from None
        except IllFormed as error:
            raise GenerateError(f"{backend} failed: forward: {error}") from None
        finally:
            reading.worker.close()


def prepare(request: GenerateRequest) -> TextWriter:
    """Load and check the model and weights that a request names; raise a :class:`HarnessError` if
    something is wrong."""
    check_ranges(request)
    check_device(request.device, request.backends)
    spec = load_spec(request.spec, request.folders)
    weights = load(request.weights)
    model_reader, characters = reader(spec, weights), vocabulary(weights)
    characters.check_classes(model_reader.classes)
    prompt = tuple(int(i) for i in characters.encode(request.prompt))
    model_reader.check_prompt(request.prompt)
    return TextWriter(request, spec, weights, model_reader, characters, prompt)


def chooser(request: GenerateRequest, characters: int) -> Choose:
    """Return a function that gets the probabilities ``[classes]`` and returns the index of the next
    character.

    It never chooses the padding, or a class without a character. Its random numbers depend only on
    the seed.
    """
    random = generator(request.seed, "generate")

    def choose(probabilities: Array) -> int:
        if not np.isfinite(probabilities).all():
            raise GenerateError(
                "the probabilities are NaN or infinite: these weights cannot be used"
            )
        allowed = probabilities[1:characters]
        if allowed.min(initial=0.0) < 0 or not allowed.any():
            raise GenerateError(
                "the output is not a probability distribution: "
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
