"""The batches of a training: their rows, their arrays, and the sizes that a text asks for."""

from __future__ import annotations

import numpy as np
from small_trainings import TEXT

from harness.language.model import load_spec
from harness.text.vocabulary import Vocabulary, column, one_hot, windows
from harness.training.feed import Feed, needed_sizes, rates_of, recipe


def test_the_batches_are_those_of_the_text_module() -> None:
    spec = load_spec("lesson6/sequence_unrolled")
    vocabulary = Vocabulary.of(TEXT)
    indices = vocabulary.encode(TEXT)
    feed = Feed(spec.program("training"), recipe(spec, 4), indices, "float32", 0)
    rows = feed.epoch(0)[0]
    batch = feed.batch(rows)
    for number in range(1, 9):
        expected = column(indices, 8, 8, number - 1, 2)[rows]
        np.testing.assert_array_equal(batch[f"input.c{number}"], expected)
    assert batch["input.zero"].shape == (4, 42)
    assert not batch["input.zero"].any()


def test_one_hot_batches() -> None:
    spec = load_spec("lesson6/sequence_onehot")
    indices = Vocabulary.of(TEXT).encode(TEXT)
    feed = Feed(spec.program("training"), recipe(spec, 4), indices, "float32", 0)
    rows = np.stack([feed.epoch(0)[0], feed.epoch(0)[1]])
    found = feed.batch(rows)["input.chars"]
    expected = one_hot(windows(indices, 8, 8, 0, 2)[rows], 86, np.float32)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


def test_held_out_rows_are_never_trained_on() -> None:
    spec = load_spec("lesson6/sequence_rnn")
    indices = Vocabulary.of(TEXT).encode(TEXT)
    made = recipe(spec, 4, 0.2, len(TEXT))
    feed = Feed(spec.program("training"), made, indices, "float32", 0)
    trained = {int(r) for epoch in range(3) for rows in feed.epoch(epoch) for r in rows}
    tested = {int(r) for rows in feed.held_out() for r in rows}
    assert trained
    assert tested
    assert not trained & tested


def test_a_text_with_more_characters_makes_the_model_wider() -> None:
    assert needed_sizes(load_spec("lesson6/sequence_unrolled"), 90) == {
        "characters": 90,
        "vocab": 90,
    }
    assert needed_sizes(load_spec("lesson6/sequence_unrolled"), 86) == {"characters": 86}
    assert needed_sizes(load_spec("lesson6/theano_rnn"), 90) == {"vocab": 90}
    assert needed_sizes(load_spec("lesson6/sequence_rnn"), 85) == {}


def test_phases() -> None:
    spec = load_spec("lesson6/stateful_lstm")
    assert list(rates_of(spec, None)) == [0.001] * 4 + [0.0001] * 8
    assert list(rates_of(spec, 5)) == [0.001] * 4 + [0.0001]
    assert len(rates_of(spec, 20)) == 20
