"""A worker process, which runs one backend. It keeps running between calls, and is restarted after
a crash.

:mod:`harness.worker.exchange` enforces the limits of time and memory.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, distribution
from typing import Any, Self
from urllib.parse import unquote, urlparse

from harness.errors import shorten
from harness.output.shell import command_line
from harness.runtime import plugins
from harness.runtime.answers import IllFormed
from harness.runtime.labels import backend_of, contradiction
from harness.worker import frames
from harness.worker.answers import check_greeting, is_answer
from harness.worker.exchange import LostWorker, Status, exchange
from harness.worker.launch import Launch
from harness.worker.process import Process, exit_cause
from harness.worker.serve import GREETING

# The distribution that an interpreter needs to run a worker.
HARNESS = "backend-comparison-harness"
_NO_HARNESS = re.compile(r"No module named '?harness\b")
_OLD_PYTHON = re.compile(r"unknown option:? -P", re.IGNORECASE)


def repair_hint(python: str, backend: str, printed: str) -> str:
    """Return an instruction how to repair the interpreter ``python``, which could not start a
    worker; return an empty text if the cause is unknown.

    ``printed`` is the output of that interpreter, which shows the cause.
    """
    if python == sys.executable:
        return ""
    harness_distribution = distribution(HARNESS)
    if _OLD_PYTHON.search(printed):
        least = str(harness_distribution.metadata["Requires-Python"]).lstrip(">=")
        return f"; {python} is older than Python {least}, which the harness requires"
    if not _NO_HARNESS.search(printed) and "UnknownBackend" not in printed:
        return ""
    origin = plugins.available().get(backend)
    provider = harness_distribution if origin is None else distribution(origin.distribution)
    requirements = dict.fromkeys(
        (pip_requirement(harness_distribution, backend), pip_requirement(provider, backend))
    )
    missing = f"backend {backend!r}" if "UnknownBackend" in printed else "harness"
    words = command_line([python, "-m", "pip", "install", *requirements])
    return f"; that interpreter has no {missing}; install it with: {words}"


def pip_requirement(distribution: Distribution, extra: str) -> str:
    """Return the argument with which pip installs the same version of a distribution (an installed
    package) elsewhere, e.g. ``name[extra]==1.0`` or the path of a folder.

    ``extra`` is added if the distribution has such an extra.
    """
    extras = distribution.metadata.get_all("Provides-Extra") or []
    part = f"[{extra}]" if extra in extras else ""
    address = urlparse(json.loads(distribution.read_text("direct_url.json") or "{}").get("url", ""))
    if address.scheme == "file":
        return f"{unquote(address.path)}{part}"
    return f"{distribution.name}{part}=={distribution.version}"


_STARTS_TRIED = 2


@dataclass(frozen=True)
class Outcome:
    """The outcome of one call to a worker.

    - ``status`` is "ok" or the kind of failure.
    - ``value`` is the result of a successful call.
    - ``cause`` describes a failure, e.g. "SIGSEGV", "exit code 0 during the call", "no answer in
      4.0 s" or "ValueError: ...".
    - ``log`` is the last 64 KiB of output during the call.
    - ``seconds`` is the duration, measured in the worker. If no answer came, it is the time that
      the parent waited.
    - ``start_failed`` is True if the worker did not start, so that the call was never made.
    - ``kind`` is the class name of the exception that the call raised, if any.
    """

    status: Status
    value: Any = None
    cause: str = ""
    traceback: str = ""
    log: str = ""
    seconds: float = 0.0
    start_failed: bool = False
    kind: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def message(self) -> str:
        """The cause of the failure, without the class name of the exception."""
        return self.cause.removeprefix(f"{self.kind}: ")


class Worker:
    """A worker process that starts at its first call and then keeps running.

    After a crash, a timeout or too much memory, the next call starts a new process from the same
    ``Launch``; ``starts`` counts the starts. If a start hangs, or two successive starts fail, no
    further start is tried, and later calls return the failed outcome immediately. Calls from
    several threads take turns.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.starts = 0
        self._hello: Mapping[str, Any] | None = None
        self._process: Process | None = None
        self._worker_pid: int | None = None
        self._calls = 0
        self._failed_starts = 0
        self._final_outcome: Outcome | None = None
        self._lock = threading.Lock()

    @property
    def hello(self) -> Mapping[str, Any] | None:
        """The greeting (first message) of the process that runs, or else of the last process; None
        before the first start."""
        return self._hello

    @property
    def versions(self) -> str:
        """The versions of packages in the greeting, as text; empty before the first start."""
        versions = (self._hello or {}).get("versions", {})
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    @property
    def pid(self) -> int | None:
        """The process number of the worker; None if no process runs."""
        if self._process is None:
            return None
        # On Windows, other processes may be between the worker and the process that was started.
        return self._worker_pid or self._process.pid

    @property
    def given_up(self) -> bool:
        """True if no further start will be tried."""
        return self._final_outcome is not None

    def start(self) -> Outcome:
        """Start the process unless it is running. If that succeeds, the ``value`` of the outcome is
        the greeting (first message)."""
        with self._lock:
            return self._ensure_started()

    def call(self, verb: str, payload: Any = None, timeout: float | None = None) -> Outcome:
        """Call the method ``verb`` of the worker with the arguments ``payload``. ``timeout`` is in
        seconds; a start of the process does not count.

        A fault of the backend raises no error; the returned ``Outcome`` describes it. It is also a
        fault if the process has ended since the last call, because a new process would not have its
        session (the loaded model).

        Raises:
            harness.worker.frames.Unencodable: the payload cannot be encoded.
        """
        with self._lock:
            self._calls += 1
            request = frames.FrameWriter(
                {"id": self._calls, "verb": verb, "payload": payload or {}}
            )
            if self._process is None:
                started = self._ensure_started()
                if not started.ok or self._process is None:
                    return started
            elif self._process.has_ended():
                return self._end_lost(self._process, "between two calls")
            return self._run(self._process, request, timeout)

    def close(self) -> None:
        """End the process and all its descendants. A later call starts a new process."""
        with self._lock:
            if self._process is not None:
                self._end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ensure_started(self) -> Outcome:
        if self._process is not None:
            if not self._process.has_ended():
                return Outcome("ok", self._hello)
            self._end(self._process)
        if self._final_outcome is not None:
            return self._final_outcome
        outcome = self._start()
        if outcome.ok:
            self._hello, self._failed_starts = outcome.value, 0
            return outcome
        if self._process is not None:
            self._end(self._process)
        outcome = replace(outcome, start_failed=True)
        self._failed_starts += 1
        if outcome.status == "timeout" or self._failed_starts == _STARTS_TRIED:
            cause = f"not restarted after this failure: {outcome.cause}"
            self._final_outcome = replace(outcome, cause=cause, kind="", seconds=0.0)
        return outcome

    def _start(self) -> Outcome:
        self.starts += 1
        self._worker_pid = None
        try:
            self._process = Process(self.launch.command(), self.launch.variables())
        except (OSError, ValueError) as error:
            return Outcome("error", cause=f"cannot run {self.launch.python!r}: {error.args[-1]}")
        outcome = self._run(self._process, None, self.launch.start_timeout)
        if outcome.status == "timeout":
            return replace(outcome, cause=f"{outcome.cause} at its start")
        if outcome.status == "crashed" and outcome.log.strip():
            last = shorten(outcome.log.strip().splitlines()[-1], 200)
            outcome = replace(outcome, cause=f"{outcome.cause}, after printing {last!r}")
        if not outcome.ok:
            printed, python = f"{outcome.log}\n{outcome.cause}", self.launch.python
            hint = repair_hint(python, backend_of(self.launch.backend), printed)
            return replace(outcome, cause=f"{outcome.cause}{hint}")
        try:
            hello = check_greeting(outcome.value, backend_of(self.launch.backend))
        except IllFormed as error:
            return replace(outcome, status="error", value=None, cause=str(error))
        other = contradiction(self.launch.backend, hello["versions"])
        if other:
            cause = f"{other} from {self.launch.python}"
            return replace(outcome, status="error", value=None, cause=cause)
        self._worker_pid = hello["pid"]
        return replace(outcome, value=hello)

    def _run(
        self, process: Process, request: frames.FrameWriter | None, timeout: float | None
    ) -> Outcome:
        """Send a request, and wait for the answer. If ``request`` is None, only wait for the
        greeting (first message)."""
        started = time.monotonic()
        if request:  # keep the output of a new process, which belongs to its start
            process.log.clear()
        try:
            answer = exchange(process, request, timeout, self.launch.memory_limit)
            if not is_answer(answer, self._calls if request else GREETING):
                raise LostWorker("crashed", "it sent a message that is not the answer to this call")
        except LostWorker as lost:
            seconds = time.monotonic() - started
            return self._end_lost(
                process, "during the call" if request else "at its start", lost, seconds
            )
        except BaseException:
            # After Ctrl-C during a call, the late answer must not be taken for the answer of a
            # later call.
            self._end(process)
            raise
        outcome = _outcome(answer, process.log.read())
        if answer.get("spent"):
            # After a device fault every later call of the process may fail.
            self._end(process)
        return outcome

    def _end_lost(
        self, process: Process, when: str, lost: LostWorker | None = None, seconds: float = 0.0
    ) -> Outcome:
        """End a worker process that failed during a call, and return the outcome of the call.
        ``lost`` is the error that was raised, and ``when`` says when the process failed, for the
        message."""
        code = process.end()
        self._process = None
        log = process.log.read()
        process.log.close()
        status, cause = (lost.status, lost.cause) if lost else ("crashed", "")
        return Outcome(status, None, cause or exit_cause(code, when), "", log, seconds)

    def _end(self, process: Process) -> None:
        process.end()
        process.log.close()
        self._process = None


def _outcome(answer: dict[str, Any], log: str) -> Outcome:
    kind = "" if answer["status"] == "ok" else answer["kind"]
    return Outcome(
        answer["status"],
        answer.get("value"),
        f"{kind}: {answer['message']}" if kind else "",
        answer.get("traceback", ""),
        log,
        answer["seconds"],
        kind=kind,
    )
