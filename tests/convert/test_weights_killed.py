"""Processes that are killed while they write weights, and how much memory large ones take."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.convert.weights import load

WRITER = """
import sys
import numpy as np
from harness.convert.weights import Weights, save
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


MEASURE = """
import resource, sys
import numpy as np
from harness.convert.weights import Weights, load, save
made = Weights("s", "f", {}, {f"p{i}": np.ones(2_000_000, np.float32) for i in range(16)}, {})
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[2] == "save":
    save(sys.argv[1], made)
else:
    del made
    load(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 2**10)
"""


def test_memory_for_large_weights(tmp_path: Path) -> None:
    """Of 128 MB: one copy more to write them; to read them, the file and the arrays."""
    copies = []
    for verb in ("save", "load"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "w"), verb]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        copies.append(float(run.stdout) / 122)
    # The arrays that were written before count for one of the two that reading takes.
    assert copies[0] < 2.3
    assert copies[1] < 1.3
