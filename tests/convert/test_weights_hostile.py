"""Files of others, and files whose checksum is right over what makes no sense."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as to_safetensors
from small_weights import SMALL, refused
from unprivileged import unprivileged
from wording import Wording

from harness.convert import weights as module
from harness.convert.weights import DIGEST, ZEROS, WeightsError, load, save
from harness.files import kinds


def with_right_checksum(data: bytes) -> bytes:
    """The same file, as somebody would make it who knows how the checksum is made."""
    blank = data[: DIGEST.start] + ZEROS.encode() + data[DIGEST.stop :]
    found = hashlib.sha256(blank).hexdigest().encode()
    return blank[: DIGEST.start] + found + blank[DIGEST.stop :]


def forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of weights, and make the checksum right again."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(with_right_checksum(len(text).to_bytes(8, "little") + text + data[end:]))


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A part of a header, with one thing in it that is another."""
    if isinstance(value, str) and value[:1] in ("[", "{") and draw(st.booleans()):
        return json.dumps(mutated(draw, json.loads(value)))
    if isinstance(value, dict | list) and value and draw(st.integers(0, 9)):
        made: Any = copy.deepcopy(value)
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        if draw(st.integers(0, 5)):
            made[key] = mutated(draw, value[key])
        else:
            del made[key]
        return made
    return draw(JSON)


NUMBERS = st.integers() | st.floats() | st.sampled_from([2**31, 2**63, 2**64, 10**400])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_header_with_a_right_checksum(tmp_path_factory: Any, data: st.DataObject) -> None:
    """It is refused, or means something that can be written again."""
    path = tmp_path_factory.getbasetemp() / "any_header"
    path.unlink(missing_ok=True)  # it may be no weights any more
    save(path, SMALL)

    def change(header: dict[str, Any]) -> None:
        made = data.draw(st.composite(mutated)(header))
        header.clear()
        header.update(made if isinstance(made, dict) else {})

    forge(path, change)
    try:
        found = load(path)
    except WeightsError:
        return
    save(path, found)
    np.testing.assert_equal(load(path).parameters, found.parameters)


class TestFilesOfOthers:
    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "it is empty"),
            (
                b"It was a dark and stormy night; the rain fell in torrents.\n" * 9,
                "its first bytes are wrong",
            ),
            (b"PK\x03\x04" + bytes(500), "its first bytes are wrong"),
            (bytes(500), "its first bytes are wrong"),
            (b"\xff" * 500, "its first bytes are wrong"),
            (to_safetensors({"rnn.W": np.ones((20, 20))}), "its first bytes are wrong"),
            (to_safetensors({"w": np.ones(9)}, {"format": "pt"}), "its first bytes are wrong"),
        ],
        ids=["empty", "text", "zip", "zeros", "ones", "safetensors", "with-metadata"],
    )
    def test_no_weights(self, path: Path, content: bytes, what: str, wording: Wording) -> None:
        path.write_bytes(content)
        wording.line(refused(path), f"{what}")

    def test_of_another_version(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
    ) -> None:
        later = {kinds.WEIGHTS: "backend-comparison-harness weights 2"}
        monkeypatch.setattr(module, "FORMATS", later)
        save(path, SMALL)
        monkeypatch.undo()
        wording.line(refused(path), "backend-comparison-harness ... 2")

    @pytest.mark.parametrize(
        "change",
        [
            ('"sizes":', '"sises":'),
            ('{\\"hidden\\": 3}', '[\\"hidden\\": 3}'),
            ('["norm.mean"]'.replace('"', '\\"'), '["norm.meen"]'.replace('"', '\\"')),
            ("[2,3]", "[3,3]"),
            ('"F64"', '"F66"'),
        ],
    )
    def test_with_a_right_checksum_and_no_sense(
        self, path: Path, change: tuple[str, str], wording: Wording
    ) -> None:
        data = path.read_bytes()
        changed = data.replace(change[0].encode(), change[1].encode())
        assert changed != data
        path.write_bytes(with_right_checksum(changed))
        wording(refused(path))

    @pytest.mark.parametrize(
        ("field", "text", "words"),
        [
            ("vocabulary", "null", "vocabulary: Input should be a valid (tuple|array)"),
            ("vocabulary", "[null]", "vocabulary.0: .* found None"),
            ("vocabulary", '["ab"]', "vocabulary.0: .* found 'ab'"),
            ("vocabulary", '[""]', "vocabulary.0: .* found ''"),
            ("vocabulary", '["\\ud800"]', "vocabulary: Invalid JSON"),
            ("vocabulary", '["\\udc00\\ud800"]', "vocabulary: Invalid JSON"),
            ("vocabulary", '"ab"', "vocabulary: "),
            ("vocabulary", "[[]]", "vocabulary.0: "),
            ("vocabulary", "", "vocabulary: Invalid JSON"),
            ("sizes", "[]", "sizes: "),
            ("sizes", '{"hidden": "3"}', "sizes.hidden: .* found '3'"),
            ("sizes", '{"hidden": true}', "sizes.hidden: .* found True"),
            ("sizes", '{"hidden": 0}', "sizes.hidden: .* found 0"),
            ("sizes", '{"hidden": 1e400}', "sizes.hidden: "),
            ("sizes", '{"hidden": 2147483648}', "sizes.hidden: .* found 2147483648"),
            ("sizes", '{"hidden": ' + "9" * 10_000 + "}", "sizes"),
            ("statistics", "{}", "statistics: "),
            ("statistics", "[1]", "statistics.0: .* found 1"),
            ("statistics", '["norm.meen"]', "it has no tensor for the statistic 'norm.meen'"),
            ("history", "[]", "history: "),
            ("history", "[" * 100_000, "history: Invalid JSON: recursion limit"),
            ("history", '{"a":' * 100_000, "history: Invalid JSON: recursion limit"),
            ("history", '{"a": "\\ud800"}', "history: Invalid JSON"),
            ("spec", "x" * 1001, "spec: .* at most 1000 characters"),
            ("fingerprint", "f" * 65, "fingerprint: .* at most 64 characters"),
        ],
    )
    def test_metadata_with_a_right_checksum(
        self, path: Path, field: str, text: str, words: str
    ) -> None:
        def change(header: dict[str, Any]) -> None:
            header["__metadata__"][field] = text

        forge(path, change)
        assert re.search(words, refused(path))

    @pytest.mark.parametrize("value", [None, 1, [], {}, True, 1.5])
    @pytest.mark.parametrize(
        "field", ["format", "spec", "fingerprint", "sizes", "statistics", "vocabulary", "history"]
    )
    def test_metadata_that_are_no_text_or_missing(
        self, path: Path, field: str, value: object
    ) -> None:
        def change(header: dict[str, Any]) -> None:
            header["__metadata__"][field] = value
            if value is None:
                del header["__metadata__"][field]

        forge(path, change)
        assert f"{field}: " in refused(path)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *(("dtype", name) for name in ("F16", "BF16", "BOOL", "I8", "I64", "U8", "C64", "F8")),
            *(("dtype", value) for value in ("F8_E4M3", None, 1, [], "f32", "F66")),
            *(("shape", value) for value in (None, 6, [True, 3], [-2, -3], [2.0, 3], ["2", 3])),
            *(("shape", value) for value in ([2**62, 2**62], [0] * 65, [2**40] * 60, [7], [2**64])),
            *(("data_offsets", value) for value in (None, [0], [0, -1], [48, 0], [0, 2**70])),
            *(("data_offsets", value) for value in ([1, 49], [0, 47], [8, 56], [0, 2**62])),
            ("more", 1),
        ],
    )
    def test_a_tensor_with_a_right_checksum(self, path: Path, field: str, value: object) -> None:
        def change(header: dict[str, Any]) -> None:
            header["rnn.W"][field] = value

        forge(path, change)
        refused(path)

    def test_numbers_that_nobody_accounts_for(self, path: Path) -> None:
        data = path.read_bytes()
        for more in (data + bytes(8), data[:-4]):
            path.write_bytes(with_right_checksum(more))
            refused(path)

    @pytest.mark.parametrize("length", [0, 1, 2**31, 2**62, 2**63, 2**64 - 1])
    def test_a_header_of_a_length_that_it_has_not(self, path: Path, length: int) -> None:
        data = path.read_bytes()
        path.write_bytes(with_right_checksum(length.to_bytes(8, "little") + data[8:]))
        refused(path)

    def test_a_header_that_is_too_long(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
    ) -> None:
        save(path, replace(SMALL, history={"text": "x" * 10_000}))
        monkeypatch.setattr(module, "MAX_HEADER", 5_000)
        wording.line(refused(path), "10 ... 5,000")
        with wording.raises(WeightsError, "5,000"):
            save(path, replace(SMALL, history={"text": "y" * 10_000}))

    def test_weights_that_are_too_large(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
    ) -> None:
        monkeypatch.setattr(module, "MAX_WEIGHTS", 100)
        wording.line(refused(path), "100")
        with wording.raises(WeightsError, "100"):
            save(path, SMALL)

    def test_a_large_file_of_something_else_is_not_read(self, path: Path, wording: Wording) -> None:
        for start in (b"", b"PK\x03\x04", bytes(8) + b'{"__metadata__":{"format":"pt"}}'):
            path.write_bytes(start)
            os.truncate(path, 1 << 40)
            wording(refused(path))

    def test_a_checkpoint_is_no_weights_and_weights_no_checkpoint(
        self, path: Path, wording: Wording
    ) -> None:
        with wording.raises(WeightsError):
            load(path, kinds.CHECKPOINT)
        save(path.with_name("c"), SMALL, kinds.CHECKPOINT)
        wording(refused(path.with_name("c")))

    def test_folder_and_no_file(self, tmp_path: Path, wording: Wording) -> None:
        wording(refused(tmp_path))
        assert "no such file" in refused(tmp_path / "absent")
        with pytest.raises(WeightsError, match="a NUL character"):
            load(tmp_path / "\0")

    def test_no_permission(self, tmp_path: Path, wording: Wording) -> None:
        folder = tmp_path / "locked"
        folder.mkdir()
        save(folder / "w", SMALL)
        (folder / "w").chmod(0)
        folder.chmod(0o555)
        with unprivileged(folder):
            assert "permission denied" in refused(folder / "w")
            with wording.raises(WeightsError):
                save(folder / "w", SMALL)
        folder.chmod(0o755)
