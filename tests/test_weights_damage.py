"""Damaged files, files of others, and processes that are killed while they write."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as to_safetensors

from harness import weights as module
from harness.weights import Weights, WeightsError, load, save

SMALL = Weights(
    "my/model",
    "f" * 64,
    {"hidden": 3},
    {"rnn.W": np.linspace(-1, 1, 6).reshape(2, 3)},
    {"norm.mean": np.array([0.5, 0.25, 0], np.float32)},
    ("\0", "a", "é"),
    {"loss": 1.5},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "w", SMALL)
    return tmp_path / "w"


def refused(path: Path) -> str:
    """What is said of a file; it names the file and what to do."""
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert repr(str(path)) in str(caught.value)
    assert "give a file that 'harness train' or 'harness import' wrote" in str(caught.value)
    return str(caught.value)


class TestDamage:
    def test_cut_off_anywhere(self, path: Path) -> None:
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            refused(path)

    def test_any_flipped_bit(self, path: Path) -> None:
        data = path.read_bytes()
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            refused(path)

    def test_any_byte_of_another_value_in_the_tensors(self, path: Path) -> None:
        data = path.read_bytes()
        tensors = 8 + int.from_bytes(data[:8], "little")
        assert len(data) - tensors == 6 * 8 + 3 * 4
        for position in range(tensors, len(data)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :])
            assert "are damaged or cut off" in refused(path)

    def test_something_behind_the_end(self, path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\0")
        assert "are damaged or cut off" in refused(path)

    def test_two_files_in_one(self, path: Path) -> None:
        data = path.read_bytes()
        save(path, replace(SMALL, parameters={"rnn.W": np.zeros((2, 3))}))
        other = path.read_bytes()
        assert len(other) == len(data)
        for cut in range(100, len(data), 7):
            if data[:cut] + other[cut:] not in (data, other):
                path.write_bytes(data[:cut] + other[cut:])
                refused(path)

    def test_a_capital_letter_in_the_checksum(self, path: Path) -> None:
        data = path.read_bytes()
        (digest,) = re.findall(rb'"sha256":"(\w{64})"', data)
        assert digest.upper() != digest
        path.write_bytes(data.replace(digest, digest.upper()))
        assert "are damaged or cut off" in refused(path)


class TestFilesOfOthers:
    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "it is empty"),
            (
                b"It was a dark and stormy night; the rain fell in torrents.\n" * 9,
                "it does not begin",
            ),
            (b"PK\x03\x04" + bytes(500), "it does not begin"),
            (bytes(500), "it does not begin"),
            (b"\xff" * 500, "it does not begin"),
            (to_safetensors({"rnn.W": np.ones((20, 20))}), "it does not begin"),
            (to_safetensors({"w": np.ones(9)}, {"format": "pt"}), "it does not begin"),
        ],
        ids=["empty", "text", "zip", "zeros", "ones", "safetensors", "with-metadata"],
    )
    def test_no_weights(self, path: Path, content: bytes, what: str) -> None:
        path.write_bytes(content)
        assert f"is no file of weights, or damaged: {what}" in refused(path)

    def test_of_another_version(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FORMAT", "backend-comparison-harness weights 2")
        save(path, SMALL)
        monkeypatch.undo()
        assert "the format is 'backend-comparison-harness weights 2', and only" in refused(path)

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
        self, path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str]
    ) -> None:
        data = path.read_bytes()
        changed = data.replace(change[0].encode(), change[1].encode())
        assert changed != data
        path.write_bytes(changed)
        monkeypatch.setattr(module, "_check_bytes", lambda *_: None)
        assert "was not written as weights are: " in refused(path)

    def test_folder_and_no_file(self, tmp_path: Path) -> None:
        assert "Is a directory" in refused(tmp_path)
        assert "No such file" in refused(tmp_path / "absent")
        with pytest.raises(WeightsError, match="null byte"):
            load(tmp_path / "\0")

    def test_no_permission(self, tmp_path: Path) -> None:
        folder = tmp_path / "locked"
        folder.mkdir()
        save(folder / "w", SMALL)
        (folder / "w").chmod(0)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:  # whom nothing is forbidden
            for parent in folder.parents[:3]:
                parent.chmod(0o755)
            os.seteuid(65534)
        try:
            assert "Permission denied" in refused(folder / "w")
            with pytest.raises(WeightsError, match=r"cannot write the weights .*Permission denied"):
                save(folder / "w", SMALL)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


WRITER = """
import sys
import numpy as np
from harness.weights import Weights, save
arrays = [{"a": np.full(300_000, i, np.float32)} for i in range(2)]
number = 0
while True:
    save(sys.argv[1], Weights("s", "f", {}, arrays[number % 2], {}, (), {"number": number}))
    number += 1
    print(number, flush=True)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "w")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment(writer: subprocess.Popen[str], tmp_path: Path, seed: int) -> None:
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(random.Random(seed).uniform(0, 0.05))
    writer.send_signal(signal.SIGKILL)
    finished = int(("1 " + writer.stdout.read()).split()[-1])
    found = load(tmp_path / "w")
    number = found.history["number"]
    assert number in (finished - 1, finished)
    np.testing.assert_array_equal(found.parameters["a"], np.float32(number % 2))
    assert len(list(tmp_path.iterdir())) <= 2
