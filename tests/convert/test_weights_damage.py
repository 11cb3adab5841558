"""Damaged files of weights are refused, wherever the damage is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sampling import sampled
from small_weights import SMALL, refused
from wording import Wording

from harness.convert.weights import save


class TestDamage:
    def test_cut_off_anywhere(self, path: Path) -> None:
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            refused(path)

    # Every seventh is another bit of almost every byte.
    @pytest.mark.parametrize("every", sampled((1, 7), (7,)))
    def test_any_flipped_bit(self, every: int, path: Path) -> None:
        data = path.read_bytes()
        for bit in range(0, 8 * len(data), every):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            refused(path)

    def test_any_byte_of_another_value_in_the_tensors(self, path: Path, wording: Wording) -> None:
        data = path.read_bytes()
        tensors = 8 + int.from_bytes(data[:8], "little")
        assert len(data) - tensors == 6 * 8 + 3 * 4
        for position in range(tensors, len(data)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :])
            wording(refused(path))

    def test_something_behind_the_end(self, path: Path, wording: Wording) -> None:
        path.write_bytes(path.read_bytes() + b"\0")
        wording(refused(path))

    def test_two_files_in_one(self, path: Path) -> None:
        data = path.read_bytes()
        save(path, replace(SMALL, parameters={"rnn.W": np.zeros((2, 3))}))
        other = path.read_bytes()
        assert len(other) == len(data)
        for cut in range(100, len(data), 7):
            if data[:cut] + other[cut:] not in (data, other):
                path.write_bytes(data[:cut] + other[cut:])
                refused(path)

    def test_a_capital_letter_in_the_checksum(self, path: Path, wording: Wording) -> None:
        data = path.read_bytes()
        (digest,) = re.findall(rb'"sha256":"(\w{64})"', data)
        assert digest.upper() != digest
        path.write_bytes(data.replace(digest, digest.upper()))
        wording(refused(path))
