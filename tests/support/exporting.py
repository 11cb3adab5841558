"""Shared code for tests of formats: a model with arrays, its export, and the format's process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.convert.formats import Exported, launch
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, compare
from harness.program.serial import encode
from harness.worker.worker import Worker

ODD = Path(__file__).parent / "odd_specs"
SYSTEMS = (*lesson6(), str(ODD / "odd.yaml"), str(ODD / "nested.yaml"))
Array = npt.NDArray[Any]


def case_of(name: str, hidden: int = 16) -> Case:
    """Return a case of a built-in model at a small size, or of an unusual spec."""
    spec = load_spec(name, [ODD])
    sizes = {"hidden": hidden} if "hidden" in spec.model.sizes else {}
    return Case(spec, sizes, 3, 5)


def exported(case: Case, dtype: str) -> Exported:
    """Return an export of the case's parameters and statistics, with characters of every kind."""
    return Exported(
        case.spec.name,
        case.training,
        case.inference,
        {n: a.astype(dtype) for n, a in case.material.parameters.items()},
        {n: a.astype(dtype) for n, a in case.material.statistics.items()},
        ("\0", "\n", " ", "'", '"', "\\", "a", "é", "\u20ac", "\U0001f600"),
    )


class Caller:
    """A client of a format's process that raises AssertionError if a call fails."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def write(self, given: Exported, path: Path) -> list[Path]:
        return [Path(p) for p in self.value("write", exported=given.payload(), path=str(path))]

    def read(self, path: Path, case: Case) -> dict[str, Array]:
        """Read a file; return its parameters and statistics together."""
        found = self.value("read", path=str(path), training=encode(case.training))
        return {**found["parameters"], **found["statistics"]}

    def deviations(
        self, path: Path, case: Case, dtype: str, batch: int = 3, time: int = 5
    ) -> list[Deviation]:
        """Compare the outputs and new state of the written model with the oracle."""
        material = case.batch_of(batch, time)
        expected = case.forward("inference", material, (batch, time)).only("output.", "state.")
        found = self.value("outputs", path=str(path), inputs=material.inputs, state=material.state)
        return compare(found, expected.values, expected.noise(dtype), dtype)

    def value(self, verb: str, **payload: Any) -> Any:
        outcome = self.worker.call(verb, payload, 120.0)
        assert outcome.ok, outcome.cause + outcome.traceback
        return outcome.value

    def refusal(self, path: Path, case: Case) -> str:
        """Return the message for a file that the format must reject."""
        payload = {"path": str(path), "training": encode(case.training)}
        outcome = self.worker.call("read", payload, 120.0)
        assert outcome.cause.startswith("UsageError: "), outcome.cause + outcome.traceback
        return outcome.cause.removeprefix("UsageError: ")


@contextmanager
def running(name: str) -> Iterator[Caller]:
    """Start the process of a format inside this context."""
    with Worker(launch(name)) as worker:
        yield Caller(worker)


def same_bits(found: Mapping[str, Array], given: Exported) -> bool:
    """Return whether arrays are bit-for-bit equal to the exported arrays."""
    wanted = {**given.parameters, **given.statistics}
    return found.keys() == wanted.keys() and all(
        (found[n].dtype, found[n].shape, found[n].tobytes()) == (a.dtype, a.shape, a.tobytes())
        for n, a in wanted.items()
    )


def strange(given: Exported) -> Exported:
    """Put NaN, infinities, a denormal and negative zero into the arrays of an export."""
    for array in (*given.parameters.values(), *given.statistics.values()):
        flat = array.reshape(-1)
        odd = np.array([np.nan, np.inf, -np.inf, 1e-40, -0.0], array.dtype)
        flat[: min(flat.size, 5)] = odd[: min(flat.size, 5)]
    return given


def assert_strange_numbers_come_back(caller: Caller, path: Path, dtype: str) -> None:
    """Assert that NaN, infinities and similar numbers are read back bit for bit."""
    case = case_of("lesson6/stateful_lstm")
    given = strange(exported(case, dtype))
    caller.write(given, path)
    assert same_bits(caller.read(path, case), given)


def assert_same_bytes(caller: Caller, path: Path) -> None:
    """Assert that writing the same weights twice gives the same bytes."""
    given = exported(case_of("lesson6/sequence_rnn"), "float32")
    caller.write(given, path)
    first = path.read_bytes()
    caller.write(given, path)
    assert path.read_bytes() == first
