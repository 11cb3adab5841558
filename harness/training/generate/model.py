"""Use a model to continue a text: convert the text to arrays, and read the probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.arrays import Array, Arrays
from harness.convert.weights import Weights, check
from harness.errors import UsageError
from harness.language import schema
from harness.language.initial_values import initial_state
from harness.language.model import Spec
from harness.program.dims import resolve_shape
from harness.program.incremental import NoRow, incremental
from harness.program.ir import Port, Program
from harness.program.signature import result_ports
from harness.runtime.answers import IllFormed
from harness.text.vocabulary import Vocabulary, one_hot


@dataclass(frozen=True)
class Reader:
    """The way in which a model reads characters.

    ``fixed`` is the number of characters that the model reads, if each is a separate input; None if
    the inputs have a time axis. A time axis has at most ``window`` characters, as in training. A
    stateful model reads each character once. ``step`` is a program that reads one character and
    keeps values of earlier characters, as long as they fit into the window. It is None if the model
    does not allow that.
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
        """The most characters that a model without state reads to predict the next one."""
        return self.fixed or self.window

    def check_prompt(self, prompt: str) -> None:
        """Raise :class:`UsageError` if the prompt is too short for the model."""
        least = self.fixed or 1
        if len(prompt) < least:
            wanted = f"at least {least} character{'s' if least > 1 else ''}"
            raise UsageError(
                f"{self.program.name} reads {wanted}, and the prompt {prompt!r} has {len(prompt)}"
            )

    @property
    def classes(self) -> int:
        """The most characters in a vocabulary that the model can read and write."""
        program = self.program
        (written,) = (p for p in program.outputs if p.name == self.output)
        dims = [program.type_of(written).shape[-1]]
        for port in program.inputs:
            if self.offsets[port.name] is not None:
                type_ = program.type_of(port)
                dims.append(type_.bound or type_.shape[-1])
        return min(dim.resolve(program.sizes) for dim in dims)

    def inputs(self, indices: Sequence[int]) -> dict[str, Array]:
        """Return the input arrays for some characters, with batch 1.

        If there are more characters than the model can read, only the last ones are used.
        """
        text = np.asarray(indices, np.int64)
        if self.fixed is not None or not self.stateful:
            text = text[-self.reach :]
        return {port.name: self._input(port, text) for port in self.program.inputs}

    def first_state(self) -> dict[str, Array]:
        """Return the state before the first character."""
        return initial_state(self.program, 1)

    def probabilities(self, results: Arrays) -> Array:
        """Return the probabilities ``[classes]`` of the next character, from a model's results."""
        found = np.asarray(results[f"output.{self.output}"], np.float64)
        last: Array = found.reshape(-1, found.shape[-1])[-1]
        return last

    def _input(self, port: Port, text: Array) -> Array:
        offset, type_ = self.offsets[port.name], self.program.type_of(port)
        if offset is None:
            return np.zeros(self.program.shape(port, {"batch": 1}))
        rank = len(type_.shape) - (type_.bound is None)
        taken = text[offset] if rank == 1 else text
        given = np.reshape(taken, (1,) if rank == 1 else (1, -1))
        if type_.bound is not None:
            return given
        return one_hot(given, type_.shape[-1].resolve(self.program.sizes))


def check_results(program: Program, output: str, results: Mapping[str, Array], time: int) -> None:
    """Check the shapes of a backend's results for ``time`` characters.

    Raises:
        IllFormed: the output or a state is missing, or has another shape.
    """
    sizes = {**program.sizes, "batch": 1, "time": time}
    ports = result_ports(program, "forward")
    name = f"output.{output}"
    wanted = {name: ports[name], **{n: v for n, v in ports.items() if n.startswith("state.")}}
    for name, value in wanted.items():
        if name not in results:
            raise IllFormed(f"{name}: nothing was returned")
        shape = resolve_shape(program.types[value].shape, sizes)
        if results[name].shape != shape:
            found = list(results[name].shape)
            raise IllFormed(f"{name}: expected shape {list(shape)}, found {found}")


def reader(spec: Spec, weights: Weights) -> Reader:
    """Return how a spec's model reads text, at the sizes of its weights.

    Raise :class:`UsageError` if the spec cannot read a text, and :class:`WeightsError` if the
    weights belong to another model.
    """
    check(weights, spec)
    data = spec.model.data
    if not isinstance(data, schema.Data):
        raise UsageError(f"{spec.name} has no 'data' of a text: it does not say how it reads one")
    program = spec.program("inference", **weights.sizes)
    offsets = {p.name: data.arrays[p.name].offset for p in program.inputs}
    wide = any("time" in _names(program, port) for port in program.inputs)
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
    """Return a program that reads one character per step; None if the model has none."""
    whole = (p for p in program.inputs if "time" not in _names(program, p))
    if any(offsets[port.name] is not None for port in whole):
        return None
    try:
        return incremental(program, output, window)
    except NoRow:
        return None


def _names(program: Program, port: Port) -> list[str]:
    return [name for dim in program.type_of(port).shape for name in dim.names]


def vocabulary(weights: Weights) -> Vocabulary:
    """Return the vocabulary of weights; raise :class:`UsageError` if they have none."""
    if not weights.vocabulary:
        raise UsageError(
            f"the weights of {weights.spec} have no vocabulary, so their classes stand for no "
            "characters; make others with 'harness train'"
        )
    found = Vocabulary(tuple(weights.vocabulary))
    if len(found) < 2:
        raise UsageError(
            f"the vocabulary of the weights of {weights.spec} has no character but the padding"
        )
    return found


def _output(program: Program) -> str:
    """Return the last output that nothing else uses: the probabilities of the next character."""
    ends = [n for n in result_ports(program, "ends") if n.startswith("output.")]
    if not ends:
        raise UsageError(f"{program.name} has no output to read a character from")
    return ends[-1].removeprefix("output.")
