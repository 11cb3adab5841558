"""The arrays of a text against the notebook's list comprehensions and its printed numbers."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from places import DOCS
from wording import Wording

from harness.arrays import IndexArray
from harness.errors import UsageError
from harness.text.batches import batches
from harness.text.corpus import builtin_text, read_text
from harness.text.vocabulary import PADDING, Vocabulary, column, one_hot, windows

SMALL = "PREFACE\n\n\nSUPPOSING that Truth is a woman--what then? Is there not ground"


def as_int64(values: list[int]) -> IndexArray:
    return np.array(values, dtype=np.int64)


def test_the_page_shows_how_a_text_becomes_arrays() -> None:
    page = (DOCS / "spec-data.md").read_text(encoding="utf-8")
    section = page.partition("## Texts\n")[2].partition("\n## ")[0]
    data = yaml.safe_load(section.partition("```yaml\n")[2].partition("```")[0])["data"]
    text = re.search(r"the text `(.+)`", section)
    assert text is not None
    vocabulary = Vocabulary.of(text[1])
    indices = vocabulary.encode(text[1])
    cut = {**data["windows"], "offset": data["arrays"]["after"]["offset"]}
    columns = [
        [vocabulary.decode(row) for row in windows(indices, **{**data["windows"], **array})]
        for array in (data["arrays"]["chars"], data["arrays"]["next"])
    ]
    columns.append([vocabulary.decode([index]) for index in column(indices, **cut)])
    shown = re.findall(r"^\| \d \| `(.+)` \| `(.+)` \| `(.+)` \|$", section, re.MULTILINE)
    assert shown == list(zip(*columns, strict=True))
    assert len(shown) == 3


@pytest.mark.parametrize("size", [22, 23, 24, 25, 26, 27, 28, 29, 30, len(SMALL)])
class TestNotebookRecipe:
    """In[7]-[13], In[41]-[47] and In[72]-[75], written out as the notebook does."""

    def test_single_character_columns(self, size: int) -> None:
        idx = Vocabulary.of(SMALL).encode(SMALL)[:size].tolist()
        cs = 3
        c1_dat = [idx[i] for i in range(0, len(idx) - 1 - cs, cs)]
        c2_dat = [idx[i + 1] for i in range(0, len(idx) - 1 - cs, cs)]
        c3_dat = [idx[i + 2] for i in range(0, len(idx) - 1 - cs, cs)]
        c4_dat = [idx[i + 3] for i in range(0, len(idx) - 1 - cs, cs)]
        recipe = [np.stack(dat[:-2]) for dat in (c1_dat, c2_dat, c3_dat, c4_dat)]
        for offset, wanted in enumerate(recipe):
            got = column(as_int64(idx), cs, cs, offset, drop_last=2)
            np.testing.assert_array_equal(got, wanted, strict=True)

    def test_windows_and_last_target(self, size: int) -> None:
        idx = Vocabulary.of(SMALL).encode(SMALL)[: 2 * size].tolist()
        cs = 8
        c_in_dat = [[idx[i + n] for i in range(0, len(idx) - 1 - cs, cs)] for n in range(cs)]
        c_out_dat = [idx[i + cs] for i in range(0, len(idx) - 1 - cs, cs)]
        xs = [np.stack(c[:-2]) for c in c_in_dat]
        y = np.stack(c_out_dat[:-2])
        got = windows(as_int64(idx), cs, cs, drop_last=2)
        np.testing.assert_array_equal(got, np.stack(xs, axis=1), strict=True)
        for n in range(cs):
            got = column(as_int64(idx), cs, cs, n, drop_last=2)
            np.testing.assert_array_equal(got, xs[n], strict=True)
        np.testing.assert_array_equal(column(as_int64(idx), cs, cs, cs, 2), y, strict=True)

    def test_sequence_targets(self, size: int) -> None:
        idx = Vocabulary.of(SMALL).encode(SMALL)[: 2 * size].tolist()
        cs = 8
        c_out_dat = [[idx[i + n] for i in range(1, len(idx) - cs, cs)] for n in range(cs)]
        ys = [np.stack(c[:-2]) for c in c_out_dat]
        got = windows(as_int64(idx), cs, cs, offset=1, drop_last=2)
        np.testing.assert_array_equal(got, np.stack(ys, axis=1), strict=True)


@given(
    size=st.integers(0, 60),
    length=st.integers(1, 9),
    stride=st.integers(1, 12),
    offset=st.integers(0, 9),
    drop_last=st.integers(0, 3),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_windows_hold_what_their_definition_says_or_are_refused(
    size: int, length: int, stride: int, offset: int, drop_last: int
) -> None:
    indices = np.arange(100, 100 + size)
    rows = len(range(0, size - 1 - length, stride)) - drop_last
    fits = rows >= 1 and (rows - 1) * stride + offset + length <= size
    if not fits:
        with pytest.raises(UsageError, match=r"too short|offset \d+ is too large"):
            windows(indices, length, stride, offset, drop_last)
        return
    wanted = [
        [100 + row * stride + offset + place for place in range(length)] for row in range(rows)
    ]
    assert windows(indices, length, stride, offset, drop_last).tolist() == wanted
    first = column(indices, length, stride, offset, drop_last)
    assert first.tolist() == [row[0] for row in wanted]


def test_the_shortest_text_named_by_the_error_is_accepted() -> None:
    with pytest.raises(UsageError, match=r"25 characters.*at least 26"):
        windows(np.arange(25), 8, 8, drop_last=2)
    assert windows(np.arange(26), 8, 8, drop_last=2).shape == (1, 8)


def test_the_largest_offset_named_by_the_error_is_accepted(wording: Wording) -> None:
    with wording.raises(UsageError, "10 ... 9 ... 2"):
        windows(np.arange(10), 8, 8, offset=3)
    assert windows(np.arange(10), 8, 8, offset=2)[-1, -1] == 9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"length": 0}, "1 ... 0"),
        ({"stride": 0}, "1 ... 0"),
        ({"offset": -1}, "0 ... -1"),
        ({"drop_last": -1}, "drop_last ... 0 ... -1"),
    ],
)
def test_impossible_windows_are_refused(
    changed: dict[str, int], message: str, wording: Wording
) -> None:
    arguments = {"length": 3, "stride": 3, "offset": 0, "drop_last": 0} | changed
    for function in (windows, column):
        with wording.raises(UsageError, message):
            function(np.arange(40), **arguments)


class TestVocabulary:
    def test_padding_first_then_sorted(self) -> None:
        vocabulary = Vocabulary.of("banana\n")
        assert vocabulary.characters == (PADDING, "\n", "a", "b", "n")
        assert len(vocabulary) == 5
        encoded = vocabulary.encode("nab")
        np.testing.assert_array_equal(encoded, as_int64([4, 2, 3]), strict=True)
        assert vocabulary.decode(encoded) == "nab"
        assert vocabulary.encode(PADDING).tolist() == [0]

    @given(st.text(st.characters(exclude_characters=PADDING), min_size=1))
    def test_round_trip(self, text: str) -> None:
        vocabulary = Vocabulary.of(text)
        encoded = vocabulary.encode(text)
        assert encoded.tolist() == [vocabulary.characters.index(character) for character in text]
        assert vocabulary.decode(encoded) == text
        assert (encoded > 0).all()

    def test_nothing_encodes_to_nothing(self) -> None:
        vocabulary = Vocabulary.of("ab")
        np.testing.assert_array_equal(vocabulary.encode(""), as_int64([]), strict=True)
        assert vocabulary.decode([]) == ""

    @pytest.mark.parametrize("unknown", ["é", "!", "\U0001f600"])
    def test_unknown_character(self, unknown: str, wording: Wording) -> None:
        with pytest.raises(UsageError) as caught:
            Vocabulary.of("abc").encode(f"ab{unknown}{unknown}")
        wording.line(caught.value, f"{unknown!r} ... 2")
        assert "'abc'" in str(caught.value)

    @pytest.mark.parametrize("index", [-1, 4])
    def test_index_without_character(self, index: int, wording: Wording) -> None:
        with wording.raises(UsageError, f"{index} ... [1] ... 0 ... 3"):
            Vocabulary.of("abc").decode([1, index])

    def test_classes(self, wording: Wording) -> None:
        vocabulary = Vocabulary.of("abc")
        vocabulary.check_classes(4)
        vocabulary.check_classes(86)
        with wording.raises(UsageError, "3 ... 4"):
            vocabulary.check_classes(3)

    def test_texts_without_a_vocabulary(self, wording: Wording) -> None:
        with pytest.raises(UsageError, match="empty"):
            Vocabulary.of("")
        with wording.raises(UsageError, "'\\x00' ... 2"):
            Vocabulary.of(f"ab{PADDING}c")

    @pytest.mark.parametrize(
        "characters", [(), ("a",), (PADDING, "b", "a"), (PADDING, "a", "a"), (PADDING, "ab")]
    )
    def test_malformed(self, characters: tuple[str, ...]) -> None:
        with pytest.raises(UsageError, match="vocabulary"):
            Vocabulary(characters)


class TestReadText:
    def test_utf8_whatever_the_locale(self, tmp_path) -> None:
        path = tmp_path / "text"
        path.write_bytes("éß\r\nb\rc\n".encode())
        program = (
            f"from harness.text.corpus import read_text; print(ascii(read_text({str(path)!r})))"
        )
        environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        printed = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        assert printed.stdout.decode().strip() == ascii("éß\nb\nc\n")

    def test_not_utf8(self, tmp_path) -> None:
        path = tmp_path / "text"
        path.write_bytes(b"abc\xe9def")
        with pytest.raises(UsageError, match=r"byte 0xe9 at offset 3 .*convert"):
            read_text(path)

    @pytest.mark.parametrize(("name", "reason"), [("absent", ""), (".", ""), ("\0", "NUL")])
    def test_unreadable(self, tmp_path, name: str, reason: str, wording: Wording) -> None:
        with wording.raises(UsageError, reason) as caught:
            read_text(f"{tmp_path}/{name}")
        assert repr(f"{tmp_path}/{name}") in str(caught.value)


class TestBuiltinText:
    def test_large_clean_and_the_same_each_time(self) -> None:
        text = builtin_text()
        assert len(text) >= 300_000
        assert "\r" not in text
        assert text == builtin_text()
        assert 60 < len(Vocabulary.of(text)) < 300
        # Prose, not a table: letters and spaces make up most of it.
        assert sum(text.count(letter) for letter in " etaoinsr") > 0.5 * len(text)

    def test_topics_are_sorted_and_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        topics = {"b": "second\r\nline", "a": "first"}
        monkeypatch.setattr("pydoc_data.topics.topics", topics)
        assert builtin_text() == "first\n\nsecond\nline"

    def test_absent_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
        with pytest.raises(UsageError, match="give the path"):
            builtin_text()


class TestOneHot:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_rows_of_the_identity(self, dtype: type) -> None:
        indices = np.array([[0, 2], [3, 2], [1, 1]])
        got = one_hot(indices, 5, dtype)
        np.testing.assert_array_equal(got, np.eye(5, dtype=dtype)[indices], strict=True)

    def test_a_single_index(self) -> None:
        assert one_hot(1, 3).tolist() == [0, 1, 0]

    @pytest.mark.parametrize("index", [-1, 5])
    def test_outside(self, index: int, wording: Wording) -> None:
        with wording.raises(UsageError, f"{index} ... [1, 0] ... 0 ... 4"):
            one_hot([[1], [index]], 5)

    def test_fractions(self) -> None:
        with pytest.raises(UsageError, match="whole numbers, found float64"):
            one_hot([0.5], 3)


class TestBatches:
    def test_sequential(self) -> None:
        got = [batch.tolist() for batch in batches(7, 3, "sequential", False, 0, 0)]
        assert got == [[0, 1, 2], [3, 4, 5], [6]]
        got = [batch.tolist() for batch in batches(7, 3, "sequential", True, 0, 0)]
        assert got == [[0, 1, 2], [3, 4, 5]]
        assert len(list(batches(6, 3, "sequential", False, 0, 0))) == 2

    def test_shuffled_is_a_permutation_of_seed_and_epoch(self) -> None:
        def order(seed: int, epoch: int) -> list[int]:
            parts = list(batches(100, 32, "shuffled", False, seed, epoch))
            assert [len(part) for part in parts] == [32, 32, 32, 4]
            return np.concatenate(parts).tolist()

        orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
        assert order(0, 0) == orders[0]
        assert all(sorted(each) == list(range(100)) for each in orders)
        assert len({tuple(each) for each in [*orders, range(100)]}) == 5

    def test_shuffled_whole_only_leaves_out_other_rows_each_epoch(self) -> None:
        left_out = set()
        for epoch in range(5):
            used = np.concatenate(list(batches(10, 9, "shuffled", True, 0, epoch)))
            assert len(set(used.tolist())) == 9
            left_out |= set(range(10)) - set(used.tolist())
        assert len(left_out) > 1

    @pytest.mark.parametrize(
        ("rows", "size", "order", "whole_only", "message"),
        [
            (63, 64, "sequential", True, "63 ... 64"),
            (0, 64, "shuffled", False, "0"),
            (5, 0, "sequential", False, "1 ... 0"),
            (5, 2, "shuffle", False, "'shuffle' ... 'shuffled'"),
        ],
    )
    def test_refused_at_once(
        self, rows, size, order, whole_only, message: str, wording: Wording
    ) -> None:
        with wording.raises(UsageError, message):
            batches(rows, size, order, whole_only, 0, 0)
