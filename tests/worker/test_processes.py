"""Processes: their environment, their end and that of their parent, and what is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from process_faults.support import (
    MIB,
    PATH,
    VERBS,
    group_members,
    is_gone,
    launch,
    timed,
    wait_until,
)
from sampling import sampled

from harness.worker import process
from harness.worker.launch import Launch
from harness.worker.worker import Worker

PLUGIN = """
import os
from harness.runtime.hookspecs import hookimpl
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


def test_whole_group_ends_with_its_worker(worker: Worker) -> None:
    group = worker.pid
    assert group is not None
    assert group_members(group) == [group]
    assert worker.call("die_leaving_child").status == "crashed"
    assert wait_until(lambda: not group_members(group), 10.0)


HOLES = pytest.mark.parametrize("punches", [True, False], ids=["holes", "no holes"])


@HOLES
def test_log_on_disk_is_cut_while_the_call_runs(
    punches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not punches:
        monkeypatch.setattr(process, "free_start", lambda *_: False)
    log = process.Log()
    os.write(log.fileno(), b"a" * (20 * MIB))
    log.watch()
    assert os.fstat(log.fileno()).st_blocks * 512 <= 2 * process.LOG_TAIL
    os.write(log.fileno(), b"tail")
    text = log.read()
    assert text.endswith("aatail")
    assert len(text) == process.LOG_TAIL
    log.clear()
    assert log.read() == ""
    log.close()


@HOLES
def test_last_words_are_kept_while_a_large_log_is_cut(
    punches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, right, count = process.Log(), process.free_start, process._LOG_ON_DISK + MIB

    def while_it_prints(*arguments: int) -> bool:
        os.write(log.fileno(), b"the end")
        return right(*arguments) if punches else False

    os.write(log.fileno(), b"x" * count)
    monkeypatch.setattr(process, "free_start", while_it_prints)
    log.watch()
    text = log.read()
    log.close()
    assert text.endswith("xthe end")


def test_plugin_s_environment_is_there_before_its_framework(tmp_path: Path) -> None:
    (tmp_path / "plugin_env.py").write_text(PLUGIN)
    metadata = tmp_path / "plugin_env-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-env\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[harness.backends]\nenv-test = plugin_env\n")
    # What answers the calls is not tested here, so anything may stand in its place.
    module, _, function = Launch("numpy").service.partition(":")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        f"sys.modules['{module}'] = types.SimpleNamespace({function}=lambda backend: print)\n"
    )
    path = os.pathsep.join([str(tmp_path), PATH["PYTHONPATH"]])
    environment = {"PYTHONPATH": path, "KERAS_BACKEND": "jax"}
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
        list(pool.map(check, range(12)))  # 24 starts


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
    seconds = sorted(timed(lambda: worker.call("echo"))[1] for _ in range(1000))
    assert seconds[500] <= 1e-3
    assert resident() - before <= 50 * MIB
    assert open_files() == files
    assert worker.starts == 1


@pytest.mark.usefixtures("system")
def test_starts_and_crashes_leak_no_files() -> None:
    files = open_files()
    for _ in range(3):
        with Worker(launch()) as worker:
            worker.call("kill_self")
            worker.call("loop", timeout=0.05)
            worker.call("echo")
        Worker(launch(python="/nowhere")).start()
    assert open_files() == files


@pytest.mark.usefixtures("system")
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
        [sys.executable, "-m", "process_faults.parent", verb],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | PATH,
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("batch", sampled(range(4), (0,)))
@pytest.mark.parametrize("verb", ["idle", "loop", "hold_gil"])
def test_killed_parent_leaves_no_worker(verb: str, batch: int) -> None:
    started = [start_parent(verb) for _ in range(5)]
    time.sleep(0.1)
    assert not any(is_gone(worker) for _, worker in started)
    for parent, _ in started:
        parent.kill()
        parent.communicate()
    gone = wait_until(lambda: all(is_gone(worker) for _, worker in started), 10.0)
    for _, worker in started:
        if not is_gone(worker):
            os.kill(worker, signal.SIGKILL)
    assert gone


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("ending", ["sys.exit(0)", "1 / 0", "kill_all()"])
def test_end_of_the_interpreter_ends_its_workers(ending: str) -> None:
    code = f"""
import sys, os, time
from harness.worker.launch import Launch
from harness.worker.process import kill_all
from harness.worker.worker import Worker
worker = Worker(Launch("victim", handler="{VERBS}"))
worker.start()
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(worker.pid, worker.call("echo").status, worker.starts, flush=True)
{ending}
time.sleep(0.1)
print(worker.call("echo").status, worker.call("echo").status, worker.starts)
worker.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | PATH
    )
    first, *rest = done.stdout.splitlines()
    pid, status, starts = first.split()
    # A forked child that ends by itself must leave the workers of its parent alone.
    assert (status, starts) == ("ok", "1")
    assert wait_until(lambda: is_gone(int(pid)), 10.0)
    assert rest == (["crashed ok 2"] if "kill_all" in ending else [])
