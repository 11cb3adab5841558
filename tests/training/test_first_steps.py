"""A training whose first steps are wrong does not go on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import SPECS, SUPPORT, TESTS
from wording import Wording

from harness.errors import HarnessError, UsageError
from harness.oracle.time_limit import TimeLimit
from harness.oracle.tolerance import Deviation
from harness.oracle.yardstick import FEW, Reference
from harness.training import proof as proofs
from harness.training.proof import Disproved
from harness.training.request import TrainRequest, prepare
from harness.training.run import TrainingRun
from harness.worker.worker import Worker

FOLDER = TESTS / "mutants"
TEXT = 60 * "the quick brown fox jumps over the lazy dog. "


@pytest.fixture(autouse=True)
def mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutants as plugins, here and in workers."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("PYTHONPATH", os.fspath(FOLDER))


def trained(
    text: Path, backend: str, device: str = "cpu", spec: str = "sequence_rnn", **changes: Any
) -> dict[str, Any]:
    """The history of a small training."""
    text.write_text(TEXT)
    sizes = {"hidden": 6, **({} if spec == "keras_gru" else {"factors": 4})}
    given = {"epochs": 1, "batch": 4, "sizes": sizes, "device": device, **changes}
    setup = prepare(TrainRequest(f"lesson6/{spec}", backend, text=str(text), **given))
    with TrainingRun(setup) as training:
        return dict(training.run().history)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_steps_are_proved_and_the_record_says_so(tmp_path: Path, dtype: str) -> None:
    proof = trained(tmp_path / "text", "numpy", dtype=dtype)["proof"]
    assert (proof["steps"], proof["in_a_row"]) == (3, 64)
    assert proof["error"] <= proof["allowed"] < 0.1
    assert proof["seconds"] > 0


def test_the_proof_leaves_no_trace_in_what_is_trained(tmp_path: Path) -> None:
    proved = trained(tmp_path / "text", "numpy")
    plain = trained(tmp_path / "text", "numpy", proof=False)
    assert "proof" not in plain
    assert proved["steps"] == plain["steps"]
    losses = [[e["loss"], e["held_out_loss"]] for e in (*proved["epochs"], *plain["epochs"])]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [("stateful_lstm", "float32"), ("keras_gru", "float64"), ("sequence_rnn", "float16")],
)
def test_each_step_for_itself_is_right_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, dtype: str
) -> None:
    monkeypatch.setattr(proofs._Proof, "compare_with_oracle", _each)
    proof = trained(tmp_path / "text", "numpy", spec=spec, dtype=dtype)["proof"]
    assert proof["steps"] == 3
    assert proof["error"] <= proof["allowed"]


def test_each_step_for_itself_is_refused_where_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs._Proof, "compare_with_oracle", _each)
    with pytest.raises(Disproved, match=r"step \d"):
        trained(tmp_path / "text", "mutants-1", "off-when-fast")


def _each(proof: Any) -> list[Deviation]:
    setup = proof.setup
    found: list[Deviation] = proof._compare_each_step(
        Reference(setup.training, setup.inference, setup.spec.update, orders=FEW)
    )
    return found


def test_steps_that_magnify_rounding_are_looked_at_one_by_one() -> None:
    """The fourth step of a resnet, at a rate of 0.1, on torch: some relu falls the other way."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    request = TrainRequest("resnet", "torch", path="native", epochs=1)
    with TrainingRun(prepare(request)) as training:
        assert training.run().history["proof"]["steps"] == 3


@pytest.mark.parametrize("fault", ["last-batch-stays", "off-when-fast"])
def test_wrong_steps_are_not_gone_on_with(tmp_path: Path, fault: str) -> None:
    from harness_mutants import BACKENDS

    with pytest.raises(Disproved, match="check lesson6/"):
        trained(tmp_path / "text", BACKENDS[0], fault)


@pytest.mark.parametrize("wrong", ["rate_of_first", "smaller_stays", "tests_wrong"])
def test_steps_to_come_are_proved_too(tmp_path: Path, wrong: str) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT)
    given = {"epochs": 9, "batch": 4, "sizes": {"hidden": 6, "factors": 4}, "text": str(text)}
    made = prepare(TrainRequest("lesson6/three_char", "numpy", **given))
    assert len(set(made.rates)) > 1
    assert made.feed.total % 4
    launch = replace(
        made.request.launch,
        service=f"wrong_trainings:{wrong}",
        environment={"PYTHONPATH": os.fspath(SUPPORT)},
    )
    with Worker(launch) as worker, TrainingRun(made, worker=worker) as training:
        said = "held-out loss" if wrong == "tests_wrong" else r"step \d: "
        with pytest.raises(Disproved, match=said):
            training.run()


def test_a_proof_can_be_left_out(tmp_path: Path) -> None:
    from harness_mutants import BACKENDS

    assert trained(tmp_path / "text", BACKENDS[0], "off-when-fast", proof=False)["epochs"]


def test_what_the_oracle_has_no_time_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(proofs, "TimeLimit", lambda limit: limits.append(limit) or TimeLimit(0.0))
    proof = trained(tmp_path / "text", "numpy", timeout=1200.0)["proof"]
    assert proof["steps"] == 0
    assert limits == [120.0]
    for told in ("is not a fault of the backend", "(--timeout)", "--no-proof"):
        assert told in proof["why"]
    assert issubclass(Disproved, HarnessError)


def test_what_is_lost_in_rounding_is_not_called_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setattr(Deviation, "void", True)
    proof = trained(tmp_path / "text", "numpy")["proof"]
    assert proof["steps"] == 0
    wording.line(proof["why"], "float32")


def test_a_step_that_has_no_number_by_the_spec_itself_is_refused(tmp_path: Path) -> None:
    own = (SPECS / "models" / "lesson6" / "sequence_rnn.yaml").read_text()
    file = tmp_path / "ending.yaml"
    own = own.replace("lesson6/sequence_rnn", "ending")
    file.write_text(own.replace("epsilon: 1.0e-8}", "epsilon: 1.0e-8, schedule: log(2 - t)}"))
    (tmp_path / "text").write_text(TEXT)
    sizes = {"hidden": 6, "factors": 4}
    request = TrainRequest(
        str(file), "numpy", text=str(tmp_path / "text"), epochs=1, batch=4, sizes=sizes
    )
    with (
        TrainingRun(prepare(request)) as training,
        pytest.raises(
            UsageError, match=r"in the oracle itself, embed.table is NaN or infinite after 4 "
        ),
    ):
        training.run()
