"""Checkpoints that somebody has made, with a right checksum over what no run can have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_trainings import TEXT, Stop, Stopping, setup, train
from wording import Wording

from harness.convert import weights
from harness.convert.weights import WeightsError
from harness.errors import HarnessError
from harness.files import kinds
from harness.training import checkpoint
from harness.training.request import Setup
from harness.worker.worker import Worker

# Checkpoints that somebody has made, with a right checksum.

WRONG: tuple[Any, ...] = (None, [], {}, "text", True, -1, 1.5, 2**70, [[1]], {"a": {}})


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory, worker: Worker) -> Path:
    """A checkpoint in the middle of the second epoch."""
    folder = tmp_path_factory.mktemp("genuine")
    (folder / "text.txt").write_text(TEXT)
    with pytest.raises(Stop):
        train(setup(folder / "text.txt", batch=1), worker, folder / "kept", Stopping(1, 128))
    return folder / "kept"


@pytest.fixture(scope="module")
def made(genuine: Path) -> Setup:
    """The run that it is of."""
    return setup(genuine.with_name("text.txt"), batch=1)


def rewritten(
    genuine: Path, path: Path, change: Callable[[dict[str, Any]], None], **more: Any
) -> None:
    """A checkpoint like the genuine one, but for a change in what it tells of its run."""
    whole = weights.load(checkpoint.place_of(genuine), kinds.CHECKPOINT)
    history = copy.deepcopy(dict(whole.history))
    change(history)
    weights.save(
        checkpoint.place_of(path), replace(whole, history=history, **more), kinds.CHECKPOINT
    )


def test_the_genuine_one_is_taken_up(genuine: Path, made: Setup) -> None:
    found = checkpoint.find(genuine, made)
    assert found is not None
    assert found.position["step"] == 64


FIELDS = (
    *(("run",), ("text",), ("seed",), ("dtype",), ("sizes",), ("recipe",), ("backend",)),
    *(("path",), ("steps",), ("epochs",), ("position",), ("text", "sha256"), ("text", "name")),
    *(("position", part) for part in ("epoch", "step", "steps", "sums")),
    *(("position", "sums", 0), ("position", "sums", 0, 0), ("position", "sums", 0, 1)),
    *(("epochs", 0, part) for part in ("epoch", "loss", "curve", "seconds", "memory")),
    ("epochs", 0),
)


@pytest.mark.parametrize("place", FIELDS, ids=lambda place: ".".join(map(str, place)))
def test_a_field_that_is_missing_or_of_another_type(
    place: tuple[Any, ...], genuine: Path, tmp_path: Path, made: Setup
) -> None:
    *above, last = place

    def holder(history: Any) -> Any:
        for part in above:
            history = history[part]
        return history

    original = holder(dict(weights.load(checkpoint.place_of(genuine), kinds.CHECKPOINT).history))[
        last
    ]

    def remove(history: dict[str, Any]) -> None:
        del holder(history)[last]

    def replaced(value: Any) -> Callable[[dict[str, Any]], None]:
        def change(history: dict[str, Any]) -> None:
            holder(history)[last] = value

        return change

    # A whole number may stand for a float.
    right = {type(original), *([int] if isinstance(original, float) else [])}
    changes = [remove, *(replaced(value) for value in WRONG if type(value) not in right)]
    for change in changes:
        rewritten(genuine, tmp_path / "kept", change)
        with pytest.raises(HarnessError) as caught:
            checkpoint.find(tmp_path / "kept", made)
        assert "kept.checkpoint" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": 10**9}, "1,000,000,000"),
        ({"step": 128}, "129 ... 2"),
        ({"steps": 3}, "3"),
        ({"sums": []}, ""),
        ({"epoch": 10**12}, "1 ... 000"),
        ({"epoch": 0}, "1 ... 1"),
    ],
)
def test_a_position_that_no_run_can_have(
    change: dict[str, Any], words: str, genuine: Path, tmp_path: Path, made: Setup, wording: Wording
) -> None:
    rewritten(genuine, tmp_path / "kept", lambda history: history["position"].update(change))
    with wording.raises(WeightsError, words):
        checkpoint.find(tmp_path / "kept", made)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("slot/m/embed.table", None, "the optimizer's m does not have the names and shapes"),
        (
            "slot/m/embed.table",
            np.ones(3, np.float32),
            "the optimizer's m does not have the names and shapes",
        ),
        ("slot/x/embed.table", np.ones(3, np.float32), "its optimizer has .*'x'"),
        ("state/h", None, "the state does not have the names and shapes"),
        ("state/h", np.ones((1, 6), np.float32), "the state does not have the names and shapes"),
        ("state/h", np.full((1, 5), np.nan, np.float32), "'state/h' has numbers that are NaN"),
        (
            "norm.moving_mean",
            np.full(42, np.inf, np.float32),
            "numbers of norm.moving_mean are NaN",
        ),
    ],
)
def test_arrays_that_no_run_can_have(
    name: str, array: Any, words: str, genuine: Path, tmp_path: Path, made: Setup
) -> None:
    whole = weights.load(checkpoint.place_of(genuine), kinds.CHECKPOINT)
    statistics = {n: a for n, a in whole.statistics.items() if n != name}
    assert name.startswith("slot/x") or len(statistics) < len(whole.statistics)
    if array is not None:
        statistics[name] = array
    rewritten(genuine, tmp_path / "kept", lambda _: None, statistics=statistics)
    with pytest.raises(WeightsError, match=words):
        checkpoint.find(tmp_path / "kept", made)
