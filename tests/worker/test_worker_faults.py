"""Workers that crash, hang and grow: each fault in mid-call, beside a worker that must not notice.

Everything here is done by real processes; `tests/support/process_faults` holds what they run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from process_faults.support import MIB, is_gone, launch
from time_limits import over_within
from wording import Wording

from harness.worker.worker import Worker

# What hangs is waited for that long; what does not may take its time.
TIMEOUT, PATIENCE = 1.0, 60.0

# verb, payload, status, cause, whether the process is lost
FAULTS: dict[str, tuple[str, dict[str, Any], str, str, bool]] = {
    "kill -9": ("kill_self", {}, "crashed", "SIGKILL", True),
    "segfault": ("segfault", {}, "crashed", "SIGSEGV", True),
    "abort": ("abort", {}, "crashed", "SIGABRT", True),
    "exit 3": ("leave", {"code": 3}, "crashed", "exit code 3 during the call", True),
    "exit 0": ("leave", {"code": 0}, "crashed", "exit code 0 during the call", True),
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


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_mid_call(worker: Worker, fault: str) -> None:
    verb, payload, status, cause, lost = FAULTS[fault]
    with Worker(launch("bystander")) as bystander, ThreadPoolExecutor(1) as pool:
        bystander.start()
        beside = pool.submit(bystander.call, "pause", {"seconds": 0.3})
        assert worker.call("echo", {"value": 1}).value == 1
        pid = worker.pid
        timeout = TIMEOUT if status == "timeout" else PATIENCE
        # The socket that is closed without a death is given a moment to become one.
        with over_within(PATIENCE / 3):
            outcome = worker.call(verb, payload, timeout=timeout)
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


def test_crash_leaves_a_traceback_in_the_log(worker: Worker, wording: Wording) -> None:
    outcome = worker.call("segfault")
    wording.line(outcome.log, "Python error: Segmentation")
    assert "in segfault" in outcome.log


def test_error_brings_its_traceback(worker: Worker) -> None:
    outcome = worker.call("raise_unpicklable")
    assert "Traceback" in outcome.traceback
    assert "in raise_unpicklable" in outcome.traceback


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


@pytest.mark.parametrize("lost", [{"prefix": ""}, {"prefix": "harness.errors", "again": True}])
def test_a_process_without_its_modules_is_ended(worker: Worker, lost: dict[str, Any]) -> None:
    """And the call that has removed them is at fault, not the one after it."""
    outcome = worker.call("lose_modules", lost)
    assert (outcome.status, outcome.cause.partition(":")[0]) == ("error", "LostModules")
    assert "sys.modules" in outcome.cause
    assert worker.call("echo", {"value": 5}).value == 5
    assert worker.starts == 2


def test_a_backend_may_remove_modules_of_its_own(worker: Worker) -> None:
    assert worker.call("lose_modules", {"prefix": "wave", "again": True}).value == "answered"
    assert worker.starts == 1


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


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("verb", ["allocate", "allocate_in_child"])
def test_memory_over_the_limit_is_stopped(verb: str, wording: Wording) -> None:
    limit = 300 * MIB
    with Worker(launch(memory_limit=limit)) as worker:
        worker.start()
        with over_within(PATIENCE / 3):
            outcome = worker.call(verb, timeout=120)
        assert outcome.status == "out-of-memory"
        wording.line(outcome.cause, "300 MiB")
        found = int(outcome.cause.removeprefix("resident memory of ").split()[0].replace(",", ""))
        assert 300 <= found <= 300 + 256
        assert worker.call("echo", {"value": 1}).value == 1
        assert worker.starts == 2
