"""The numbers that the Lesson 6 notebook prints of its corpus, from the corpus itself."""

import os
from dataclasses import dataclass

import numpy as np
import pytest

from harness.arrays import IndexArray
from harness.text.batches import batches
from harness.text.corpus import read_text
from harness.text.vocabulary import Vocabulary, column, one_hot, windows


@dataclass(frozen=True)
class Corpus:
    text: str
    vocabulary: Vocabulary
    indices: IndexArray


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    path = os.environ.get("HARNESS_CORPUS")
    if not path:
        pytest.skip("HARNESS_CORPUS is not set: it names the notebook's nietzsche.txt")
    text = read_text(path)
    vocabulary = Vocabulary.of(text)
    return Corpus(text, vocabulary, vocabulary.encode(text))


class TestPrintedNumbers:
    """What the notebook prints for its own corpus."""

    IN_BLOCK = (
        (40, 1, 33, 2, 72, 67, 73, 2),
        (42, 1, 38, 44, 2, 9, 61, 73),
        (29, 43, 31, 71, 54, 9, 58, 61),
        (30, 45, 2, 74, 2, 76, 67, 58),
        (25, 40, 73, 73, 76, 61, 24, 71),
        (27, 40, 61, 61, 68, 54, 2, 58),
        (29, 39, 54, 2, 66, 73, 33, 2),
        (1, 43, 73, 62, 54, 2, 72, 67),
    )
    NEXT = (1, 33, 2, 72, 67, 73, 2, 68)

    def test_text_and_vocabulary(self, corpus: Corpus) -> None:
        assert len(corpus.text) == 600893
        assert len(corpus.vocabulary) == 85
        assert "".join(corpus.vocabulary.characters[1:-6]) == (
            "\n !\"'(),-.0123456789:;=?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxy"
        )
        assert corpus.indices[:10].tolist() == [40, 42, 29, 30, 25, 27, 29, 1, 1, 1]
        assert corpus.vocabulary.decode(corpus.indices[:70]) == (
            "PREFACE\n\n\nSUPPOSING that Truth is a woman--what then? Is there not gro"
        )
        assert (corpus.indices > 0).all()
        corpus.vocabulary.check_classes(86)

    def test_three_characters(self, corpus: Corpus) -> None:
        x1, x2, x3, y = (column(corpus.indices, 3, 3, offset, 2) for offset in range(4))
        assert x1[:4].tolist() == [40, 30, 29, 1]
        assert x2[:4].tolist() == [42, 25, 1, 43]
        assert x3[:4].tolist() == [29, 27, 1, 45]
        assert y[:4].tolist() == [30, 29, 1, 40]
        assert x1.shape == x2.shape == x3.shape == y.shape == (200295,)
        sizes = [len(batch) for batch in batches(len(y), 64, "shuffled", False, 0, 0)]
        assert (len(sizes), sizes[-1]) == (3130, 39)

    def test_eight_characters(self, corpus: Corpus) -> None:
        x = windows(corpus.indices, 8, 8, drop_last=2)
        assert x.shape == (75109, 8)
        assert x[:8].T.tolist() == [list(row) for row in self.IN_BLOCK]
        assert column(corpus.indices, 8, 8, 8, 2)[:8].tolist() == list(self.NEXT)

    def test_sequence_targets(self, corpus: Corpus) -> None:
        x = windows(corpus.indices, 8, 8, 0, 2)
        y = windows(corpus.indices, 8, 8, 1, 2)
        assert y.shape == (75109, 8)
        assert y[:8].T.tolist() == [list(row) for row in (*self.IN_BLOCK[1:], self.NEXT)]
        np.testing.assert_array_equal(y[:, :-1], x[:, 1:])
        np.testing.assert_array_equal(y[:, -1], column(corpus.indices, 8, 8, 8, 2))
        np.testing.assert_array_equal(y[:-1, -1], x[1:, 0])

    def test_batches(self, corpus: Corpus) -> None:
        rows = len(windows(corpus.indices, 8, 8, 0, 2))
        sizes = [len(batch) for batch in batches(rows, 64, "shuffled", False, 0, 0)]
        assert (len(sizes), sizes[-1]) == (1174, 37)
        stateful = list(batches(rows, 64, "sequential", True, 0, 0))
        assert len(stateful) == 1173
        np.testing.assert_array_equal(np.concatenate(stateful), np.arange(75072))

    def test_one_hot(self, corpus: Corpus) -> None:
        x = windows(corpus.indices, 8, 8, 0, 2)
        got = one_hot(x, 86, np.float32)
        assert got.shape == (75109, 8, 86)
        np.testing.assert_array_equal(got.argmax(axis=-1), x)
        assert got.sum(dtype=np.float64) == x.size
