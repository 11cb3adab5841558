"""Damaged inputs are refused in words: no traceback, no hang, no growth.

HARNESS_FUZZ is how many inputs there are in all (``make fuzz`` takes 10,000, drawn anew each time).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from fuzz.foreign import SUFFIXES, foreign
from fuzz.readers import READERS, WHOLE, Reader, read_checkpoint
from fuzz.real import checkpoint_file
from harness.convert.run import Caller
from harness.errors import HarnessError

TOTAL = int(os.environ.get("HARNESS_FUZZ", "500"))
# Of one input, in seconds; the slowest seen takes a tenth of it.
HANG = 60
# Of memory that one reader's inputs leave behind, and of what one input takes, in bytes.
GROWTH, PEAK = 40 << 20, 400 << 20
# Inputs after which a reader has all that it keeps.
WARM = 20


class Hang(BaseException):
    """No reader catches this."""


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def memory(name: str) -> int:
    """Bytes: VmRSS is what is resident now, VmHWM the most since :func:`forget_peak`."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def outcome(reader: Reader, data: bytes, folder: Path) -> str:
    """What is said of an input; empty for one that is still good."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with deadline(HANG):
            reader.read(data, folder)
    except HarnessError as error:
        return str(error) or "a refusal says nothing"
    return ""


def damage(reader: Reader, folder: Path) -> None:
    """Have a reader read its damaged inputs, and look at what it says and takes."""
    said: list[str] = []
    start: list[int] = []

    @settings(
        max_examples=max(20, TOTAL * reader.share // WHOLE),
        deadline=None,
        derandomize="HARNESS_FUZZ" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.generate],  # the smallest input that fails would take minutes to find
    )
    @given(reader.inputs())
    def read(data: bytes) -> None:
        text = outcome(reader, data, folder)
        text.encode()  # it can be printed
        assert "Traceback" not in text
        if len(said) == WARM:
            forget_peak()
            start.append(memory("VmRSS"))
        said.append(text)

    read()
    assert any(said), "no damage was noticed"
    if start:
        assert memory("VmRSS") - start[0] < GROWTH
        assert memory("VmHWM") - start[0] < PEAK


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_damaged_inputs_are_refused_in_words(reader: Reader, tmp_path: Path) -> None:
    damage(reader, tmp_path / "in")


@pytest.mark.slow
@pytest.mark.parametrize("name", SUFFIXES)
@pytest.mark.filterwarnings("ignore:Generating overly large repr", "ignore:Duplicate name")
def test_damaged_files_of_frameworks_are_refused_in_words(name: str, tmp_path: Path) -> None:
    """And the process that reads them lives on: nothing in a file ends it."""
    with Caller(name, sys.executable, HANG) as caller:
        damage(foreign(caller), tmp_path / "in")
        assert caller.worker.starts == 1


def test_the_checkpoint_that_is_damaged_was_whole(tmp_path: Path) -> None:
    """Or its history would be refused before anything that damage has done is read."""
    read_checkpoint(checkpoint_file(), tmp_path)
