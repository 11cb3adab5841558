"""Workers that crash, hang and grow: each fault in mid-call, beside a worker that must not notice.

Everything here is done by real processes; `tests/support/faults` holds what they run.
"""

from __future__ import annotations

import os
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import verbs
from faults.support import MIB, is_gone, launch, timed
from time_limits import over_within

from harness.worker import frames, logs
from harness.worker import worker as worker_module
from harness.worker.installing import requirement
from harness.worker.launch import Launch
from harness.worker.worker import Worker

pytestmark = pytest.mark.alone


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(launch()) as worker:
        assert worker.start().ok
        yield worker


TIMEOUT = 1.0

# verb, payload, status, cause, whether the process is lost
FAULTS: dict[str, tuple[str, dict[str, Any], str, str, bool]] = {
    "kill -9": ("kill_self", {}, "crashed", "SIGKILL", True),
    "segfault": ("segfault", {}, "crashed", "SIGSEGV", True),
    "abort": ("abort", {}, "crashed", "SIGABRT", True),
    "exit 3": ("leave", {"code": 3}, "crashed", "exit code 3 in mid-call", True),
    "exit 0": ("leave", {"code": 0}, "crashed", "exit code 0 in mid-call", True),
    "loop": ("loop", {}, "timeout", "no answer in 1.0 s", True),
    "GIL held in C": ("hold_gil", {}, "timeout", "no answer in 1.0 s", True),
    "SIGTERM ignored": ("ignore_sigterm", {}, "timeout", "no answer in 1.0 s", True),
    "forked child": ("die_leaving_child", {}, "crashed", "SIGKILL", True),
    "socket closed": ("close_socket", {}, "crashed", "the other end closed the stream", True),
    "stray bytes": (
        "write_to_socket",
        {"message": None, "content": b"warning: something odd in mid-call"},
        "crashed",
        "a frame of",
        True,
    ),
    "killed in reply": ("die_in_big_reply", {}, "crashed", "SIGKILL", True),
    "sys.exit": ("exit_politely", {}, "error", "SystemExit: 7", False),
    "unpicklable": ("raise_unpicklable", {}, "error", "_Unpicklable: odd \\udcff trouble", False),
    "speechless": ("raise_speechless", {}, "error", "_Speechless: (its message", False),
    "unencodable": ("unencodable_result", {}, "error", "Unencodable: a value of type", False),
    "unknown verb": ("nonsense", {}, "error", "KeyError: 'nonsense'", False),
    "MemoryError": ("impossible_array", {}, "out-of-memory", "MemoryError: Unable", False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_mid_call(worker: Worker, fault: str) -> None:
    verb, payload, status, cause, lost = FAULTS[fault]
    with Worker(launch("bystander")) as bystander, ThreadPoolExecutor(1) as pool:
        bystander.start()
        beside = pool.submit(bystander.call, "pause", {"seconds": 0.3})
        assert worker.call("echo", {"value": 1}).value == 1
        pid = worker.pid
        outcome, took = timed(lambda: worker.call(verb, payload, timeout=TIMEOUT))
        gone = pid is not None and is_gone(pid)
        after = [worker.call("echo", {"value": value}).value for value in (2, 3)]
        assert beside.result().value == "rested"
        assert bystander.call("echo", {"value": "still"}).value == "still"
        assert bystander.starts == 1
    assert outcome.status == status
    assert outcome.cause.startswith(cause)
    assert not outcome.start_failed
    assert after == [2, 3]
    assert gone is lost
    assert worker.starts == (2 if lost else 1)
    # The socket that is closed without a death is given a moment to become one.
    allowed = 0.5 if fault in ("socket closed", "stray bytes") else 0.2
    assert took <= (TIMEOUT + 0.5 if status == "timeout" else allowed)


def test_crash_leaves_a_traceback_in_the_log(worker: Worker) -> None:
    outcome = worker.call("segfault")
    assert "Fatal Python error: Segmentation fault" in outcome.log
    assert "in segfault" in outcome.log


def test_error_brings_its_traceback(worker: Worker) -> None:
    outcome = worker.call("raise_unpicklable")
    assert "Traceback" in outcome.traceback
    assert "in raise_unpicklable" in outcome.traceback
    assert outcome.seconds < 0.1


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20 GiB",
        "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    ],
)
def test_framework_s_own_out_of_memory_keeps_the_worker(worker: Worker, message: str) -> None:
    outcome = worker.call("framework_out_of_memory", {"message": message})
    assert outcome.status == "out-of-memory"
    assert message in outcome.cause
    assert worker.call("echo").ok
    assert worker.starts == 1


@pytest.mark.parametrize(
    "error",
    [
        ("RuntimeError", "CUDA error: an illegal memory access was encountered"),
        ("RuntimeError", "CUDA error: device-side assert triggered"),
        ("RuntimeError", "cudaErrorLaunchFailure: unspecified launch failure"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        ("RuntimeError", "HIP error: hipErrorLaunchFailure"),
        ("AcceleratorError", "whatever it says"),
        ("XlaRuntimeError", "INTERNAL: Failed to launch the kernel"),
        ("JaxRuntimeError", "INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("ValueError", "step 3: CUDA_ERROR_LAUNCH_FAILED"),
        ("InternalError", "Blas GEMM launch failed"),
    ],
    ids=lambda error: error[1],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_fault_of_the_device_ends_the_process(
    worker: Worker, error: tuple[str, str], wrapped: bool
) -> None:
    kind, message = error
    outcome = worker.call("raise_of_kind", {"kind": kind, "message": message, "wrapped": wrapped})
    assert outcome.status == "error"
    assert outcome.cause == ("LookupError: in a step" if wrapped else f"{kind}: {message}")
    assert message in outcome.traceback
    assert worker.pid is None
    assert worker.call("echo", {"value": 5}).value == 5
    assert worker.starts == 2


@pytest.mark.parametrize(
    "error",
    [
        ("ValueError", "shapes (2, 3) and (4,) do not fit"),
        ("XlaRuntimeError", "INVALID_ARGUMENT: an internal: matter"),
        ("RuntimeError", "no CUDA device was asked for"),
    ],
    ids=lambda error: error[1],
)
def test_another_error_keeps_the_process(worker: Worker, error: tuple[str, str]) -> None:
    kind, message = error
    assert not worker.call("raise_of_kind", {"kind": kind, "message": message}).ok
    assert worker.pid is not None
    assert worker.starts == 1


@pytest.mark.parametrize("verb", ["allocate", "allocate_in_child"])
def test_memory_over_the_limit_is_stopped(verb: str) -> None:
    limit = 300 * MIB
    with Worker(launch(memory_limit=limit)) as worker:
        worker.start()
        with over_within(1.0):
            outcome = worker.call(verb, timeout=20)
        assert outcome.status == "out-of-memory"
        assert outcome.cause.endswith("over the limit of 300 MiB")
        found = int(outcome.cause.removeprefix("resident memory of ").split()[0].replace(",", ""))
        assert 300 <= found <= 300 + 256
        assert worker.call("echo", {"value": 1}).value == 1
        assert worker.starts == 2


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
    answer = worker_module._exchange(process, None, 1.0, None)
    assert answer["value"] == "last words"
    with pytest.raises(worker_module._Lost):
        worker_module._exchange(process, None, 1.0, None)


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
    assert outcome.cause == "it sent something else than the answer to this call"
    assert worker.call("echo", {"value": 1}).value == 1


@pytest.mark.parametrize("name", ["mute", "odd_devices", "nameless", "another_form"])
def test_odd_greeting_is_an_error_of_the_start(name: str) -> None:
    with Worker(launch("greeter", handler=f"faults.identities:{name}")) as worker:
        outcome = worker.start()
        assert (outcome.status, outcome.start_failed) == ("error", True)
        assert worker.pid is None
        assert "wanted" in outcome.cause or "greeting" in outcome.cause


def test_frame_larger_than_the_memory_that_is_allowed_is_refused() -> None:
    with Worker(launch(memory_limit=300 * MIB)) as worker:
        content = struct.pack(">QQ", 1, 301 * MIB) + b"\xc0"
        outcome = worker.call("write_to_socket", {"message": None, "content": content}, TIMEOUT)
        assert outcome.status == "crashed"
        assert "are allowed; something else than a frame was written" in outcome.cause


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
    outcome, took = timed(lambda: worker.call("big_result", timeout=30))
    assert outcome.value.nbytes == verbs.RESULT_BYTES
    assert outcome.value[-1] == outcome.value.size - 1
    assert took <= 10
    assert worker.call("total", {"array": outcome.value}).value == int(outcome.value.sum())


def test_hung_worker_cannot_hold_up_a_big_request(worker: Worker) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    array = np.zeros(50 * MIB, np.uint8)
    outcome, took = timed(lambda: worker.call("total", {"array": array}, timeout=0.3))
    assert outcome.status == "timeout"
    assert took <= 0.8


def test_unencodable_request_is_the_caller_s_error(worker: Worker) -> None:
    with pytest.raises(frames.Unencodable):
        worker.call("echo", {"value": object()})
    assert worker.call("echo", {"value": 1}).value == 1
    assert worker.starts == 1


def test_prints_from_c_are_the_log_of_their_call(worker: Worker) -> None:
    assert worker.call("print_from_c", {"text": "first"}).log == "first\n"
    outcome = worker.call("print_from_c", {"text": "zweites ü"})
    assert (outcome.log, outcome.log_bytes) == ("zweites ü\n", 11)
    assert worker.call("echo").log == ""


def test_printing_megabytes_neither_blocks_nor_fills(worker: Worker) -> None:
    count = 200 * MIB
    outcome = worker.call("print_bytes", {"count": count}, timeout=20)
    assert outcome.value == "printed"
    # What the pipe still holds when the answer comes is counted with the next call.
    assert outcome.log_bytes >= count * 0.5
    assert len(outcome.log) == logs.LOG_TAIL
    assert outcome.log.endswith("xthe end")


def test_greeting_tells_who_serves() -> None:
    options = {"environment": {"KERAS_BACKEND": "jax", "TF_X": "1", "OTHER": "2"}}
    with Worker(launch("mine", "faults.identities:honest", **options)) as worker:
        hello = worker.start().value
        assert worker.hello == hello
        assert hello["backend"] == "mine"
        assert hello["pid"] == worker.pid
        assert hello["versions"] == {"framework": "1.2.3"}
        assert hello["devices"] == ["cpu"]
        assert hello["environment"]["KERAS_BACKEND"] == "jax"
        assert hello["environment"]["TF_X"] == "1"
        assert "OTHER" not in hello["environment"]
        assert worker.call("speak").value == "mine speak"


START_FAILURES = {
    "impostor": ("error", "backend 'victim' was asked for, and 'another' answered"),
    "missing_framework": ("error", "ModuleNotFoundError: No module named 'framework'"),
    "leave": ("error", "SystemExit: no device found"),
    "crash": ("crashed", "SIGABRT, after printing "),
    "hang": ("timeout", "no answer in 0.5 s"),
}


@pytest.mark.parametrize("handler", START_FAILURES)
def test_start_that_fails_is_told_from_a_call_that_fails(handler: str) -> None:
    limit = 0.5 if handler == "hang" else 30.0
    options = launch(handler=f"faults.identities:{handler}", start_timeout=limit)
    with Worker(options) as worker:
        outcome = worker.call("speak")
        status, cause = START_FAILURES[handler]
        assert outcome.status == status
        assert outcome.cause.startswith(cause)
        assert outcome.start_failed
        assert worker.pid is None
        if handler == "missing_framework":
            assert "in missing_framework" in outcome.traceback
            assert outcome.log == "looking for the framework\n"


def test_unknown_backend_is_a_failed_start() -> None:
    with Worker(Launch("no-such-backend")) as worker:
        outcome = worker.start()
        assert outcome.start_failed
        assert outcome.cause.startswith("UnknownBackend: unknown backend 'no-such-backend'")


def test_interpreter_that_is_not_there_is_a_failed_start() -> None:
    with Worker(launch(python="/nowhere/python")) as worker:
        outcome = worker.start()
        assert outcome.start_failed
        assert outcome.cause.startswith("cannot run '/nowhere/python': ")


def test_interpreter_without_the_harness_is_told_how_to_get_it(tmp_path: Path) -> None:
    """A real one, in an environment of its own."""
    folder = tmp_path / "my env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = str(folder / "bin" / "python")
    with Worker(Launch("torch", python=python)) as worker:
        outcome = worker.start()
    assert outcome.start_failed
    assert "No module named 'harness'" in outcome.log
    own = distribution("backend-comparison-harness")
    _, _, command = outcome.cause.partition("; that interpreter has no harness; install it with: ")
    words = shlex.split(command)
    assert words[:4] == [python, "-m", "pip", "install"]
    assert words[4:] == [requirement(own, "torch")]
    assert "[torch]" in words[4]


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Unknown option: -P", "is older than Python 3.11, which the harness wants"),
        ("Segmentation fault", "exit code 1 at its start, after printing 'Segmentation fault'"),
    ],
)
def test_what_an_interpreter_says_at_its_end(says: str, told: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {says} >&2\nexit 1\n")
    python.chmod(0o755)
    with Worker(launch(python=str(python))) as worker:
        outcome = worker.start()
    assert outcome.start_failed
    assert outcome.cause.endswith(told)


def test_current_folder_is_not_on_the_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    with Worker(launch()) as worker:
        assert worker.start().ok
