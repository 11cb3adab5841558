"""Training on a text: the same numbers everywhere, checkpoints, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling import sampled
from small_trainings import Stop, Stopping
from wording import Wording

from harness.convert.weights import WeightsError, load
from harness.errors import UsageError
from harness.language.library import lesson6
from harness.runtime.session import Session
from harness.training import checkpoint, run
from harness.training.request import PATHS, Setup, TrainRequest, prepare
from harness.training.run import Diverged, TrainEvents, TrainingRun
from harness.worker.worker import Worker

BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")
# One of each optimizer and kind of input; one with statistics and state.
SYSTEMS = ("lesson6/three_char", "lesson6/stateful_lstm", "lesson6/pure_python_rnn")
SMALL = {"hidden": 7}


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    started: dict[str, Worker] = {}
    yield started
    for worker in started.values():
        worker.close()


def setup(text: Path, system: str = "lesson6/sequence_rnn", **changes: Any) -> Setup:
    """A small training."""
    given = {"backend": "numpy", "epochs": 2, "batch": 4, "dtype": "float64", "sizes": SMALL}
    given |= {"proof": False}
    return prepare(TrainRequest(system, text=str(text), **{**given, **changes}))


def train(made: Setup, workers: dict[str, Worker], path: Path | None = None, **more: Any) -> Any:
    """What came of a training, and its history."""
    name = made.request.backend
    worker = workers.setdefault(name, Worker(made.request.launch))
    with TrainingRun(made, path, worker=worker) as training:
        weights = training.run(**more)
    return weights, training.history


@pytest.mark.parametrize("system", lesson6())
def test_every_system_learns(system: str, text: Path, workers: dict[str, Worker]) -> None:
    made = setup(text, system, epochs=None)
    rates = [max(rate, 0.003) for rate in made.rates[:1]] * 3
    _, history = train(replace(made, rates=rates), workers)
    losses = [entry["loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("system", "backend"),
    sampled(
        product(SYSTEMS, BACKENDS[1:]),
        [*product(SYSTEMS[1:2], BACKENDS[1:]), *product(SYSTEMS, ["torch"])],
    ),
)
def test_all_backends_have_the_same_losses(
    system: str, backend: str, text: Path, workers: dict[str, Worker]
) -> None:
    weights, history = train(setup(text, system, backend=backend), workers)
    expected, base = train(setup(text, system), workers)
    for found, wanted in zip(history, base, strict=True):
        for name in ("loss", "held_out_loss"):
            assert found[name] == pytest.approx(wanted[name], rel=1e-9), name
    for name, array in expected.parameters.items():
        np.testing.assert_allclose(weights.parameters[name], array, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("path", "backend"),
    sampled(
        product(["native", "equations"], BACKENDS[1:]),
        [
            ("native", "torch"),
            ("equations", "jax"),
            ("native", "keras"),
            ("equations", "keras-torch"),
        ],
    ),
)
def test_all_paths_have_the_same_losses(
    path: str, backend: str, text: Path, workers: dict[str, Worker]
) -> None:
    _, history = train(setup(text, backend=backend, path=path), workers)
    _, base = train(setup(text), workers)
    assert history[-1]["loss"] == pytest.approx(base[-1]["loss"], rel=1e-9)


def test_the_losses_are_those_of_single_steps(text: Path, workers: dict[str, Worker]) -> None:
    """The epoch's loss is the mean over rows, the last batch of fewer rows included."""
    from harness.language.initial_values import initial_parameters
    from harness.oracle.oracle import Oracle

    made = setup(text, epochs=1)
    weights, history = train(made, workers)
    session = Session(
        Oracle(), made.training, made.inference, dtype="float64", rule=made.spec.update
    )
    session.load(initial_parameters(made.training, 0), {})
    total, sizes = 0.0, set()
    for rows in made.feed.epoch(0):
        arrays = made.feed.batch(rows)
        inputs, targets = {"chars": arrays["input.chars"]}, {"target": arrays["target.target"]}
        results = session.step(inputs, {}, targets, made.rates[0])
        total += float(results["loss"]) * len(rows)
        sizes.add(len(rows))
    assert len(sizes) == 2, "the test needs a last batch that is smaller"
    assert history[0]["loss"] == pytest.approx(total / made.feed.rows, rel=1e-12)
    for name, array in session.read()["parameters"].items():
        np.testing.assert_allclose(weights.parameters[name], array, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("backend", "system"),
    sampled(
        product(["numpy", "torch", "jax"], ["lesson6/sequence_rnn", "lesson6/stateful_lstm"]),
        [
            ("numpy", "lesson6/stateful_lstm"),
            ("torch", "lesson6/stateful_lstm"),
            ("jax", "lesson6/sequence_rnn"),
        ],
    ),
)
def test_a_run_that_is_taken_up_ends_with_the_same_bits(
    backend: str, system: str, tmp_path: Path, text: Path, workers: dict[str, Worker]
) -> None:
    made = setup(text, system, backend=backend, dtype="float32", every=64, batch=1, epochs=3)
    whole, history = train(made, workers, tmp_path / "whole")
    kept = tmp_path / "parts"
    with (
        pytest.raises(Stop),
        TrainingRun(made, kept, Stopping(1, 64), worker=workers[backend]) as training,
    ):
        training.run()
    resumed, taken_up = train(made, workers, kept, resume=True)
    assert [e["loss"] for e in taken_up] == [e["loss"] for e in history]
    for name, array in whole.parameters.items():
        np.testing.assert_array_equal(resumed.parameters[name], array)
    np.testing.assert_equal(load(kept).parameters, load(tmp_path / "whole").parameters)


@pytest.mark.parametrize(
    ("backend", "offered"),
    sampled(
        [("numpy", ("native", "equations", "derived")), ("torch", PATHS)],
        [("numpy", ("native", "equations", "derived"))],
    ),
)
def test_the_fastest_path_is_taken_and_kept(
    backend: str,
    offered: Sequence[str],
    tmp_path: Path,
    text: Path,
    workers: dict[str, Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[Mapping[str, float]] = []

    class Telling(TrainEvents):
        def tried(self, seconds: Mapping[str, float]) -> None:
            tried.append(seconds)

    made = setup(text, backend=backend, path="fastest", dtype="float32")
    kept = tmp_path / "weights"
    worker = workers.setdefault(backend, Worker(made.request.launch))
    with TrainingRun(made, kept, Telling(), worker=worker) as training:
        path = training.run().history["path"]
    (seconds,) = tried
    assert set(seconds) == set(offered)
    assert path == min(seconds, key=seconds.__getitem__)
    # The trials leave no trace in the training.
    expected, _ = train(setup(text, backend=backend, path=path, dtype="float32"), workers)
    np.testing.assert_equal(load(kept).parameters, expected.parameters)
    monkeypatch.setattr(run, "trials", lambda *_: pytest.fail("it was tried again"))
    longer = setup(text, backend=backend, path="fastest", dtype="float32", epochs=3)
    weights, _ = train(longer, workers, kept, resume=True)
    assert weights.history["path"] == path


def test_another_backend_may_take_up_a_run(
    tmp_path: Path, text: Path, workers: dict[str, Worker]
) -> None:
    kept = tmp_path / "weights"
    train(setup(text, epochs=1), workers, kept)
    _, history = train(setup(text, epochs=2, backend="torch"), workers, kept, resume=True)
    _, base = train(setup(text, epochs=2), workers)
    assert history[-1]["loss"] == pytest.approx(base[-1]["loss"], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 1}, "seed"), ({"batch": 8}, "recipe"), ({"dtype": "float32"}, "dtype")],
)
def test_a_checkpoint_of_another_run_is_an_error(
    change: dict[str, Any], word: str, tmp_path: Path, text: Path, workers: dict[str, Worker]
) -> None:
    kept = tmp_path / "weights"
    train(setup(text, epochs=1), workers, kept)
    with pytest.raises(UsageError, match=f"another {word}"):
        train(setup(text, **change), workers, kept, resume=True)


def test_another_spec_cannot_take_up_a_run(
    tmp_path: Path, text: Path, workers: dict[str, Worker]
) -> None:
    kept = tmp_path / "weights"
    train(setup(text, epochs=1), workers, kept)
    with pytest.raises(WeightsError, match="three_char"):
        train(setup(text, "lesson6/three_char"), workers, kept, resume=True)


def test_weights_are_no_checkpoint(
    tmp_path: Path, text: Path, workers: dict[str, Worker], wording: Wording
) -> None:
    kept = tmp_path / "weights"
    train(setup(text, epochs=1), workers, kept)
    with wording.raises(WeightsError):
        checkpoint.load(kept)


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(
    tmp_path: Path, text: Path, workers: dict[str, Worker]
) -> None:
    kept = tmp_path / "weights"
    made = setup(text, "lesson6/theano_rnn")
    made = replace(made, rates=[0.01, 1e300, 0.01])
    with pytest.raises(Diverged, match=r"epoch 2.*1e\+300.*last good weights"):
        train(made, workers, kept)
    good = load(kept)
    assert good.history["epochs"][-1]["epoch"] == 1
    assert all(np.isfinite(a).all() for a in good.parameters.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "--epochs ... 0"),
        ({"batch": -1}, "--batch ... -1"),
        ({"held_out": 1.0}, "1.0 ... 0 ... 1"),
        ({"path": "fast"}, "'fast'"),
        ({"backend": "nunpy"}, "'nunpy'"),
        ({"sizes": {"hiden": 3}}, "'hiden'"),
        ({"text": "nietsche"}, ""),
        ({"batch": 10**21}, "--batch ... 1000"),
        ({"every": 10**30}, "1000"),
        ({"seed": 10**30}, "1000"),
        ({"timeout": float("nan")}, ""),
        ({"epochs": 10**9}, "--epochs ... 1000000000 ... 1 ... 20,000"),
        ({"sizes": {"hidden": 2**31 - 1}}, "hidden=2147483647"),
        ({"batch": 100_000, "system": "lesson6/stateful_lstm"}, ""),
    ],
)
def test_what_cannot_be(
    change: dict[str, Any],
    words: str,
    text: Path,
    wording: Wording,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.errors import HarnessError

    # Half of the memory of some machine, which is part of a message.
    monkeypatch.setattr("harness.training.request.MAX_WEIGHTS", 12_638_255_104)

    given = {"text": str(text), "backend": "numpy", "system": "lesson6/sequence_rnn"} | change
    with wording.raises(HarnessError, words):
        prepare(TrainRequest(given.pop("system"), **given))  # type: ignore[arg-type]
