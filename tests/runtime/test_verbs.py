"""What a worker answers; and the sharing of memory that ``aliasing`` must find."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from wording import Wording

from harness.backends.numpy.backend import Numpy
from harness.backends.numpy.primitives import PRIMITIVES
from harness.checking.request import Request, make_case
from harness.errors import UsageError
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.program.ir import Program
from harness.program.serial import encoded
from harness.runtime.backend import Backend
from harness.runtime.service import SessionService, handler
from harness.runtime.session import Session


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(load_spec("lesson6/stateful_lstm"), Request(), own=False)


def opened(case: Case, backend: Backend, **choices: Any) -> SessionService:
    verbs = SessionService(backend)
    given = {"dtype": "float64", "rule": encoded(case.spec.update), **choices}
    verbs.open(encoded(case.training), encoded(case.inference), **given)
    return verbs


@pytest.fixture
def verbs(case: Case) -> SessionService:
    found = opened(case, Numpy())
    found.load(case.material.parameters, case.material.statistics)
    return found


# --- Verbs -------------------------------------------------------------------------------------


def test_open_says_the_paths_and_use_rule_changes_them(case: Case) -> None:
    verbs = SessionService(Numpy())
    found = verbs.open(encoded(case.training), encoded(case.inference))
    names = ["embed", "norm", "lstm", "out", "sparse_cross_entropy"]
    paths = dict.fromkeys(names, "equations")
    assert found == {"paths": paths, "denormals": True, "repeats": True, "automatic": False}
    rule = encoded(case.spec.rule("sgd"))
    assert set(verbs.use_rule(rule)["paths"]) == {*names, "optimizer"}
    first = verbs.session
    verbs.open(encoded(case.training), encoded(case.inference), dtype="float32")
    assert verbs.session is not first


def test_nothing_is_answered_before_open(wording: Wording) -> None:
    for verb, payload in (("read", None), ("load", {"parameters": {}, "statistics": {}})):
        with wording.raises(UsageError):
            handler(Numpy())(verb, payload)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"device": "cuda"}, "numpy ... 'cuda' ... cpu"),
        (
            {"dtype": "tf32"},
            "numpy ... 'tf32' ... float64, float32, bfloat16, float16",
        ),
    ],
)
def test_what_a_backend_has_not_is_refused_and_the_session_kept(
    case: Case, verbs: SessionService, choices: dict[str, str], words: str, wording: Wording
) -> None:
    before = verbs.session
    with wording.raises(UsageError, words):
        verbs.open(encoded(case.training), encoded(case.inference), **choices)
    assert verbs.session is before


def test_values_are_those_of_the_session(case: Case, verbs: SessionService) -> None:
    m = case.material
    answer = handler(verbs.backend)
    answer("open", {"training": encoded(case.training), "inference": encoded(case.inference)})
    direct = Session(Numpy(), case.training, case.inference)
    direct.load(m.parameters, m.statistics)
    answer("load", {"parameters": m.parameters, "statistics": m.statistics})
    found = answer("forward", {"phase": "inference", "inputs": m.inputs, "state": m.state})
    wanted = direct.forward("inference", m.inputs, m.state)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted)
    batch = {"inputs": m.inputs, "state": m.state, "targets": m.targets}
    gradients = answer("gradients", {"phase": "training", **batch})
    results, wanted = direct.gradients("training", *batch.values())
    assert gradients["results"].keys() == results.keys()
    assert all(np.array_equal(gradients["gradients"][n], wanted[n]) for n in wanted)
    trace = answer("trace", {"phase": "training", "inputs": m.inputs, "state": m.state})
    assert trace[0][:2] == ["embed/y", None]


def test_train_carries_the_state_and_shows_every_step(case: Case, verbs: SessionService) -> None:
    materials = (case.material, case.batch_of(3, 4))
    batches = [{"inputs": m.inputs, "targets": m.targets, "learning_rate": 0.01} for m in materials]
    first, second = verbs.train(batches, case.material.state)
    assert set(first) == {"results", "parameters", "statistics", "slots"}
    moved = second["parameters"]["out.b"] - first["parameters"]["out.b"]
    assert np.abs(moved).min() > 0
    verbs.load(case.material.parameters, case.material.statistics)
    (alone,) = verbs.train(batches[:1], case.material.state)
    state = {n: alone["results"][f"state.{n}"] for n in ("h", "c")}
    (carried,) = verbs.train(batches[1:], state)
    assert carried["results"]["loss"] == second["results"]["loss"]
    verbs.load(case.material.parameters, case.material.statistics)
    verbs.train(batches[:1], case.material.state)
    (reset,) = verbs.train(batches[1:], case.material.state)
    assert reset["results"]["loss"] != second["results"]["loss"]


# --- Aliasing ---------------------------------------------------------------------------------


class Sharing(Session):
    """Takes the caller's arrays as its own tensors."""

    def float_tensor(self, array: Any) -> Any:
        return self.backend.tensor(np.asarray(array, self.dtype))


class Aliasing(Numpy):
    """Its tensors are the arrays that it was given."""

    def session(self, training: Program, inference: Program, **choices: Any) -> Session:
        return Sharing(self, training, inference, **choices)


class Views(Numpy):
    """Hands out one buffer for each shape, filled anew by every call."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[int, ...], Any] = {}

    def numpy(self, tensor: Any) -> Any:
        shape = np.shape(tensor)
        buffer = self.buffers.setdefault(shape, np.empty(shape))
        buffer[...] = tensor
        return buffer


def aliasing(case: Case, backend: Backend) -> list[str]:
    other = case.batch_of(case.batch, case.time, 3)
    calls = [{"inputs": m.inputs, "state": m.state} for m in (case.material, other)]
    before = {n: a.copy() for n, a in case.material.parameters.items()}
    faults = opened(case, backend).aliasing(
        case.material.parameters, case.material.statistics, calls
    )
    for name, array in case.material.parameters.items():
        assert np.array_equal(array, before[name]), "the check itself changed the caller's arrays"
    return faults


def test_nothing_is_shared_by_an_honest_backend(case: Case) -> None:
    assert aliasing(case, Numpy()) == []


def test_aliased_parameters_are_found(case: Case) -> None:
    faults = aliasing(case, Aliasing())
    assert faults
    assert {f.rpartition(" was changed ")[2] for f in faults} == {
        "when the caller changed the loaded arrays"
    }
    assert any(f.startswith("output output.next_chars was") for f in faults)


def test_results_that_are_views_are_found(case: Case) -> None:
    faults = aliasing(case, Views())
    assert any(f.endswith("was changed by the next call") for f in faults)
    assert any(f.startswith("output output.next_chars was") for f in faults)


def _halving(a: Any, b: Any) -> Any:
    found = np.matmul(a, b)
    if a.flags.writeable:
        a *= 0.5
    return found


class Squashing(Aliasing):
    """Its matrix product halves its left operand in place, as if it were scratch space."""

    primitives = {**PRIMITIVES, "matmul": _halving}  # noqa: RUF012


def test_arguments_that_are_written_to_are_found(wording: Wording) -> None:
    faults = aliasing(make_case(load_spec("lesson6/theano_rnn"), Request(), own=False), Squashing())
    wording.line(faults, "h0")
    wording.line(faults, "chars was changed")


COUNT = """
import numpy as np
from harness.runtime.service import fill_freed_memory

fill_freed_memory()
arrays = [np.empty(1000, "{dtype}") for _ in range(8)]
print(sum(int(np.sum(~(np.abs(array) < 1e38))) for array in arrays))
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_freed_memory_has_nan_and_large_numbers(dtype: str) -> None:
    """In a new process, because another process may have other free memory of that size."""
    command = [sys.executable, "-c", COUNT.format(dtype=dtype)]
    counted = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(counted.stdout) > 4000  # of 8,000; some of the memory may be new
