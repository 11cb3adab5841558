"""Whether bits repeat: asked for where a backend promises it, and agreement where it does not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from needed import need

from harness.arrays import Arrays
from harness.backends.numpy.backend import Numpy
from harness.checking.checks import Context, properties
from harness.checking.checks.context import compare_repetition
from harness.checking.engine import Engine
from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.program.serial import encoded
from harness.results.findings import Finding
from harness.runtime import plugins
from harness.runtime.answers import Arguments
from harness.runtime.service import SessionService
from harness.worker.launch import Launch

SPEC = "lesson6/sequence_rnn"


class Jittery:
    """A session whose gradients are another each time, as sums in any order are."""

    def __init__(self, case: Case, repeats: bool, jitter: float) -> None:
        self.repeats, self.jitter = repeats, jitter
        self._verbs, self._random = SessionService(Numpy()), np.random.default_rng(0)
        self._verbs.open(encoded(case.training), encoded(case.inference))

    def load(self, material: Arguments) -> None:
        self._verbs.load(material.parameters, material.statistics)

    def gradients(self, material: Arguments) -> dict[str, Any]:
        found = self._verbs.gradients("training", material.inputs, material.state, material.targets)
        made = {f"gradient.{n}": self._jittered(a) for n, a in found["gradients"].items()}
        return {**found["results"], **made}

    def forward(self, phase: Any, inputs: Arrays, state: Arrays) -> dict[str, Any]:
        found = self._verbs.forward(phase, inputs, state)
        return {name: self._jittered(array) for name, array in found.items()}

    def _jittered(self, array: Any) -> Any:
        noise = self._random.uniform(-1, 1, array.shape)
        return (array * (1 + self.jitter * noise)).astype(array.dtype)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(load_spec(SPEC), Request(), own=False)


def context_of(case: Case, repeats: bool, jitter: float) -> Context:
    remote: Any = Jittery(case, repeats, jitter)
    return Context(case, case, remote, "derived", "float32", "cpu", repeat=3)


@pytest.mark.parametrize("check", [properties.repeatability, properties.soak])
@pytest.mark.parametrize(
    ("repeats", "jitter", "verdict"),
    [
        (True, 0.0, "agree"),
        (True, 1e-7, "differ"),  # bits are promised
        (False, 0.0, "agree"),
        (False, 1e-7, "agree"),  # atomics
        (False, 1e-3, "differ"),  # more than rounding
    ],
)
def test_bits_are_asked_for_where_they_are_promised(
    case: Case, check: Any, repeats: bool, jitter: float, verdict: str
) -> None:
    (finding,) = check(context_of(case, repeats, jitter))
    assert finding.judge().verdict == verdict, finding.detail
    assert finding.comparisons >= 3 * 3


def test_what_is_missing_from_a_later_call_differs(case: Case) -> None:
    first = {"gradient.rnn.W": np.ones((2, 2), np.float32)}
    for repeats in (True, False):
        finding = Finding("soak")
        context: Any = SimpleNamespace(remote=SimpleNamespace(repeats=repeats), dtype="float32")
        compare_repetition(
            context, finding, first, {}, lambda: case.gradients(case.material, "main"), "{}"
        )
        assert finding.judge().verdict == "differ"


# --- --deterministic ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("numpy", {}),
        ("torch", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("keras", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("jax", {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
        ("keras-jax", {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
    ],
)
def test_frameworks_start_with_their_switches(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: Mapping[str, str]
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert wanted.items() <= plugins.environment(name, deterministic=True).items()
    assert not wanted.keys() & plugins.environment(name).keys()


def test_a_run_of_it_tells_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--deterministic" in Launch("numpy", deterministic=True).command()
    assert "--deterministic" not in Launch("numpy").command()
    for wanted in (True, False):
        request = Request(specs=(SPEC,), backends=("numpy",), deterministic=wanted)
        with Engine(request) as engine:
            assert engine.workers["numpy"].launch.deterministic == wanted


def test_torch_repeats_its_bits_in_a_run_of_it() -> None:
    need("torch")
    request = Request(
        specs=(SPEC,),
        backends=("torch",),
        dtypes=("float32",),
        checks=("values", "repeatability"),
        deterministic=True,
        jobs=len(os.sched_getaffinity(0)),
    )
    with Engine(request) as engine:
        report = engine.run()
        hello = engine.workers["torch"].launch
    assert {f.verdict for r in report.results for f in r.findings} == {"agree"}
    assert hello.deterministic
