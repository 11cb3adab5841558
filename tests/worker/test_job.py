"""The Job Object of Windows and the connection to a worker, on Windows or a played Windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from places import ROOT, SUPPORT

from harness.files.system import POSIX

PROGRAM = """
import json, os, socket, subprocess, sys, time
import psutil
from harness.worker.launch import Launch
from harness.worker.worker import Worker

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

def handler(name):
    def answer(verb, payload):
        if verb == "child":
            return subprocess.Popen(SLEEP).pid
        if verb == "exit":
            os._exit(payload["code"])
        if verb == "print":
            os.write(1, payload["text"].encode())
        if verb == "sleep":
            time.sleep(600)
        return payload
    return answer

def alive(pid):
    deadline = time.monotonic() + 10  # the end of a process takes a moment
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        if time.monotonic() > deadline:
            return True
        time.sleep(0.01)
    return False

if __name__ == "__main__":
    found = {}
    worker = Worker(Launch("numpy", handler="played:handler"))
    found["start"] = worker.start().status
    found["echo"] = worker.call("echo", {"value": "x" * 5_000_000}).value["value"].count("x")
    found["log"] = [worker.call("print", {"text": text}).log for text in ("long text", "b")]
    pids = worker.pid, worker.call("child").value
    found["members"] = set(pids) <= worker._process._ender.members()
    late = worker.call("sleep", timeout=0.5)
    found["late"] = late.status, [alive(pid) for pid in pids]
    cause = worker.call("exit", {"code": 5}).cause
    found["exit"] = [word for word in cause.split() if word.isdecimal()]
    worker.close()
    from harness.worker.ending import Job
    job = Job()
    port = int(job.arguments[-1])
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    strangers[0].sendall(b"0" * 64)
    strangers[1].close()
    job._popen = subprocess.Popen(SLEEP)
    found["strangers"] = [job.wait(1.0) for _ in range(2)]
    found["answer"] = strangers[0].recv(1).decode()
    os.environ.update(job.variables)
    from harness.worker.ending import open_connection
    open_connection(port).sendall(b"hello")
    job.wait(1.0)
    found["worker"] = job.wait(1.0), job.connection.recv(9).decode()
    job._popen.kill()
    found["ended"] = job.has_ended(5.0)
    print(json.dumps(found))
"""


def test_a_job_ends_all_processes_and_only_its_worker_connects(tmp_path) -> None:
    (tmp_path / "played.py").write_text(PROGRAM)
    folders = (tmp_path, ROOT, *([SUPPORT / "other_systems"] if POSIX else []))
    played = {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PLAYED": "windows"}
    done = subprocess.run(
        [sys.executable, "played.py"],
        cwd=tmp_path,
        env={**os.environ, **played, "HARNESS_SYSTEM": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "start": "ok",
        "echo": 5_000_000,
        "log": ["long text", "b"],
        "members": True,
        "late": ["timeout", [False, False]],
        "exit": ["5"],
        "strangers": [[False, False, False], [False, False, False]],
        "answer": "",
        "worker": [[True, False, False], "hello"],
        "ended": True,
    }
