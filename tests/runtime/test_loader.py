"""What a training gives to its steps is what the feed cuts from the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from texts import FOX

from harness.language.model import load_spec
from harness.runtime import plugins
from harness.runtime.executor import KEPT
from harness.runtime.native import Tensors
from harness.runtime.session import Session, make_session
from harness.runtime.training_steps import Loader
from harness.text.vocabulary import Vocabulary
from harness.training.feed import Feed, recipe

TEXT = 40 * FOX
STEPS = 2 * KEPT + 5  # full sets of batches, and a rest


def made(system: str, backend: str) -> tuple[Session, Feed]:
    spec = load_spec(f"lesson6/{system}")
    indices = Vocabulary.of(TEXT).encode(TEXT)
    session = make_session(
        plugins.load(backend), spec.program("training"), spec.program("inference")
    )
    return session, Feed(session.programs["training"], recipe(spec, 4), indices, "float32", 0)


def rows_of(feed: Feed) -> Any:
    epochs = [rows for n in range(8) for rows in feed.epoch(n) if len(rows) == 4]
    assert len(epochs) >= STEPS
    return np.stack(epochs[:STEPS])


def arrays(session: Session, batch: Tensors) -> dict[str, Any]:
    return {name: session.backend.numpy(tensor) for name, tensor in batch.items()}


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("system", ["sequence_onehot", "sequence_unrolled", "sequence_rnn"])
def test_every_batch_is_the_feeds(system: str, backend: str) -> None:
    session, feed = made(system, backend)
    rows = rows_of(feed)
    loader = Loader(session, feed, rows[0])
    for _ in range(2):  # the second time into the same memory
        found = [arrays(session, loader.expand(batch)) for batch in loader.each(rows)]
        assert len(found) == STEPS
        for batch, numbers in zip(found, rows, strict=True):
            expected = feed.batch(numbers)
            assert batch.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(batch[name], array)
        rows = rows[::-1]


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1)])
def test_axes_come_in_the_order_that_the_step_wants(backend: str, axes: tuple[int, ...]) -> None:
    session, feed = made("sequence_onehot", backend)
    rows = rows_of(feed)
    loader = Loader(session, feed, rows[0], {"input.chars": axes})
    expected = [feed.batch(numbers)["input.chars"].transpose(axes) for numbers in rows]
    for batch, array in zip(loader.each(rows), expected, strict=True):
        np.testing.assert_array_equal(arrays(session, loader.expand(batch))["input.chars"], array)
    whole = loader.expand(loader.batch(rows))["input.chars"]
    np.testing.assert_array_equal(session.backend.numpy(whole), np.stack(expected))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_batches_come_in_the_same_memory_again(backend: str) -> None:
    """An executor binds its calls to the inputs that it has seen; new ones would be copied."""
    session, feed = made("sequence_rnn", backend)
    rows = rows_of(feed)
    loader = Loader(session, feed, rows[0])
    tensors = {id(batch["input.chars"]) for batch in loader.each(rows)}
    assert len(tensors) == KEPT


@pytest.mark.parametrize(
    ("system", "backend", "many"), [("theano_rnn", "jax", 64), ("sequence_onehot", "numpy", 8)]
)
def test_few_bytes_make_many_steps_of_a_call(system: str, backend: str, many: int) -> None:
    session, feed = made(system, backend)
    assert Loader(session, feed, feed.epoch(0)[0]).many == many


def test_a_backend_that_writes_and_makes_several_steps_has_no_batch_left_over() -> None:
    """A whole number of stacks: there is nothing to set memory aside for."""
    session, feed = made("sequence_rnn", "numpy")
    rows = rows_of(feed)[:16]
    loader = Loader(session, feed, rows[0], many=8)
    stacks = list(loader.batches(rows, stacked=True))
    assert [stacked for _, stacked in stacks] == [True, True]
    for (batch, _), numbers in zip(stacks, (rows[:8], rows[8:]), strict=True):
        for name, array in arrays(session, batch).items():
            np.testing.assert_array_equal(array, feed.batch(numbers)[name])
