"""Only the answer to a call counts as one, whatever its size and whatever else is written."""

from __future__ import annotations

import os
import signal
import struct
import time
from typing import Any

import numpy as np
import pytest
from process_faults import harm
from process_faults.support import MIB, launch
from time_limits import over_within

from harness.worker import frames, process
from harness.worker.exchange import LostWorker, exchange
from harness.worker.worker import Worker

# All that is waited for here comes at once, or never.
TIMEOUT = 20.0


def test_forked_child_that_returns_does_not_answer(worker: Worker) -> None:
    assert worker.call("return_from_fork", {"value": "the parent"}).value == "the parent"
    for value in range(3):
        assert worker.call("echo", {"value": value}).value == value
    assert worker.starts == 1


def test_answer_that_was_complete_before_the_end_counts(worker: Worker) -> None:
    # By hand: a parent that is slow to look finds the answer and the end at the same moment.
    process = worker._process
    assert process is not None
    request = frames.FrameWriter({"id": 1, "verb": "echo", "payload": {"value": "last words"}})
    assert request.advance(process.connection)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.has_ended(1.0)
    answer = exchange(process, None, 1.0, None)
    assert answer["value"] == "last words"
    with pytest.raises(LostWorker):
        exchange(process, None, 1.0, None)


@pytest.mark.parametrize(
    "message",
    [
        {"id": 99, "status": "ok", "value": 1},
        [1],
        None,
        {"id": 1},
        {"id": 1, "status": "ok", "value": 1},
        {"id": 1, "status": "ok", "value": 1, "seconds": "soon"},
        {"id": 1, "status": "ok", "value": 1, "seconds": float("nan")},
        {"id": 1, "status": "splendid", "value": 1, "seconds": 0.1},
        {"id": 1, "status": "error", "seconds": 0.1},
        {"id": 1, "status": "error", "kind": 1, "message": None, "traceback": [], "seconds": 0.1},
        {"id": 1, "status": "timeout", "kind": "", "message": "", "traceback": "", "seconds": 0.1},
    ],
    ids=str,
)
def test_stray_frame_is_no_answer(worker: Worker, message: Any) -> None:
    outcome = worker.call("write_to_socket", {"message": message, "content": b""}, timeout=TIMEOUT)
    assert outcome.status == "crashed"
    assert outcome.cause == "it sent a message that is not the answer to this call"
    assert worker.call("echo", {"value": 1}).value == 1


def test_frame_larger_than_the_memory_that_is_allowed_is_refused() -> None:
    with Worker(launch(memory_limit=300 * MIB)) as worker:
        content = struct.pack(">QQ", 1, 301 * MIB) + b"\xc0"
        outcome = worker.call("write_to_socket", {"message": None, "content": content}, TIMEOUT)
        assert outcome.status == "crashed"
        assert "are allowed; did other code write" in outcome.cause


def test_death_between_calls_is_told_by_the_next_one(worker: Worker) -> None:
    """A new process would have no session, and say so in place of why the old one ended."""
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.1)
    outcome = worker.call("echo", {"value": 4})
    assert (outcome.status, outcome.cause) == ("crashed", "SIGKILL")
    assert worker.call("echo", {"value": 4}).value == 4
    assert worker.starts == 2


def test_death_between_calls_costs_no_start(worker: Worker) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert worker.start().ok
    assert worker.call("echo", {"value": 4}).value == 4


def test_big_arrays_travel_both_ways(worker: Worker) -> None:
    outcome = worker.call("big_result", timeout=120)
    assert outcome.value.nbytes == harm.RESULT_BYTES
    assert outcome.value[-1] == outcome.value.size - 1
    assert worker.call("total", {"array": outcome.value}).value == int(outcome.value.sum())


def test_hung_worker_cannot_hold_up_a_big_request(worker: Worker) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    array = np.zeros(50 * MIB, np.uint8)
    with over_within(20.0):
        outcome = worker.call("total", {"array": array}, timeout=0.3)
    assert outcome.status == "timeout"


def test_unencodable_request_is_the_caller_s_error(worker: Worker) -> None:
    with pytest.raises(frames.Unencodable):
        worker.call("echo", {"value": object()})
    assert worker.call("echo", {"value": 1}).value == 1
    assert worker.starts == 1


def test_prints_from_c_are_the_log_of_their_call(worker: Worker) -> None:
    assert worker.call("print_from_c", {"text": "first"}).log == "first\n"
    outcome = worker.call("print_from_c", {"text": "zweites ü"})
    assert outcome.log == "zweites ü\n"
    assert worker.call("echo").log == ""


def test_printing_megabytes_neither_blocks_nor_fills(worker: Worker) -> None:
    count = 200 * MIB
    outcome = worker.call("print_bytes", {"count": count}, timeout=120)
    assert outcome.value == "printed"
    assert len(outcome.log) == process.LOG_TAIL
    assert outcome.log.endswith("xthe end")
