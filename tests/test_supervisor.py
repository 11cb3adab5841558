"""Workers that crash, hang and grow: each fault in mid-call, beside a worker that must not notice.

Everything here is done by real processes; `tests/faults` holds what they run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import verbs

from harness import frames, processes, supervisor
from harness.supervisor import Launch, Outcome, Worker

TESTS = Path(__file__).parent
PATH = {"PYTHONPATH": str(TESTS)}
VERBS = "faults.verbs:handler"
TIMEOUT = 1.0
MIB = 1 << 20


def launch(name: str = "victim", handler: str = VERBS, **options: Any) -> Launch:
    environment = PATH | options.pop("environment", {})
    return Launch(name, handler=handler, environment=environment, **options)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(launch()) as worker:
        assert worker.start().ok
        yield worker


def timed(call: Callable[[], Outcome]) -> tuple[Outcome, float]:
    started = time.monotonic()
    outcome = call()
    return outcome, time.monotonic() - started


def is_gone(pid: int) -> bool:
    """Return whether no process of this number is left, other than as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


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
    assert (outcome.cause == cause) if lost else outcome.cause.startswith(cause)
    assert not outcome.start_failed
    assert after == [2, 3]
    assert gone is lost
    assert worker.starts == (2 if lost else 1)
    # The socket that is closed without a death is given a moment to become one.
    allowed = 0.5 if fault == "socket closed" else 0.2
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
    ],
)
def test_framework_s_own_out_of_memory_keeps_the_worker(worker: Worker, message: str) -> None:
    outcome = worker.call("framework_out_of_memory", {"message": message})
    assert outcome.status == "out-of-memory"
    assert message in outcome.cause
    assert worker.call("echo").ok
    assert worker.starts == 1


@pytest.mark.parametrize("verb", ["allocate", "allocate_in_child"])
def test_memory_over_the_limit_is_stopped(verb: str) -> None:
    limit = 300 * MIB
    with Worker(launch(memory_limit=limit)) as worker:
        worker.start()
        outcome, took = timed(lambda: worker.call(verb, timeout=20))
        assert outcome.status == "out-of-memory"
        assert outcome.cause.endswith("over the limit of 300 MiB")
        found = int(outcome.cause.removeprefix("resident memory of ").split()[0].replace(",", ""))
        assert 300 <= found <= 300 + 256
        assert took <= 1.0
        assert worker.call("echo", {"value": 1}).value == 1
        assert worker.starts == 2


def test_whole_group_ends_with_its_worker(worker: Worker) -> None:
    group = worker.pid
    assert group is not None
    assert worker.call("die_leaving_child").status == "crashed"

    def is_empty() -> bool:
        return not any(
            not is_gone(int(entry.name)) and os.getpgid(int(entry.name)) == group
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
        )

    with contextlib.suppress(ProcessLookupError):
        assert wait_until(is_empty, 1.0)


def test_forked_child_that_returns_does_not_answer(worker: Worker) -> None:
    assert worker.call("return_from_fork", {"value": "the parent"}).value == "the parent"
    for value in range(3):
        assert worker.call("echo", {"value": value}).value == value
    assert worker.starts == 1


def test_answer_that_was_complete_before_the_end_counts(worker: Worker) -> None:
    # Stopped, the parent's poll sees the answer and the end of the process at the same moment.
    worker.start()
    process = worker._process
    assert process is not None
    processes_wait = frames.Writer({"id": 1, "verb": "echo", "payload": {"value": "last words"}})
    assert processes_wait.advance(process.connection)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.has_ended(1.0)
    answer = supervisor._exchange(process, None, 1.0, None)
    assert answer["value"] == "last words"
    with pytest.raises(supervisor._Lost):
        supervisor._exchange(process, None, 1.0, None)


def test_death_between_calls_costs_no_call(worker: Worker) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert worker.call("echo", {"value": 4}).value == 4
    assert worker.starts == 2


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
    assert outcome.log_bytes >= count * 0.9
    assert len(outcome.log) == processes.LOG_TAIL
    assert outcome.log.endswith("xthe end")


def test_log_on_disk_is_cut_while_the_call_runs() -> None:
    log = processes.Log()
    os.write(log.fileno(), b"a" * (20 * MIB))
    log.watch()
    assert os.fstat(log.fileno()).st_size == 0
    os.write(log.fileno(), b"tail")
    text, count = log.read()
    assert count == 20 * MIB + 4
    assert text.endswith("aatail")
    assert len(text) == processes.LOG_TAIL
    log.close()


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
    "crash": ("crashed", "SIGABRT"),
    "hang": ("timeout", "no answer in 0.5 s"),
}


@pytest.mark.parametrize("handler", START_FAILURES)
def test_start_that_fails_is_told_from_a_call_that_fails(handler: str) -> None:
    options = launch(handler=f"faults.identities:{handler}", start_timeout=0.5)
    with Worker(options) as worker:
        outcome = worker.call("speak")
        assert (outcome.status, outcome.cause) == START_FAILURES[handler]
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


def test_plugin_s_environment_is_there_before_its_framework(tmp_path: Path) -> None:
    source = """
import os
from harness.hookspecs import hookimpl
AT_START = dict(line.split("=", 1) for line in
                open("/proc/self/environ").read().split(chr(0)) if "=" in line)

class Backend:
    def __init__(self, name):
        self.name = name
    def versions(self):
        return {key: AT_START.get(key, "unset") for key in ("TF_MODE", "KERAS_BACKEND")}
    def devices(self):
        return []

@hookimpl
def harness_environment(name):
    return {"TF_MODE": "quiet " + name, "KERAS_BACKEND": "torch"}

@hookimpl
def harness_backend(name):
    return Backend(name)
"""
    (tmp_path / "plugin_env.py").write_text(source)
    metadata = tmp_path / "plugin_env-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-env\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[harness.backends]\nenv-test = plugin_env\n")
    code = (
        "import sys, types; from harness import worker;"
        "sys.modules['harness.session'] = types.SimpleNamespace(handler=lambda b: print);"
        "worker.main(sys.argv[1:])"
    )
    del code
    environment = {"PYTHONPATH": f"{tmp_path}", "KERAS_BACKEND": "jax"}
    with Worker(Launch("env-test", environment=environment)) as worker:
        outcome = worker.start()
        assert outcome.ok, outcome.cause
        assert outcome.value["versions"] == {"TF_MODE": "quiet env-test", "KERAS_BACKEND": "torch"}
        assert outcome.value["environment"]["TF_MODE"] == "quiet env-test"


def test_every_worker_has_its_own_environment() -> None:
    def check(number: int) -> None:
        own = {"KERAS_BACKEND": f"k{number}", "OMP_NUM_THREADS": str(number + 1)}
        with Worker(launch(f"w{number}", environment=own)) as worker:
            for verb in ("echo", "kill_self", "echo"):
                worker.call(verb)
            found = worker.call("identity").value["environment"]
            assert own.items() <= found.items()
            assert worker.hello is not None
            assert own.items() <= worker.hello["environment"].items()
            assert worker.hello["backend"] == f"w{number}"
            assert worker.starts == 2

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(check, range(12)))
    assert "k0" not in os.environ.get("KERAS_BACKEND", "")


def test_worker_outlives_the_thread_that_started_it() -> None:
    with Worker(launch()) as worker:
        thread = threading.Thread(target=worker.start)
        thread.start()
        thread.join()
        time.sleep(0.2)
        assert worker.call("echo", {"value": 1}).value == 1
        assert worker.starts == 1


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_thousand_warm_calls(worker: Worker) -> None:
    worker.call("echo")
    before, files = resident(), open_files()
    seconds = sorted(
        timed(lambda: worker.call("echo", {"value": number}))[1] for number in range(1000)
    )
    assert seconds[500] <= 1e-3
    assert resident() - before <= 50 * MIB
    assert open_files() == files
    assert worker.starts == 1


def test_starts_and_crashes_leak_no_files() -> None:
    files = open_files()
    for _ in range(3):
        with Worker(launch()) as worker:
            worker.call("kill_self")
            worker.call("loop", timeout=0.05)
            worker.call("echo")
        Worker(launch(python="/nowhere")).start()
    assert open_files() == files


def test_interrupted_call_cannot_answer_the_next(worker: Worker) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            worker.call("pause", {"seconds": 0.3})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert worker.call("echo", {"value": "mine"}).value == "mine"


def start_parent(verb: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen(
        [sys.executable, "-m", "faults.parent", verb],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | PATH,
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize("verb", ["idle", "loop", "hold_gil"])
def test_killed_parent_leaves_no_worker(verb: str) -> None:
    started = [start_parent(verb) for _ in range(5)]
    time.sleep(0.1)
    assert not any(is_gone(worker) for _, worker in started)
    for parent, _ in started:
        parent.kill()
        parent.communicate()
    assert wait_until(lambda: all(is_gone(worker) for _, worker in started), 1.0)


@pytest.mark.parametrize("ending", ["sys.exit(0)", "1 / 0", "kill_all()"])
def test_end_of_the_interpreter_ends_its_workers(ending: str) -> None:
    code = f"""
import sys, os, time
from harness.supervisor import Launch, Worker, kill_all
worker = Worker(Launch("victim", handler="{VERBS}"))
worker.start()
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(worker.pid, worker.call("echo").status, worker.starts, flush=True)
{ending}
time.sleep(0.1)
print(worker.call("echo").status, worker.starts)
worker.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | PATH
    )
    first, *rest = done.stdout.splitlines()
    pid, status, starts = first.split()
    # A forked child that ends by itself must leave the workers of its parent alone.
    assert (status, starts) == ("ok", "1")
    assert wait_until(lambda: is_gone(int(pid)), 1.0)
    assert rest == (["ok 2"] if "kill_all" in ending else [])
