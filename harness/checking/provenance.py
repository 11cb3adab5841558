"""The conditions on which a cell's numbers depend. A recorded result is reused only if they are
unchanged. A *signature* is known before a cell runs. A *greeting* comes from the worker when it
starts. Both map names to texts, which go into the record and into messages about changes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.checking.known_differences import Differences
from harness.checking.request import Request, case_sizes
from harness.language.model import Spec, fingerprint
from harness.oracle import tolerance
from harness.results.cell import Cell
from harness.results.environment import machine
from harness.runs.compared import became
from harness.runtime.code_digest import digest
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.labels import backend_of
from harness.runtime.plugins import available, code
from harness.worker.cards import cards
from harness.worker.serve import reported
from harness.worker.worker import Worker

# Entries that are checksums: messages only say that they changed, and do not show the values.
CHECKSUMS: Mapping[str, str] = {
    "spec": "the spec has changed",
    "sizes": "the sizes have changed",
    "differences": "the known differences have changed",
    "harness code": "the code of the harness has changed",
    "code": "the code of the backend has changed",
    "machine": "it is another machine",
    "model": "the file of the model, or what is said of it, has changed",
}
# Entries that a signature has only if the backend runs on the harness' own interpreter.
OF_OWN_INTERPRETER = ("backend",)
# Entries that are limits. They matter only if a verdict is one of :data:`LIMITED`.
LIMITS = ("--timeout", "--memory")
LIMITED = frozenset({"timeout", "out-of-memory", "not-run"})
# Variables that change which packages an interpreter finds. If one is set for a worker, the harness
# cannot know the worker's versions without starting it.
SEARCHING = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PATH")
PROSE = {"summary", "source"}


class Signatures:
    """The signatures of all cells of a run."""

    def __init__(self, request: Request, differences: Differences) -> None:
        self.request = request
        own = machine()
        self._common = {
            "harness": version("backend-comparison-harness"),
            "harness code": digest("harness"),
            "K": str(tolerance.K),
            "numpy of the oracle": version("numpy"),
            "Python of the oracle": platform.python_version(),
            "differences": _checksum({n: d.model_dump() for n, d in differences.entries.items()}),
            "--timeout": str(request.timeout),
            "--memory": str(request.memory_limit),
            **{name: str(getattr(own, name)) for name in ("host", "cpu", "architecture")},
            "machine": own.id,
            "service": request.handler or request.service,
            **({"model": _checksum(request.against.record().plain())} if request.against else {}),
            "usable cores": str(own.usable_cores),
            # If several dtypes are requested, some checks run in one of them only, so the list of
            # dtypes matters.
            "dtypes": ", ".join(request.dtypes),
            **{f"variable {name}": text for name, text in reported(os.environ).items()},
        }
        self._specs: dict[str, dict[str, str]] = {}
        self._backends: dict[str, dict[str, str]] = {}
        self._gpus: dict[str, str] = {}

    def of(self, cell: Cell, spec: Spec) -> dict[str, str]:
        """Return the signature of a cell: everything on which its numbers depend, except the cell's
        own fields."""
        if spec.name not in self._specs:
            own = spec.model.model_dump(exclude=PROSE)
            sizes = [case_sizes(spec, self.request, own=case) for case in (False, True)]
            checksums = {"spec": _checksum([fingerprint(spec), own]), "sizes": _checksum(sizes)}
            self._specs[spec.name] = checksums
        if cell.backend not in self._backends:
            self._backends[cell.backend] = _backend(cell.backend, self.request)
        backend = self._backends[cell.backend]
        if cell.device != "cpu" and not self._gpus:
            self._gpus = {"GPUs": "; ".join(" ".join(card.values()) for card in cards())}
        gpus = {} if cell.device == "cpu" else self._gpus
        return {**self._common, **self._specs[spec.name], **backend, **gpus}


class Greetings:
    """The greetings of a run's workers. A worker is started to get its greeting only if it runs on
    another interpreter, or if the recorded versions differ from those installed here."""

    def __init__(self, request: Request, workers: Mapping[str, Worker]) -> None:
        self.request, self.workers = request, workers
        self._asked: dict[str, Mapping[str, str]] = {}
        self._started: set[str] = set()

    def now(self, backend: str, recorded: Mapping[str, str]) -> Mapping[str, str]:
        """Return a backend's greeting today; empty if its worker cannot be started."""
        if self._asked.get(backend) != recorded and backend not in self._started:
            if self._is_own(backend) and _installed(backend, recorded) == recorded:
                self._asked[backend] = recorded
            else:
                self._started.add(backend)
                worker = self.workers[backend]
                self._asked[backend] = (greeting(worker) or {}) if worker.start().ok else {}
        return self._asked[backend]

    def _is_own(self, backend: str) -> bool:
        variables = self.request.environment.get(backend, {})
        searched = any(name in variables for name in SEARCHING)
        return self.request.pythons.get(backend, sys.executable) == sys.executable and not searched


def greeting(worker: Worker) -> dict[str, str] | None:
    """Return the versions and checksums in a worker's greeting on which numbers depend; None if the
    worker never started."""
    hello = worker.hello
    if hello is None:
        return None
    versions = {name: str(text) for name, text in hello.get("versions", {}).items()}
    said = {"Python": "python", "code": "code", "harness code": "harness"}
    return {**versions, **{name: str(hello.get(entry, "")) for name, entry in said.items()}}


def origins(columns: Iterable[str]) -> dict[str, str]:
    """Return for each backend the package that it comes from, with its version."""
    known = available()
    found = {name: known.get(backend_of(name)) for name in columns}
    return {name: f"{o.distribution} {o.version}" for name, o in found.items() if o is not None}


def labelled(workers: Mapping[str, Worker]) -> dict[str, dict[str, str]]:
    """Return the backend and the interpreter of each worker whose name differs from its backend's
    name."""
    return {
        name: {"backend": backend_of(name), "interpreter": worker.launch.python}
        for name, worker in workers.items()
        if backend_of(name) != name
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return texts that say how two signatures, or two greetings, differ."""
    before, now = known_of_both(before, now)
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old != new:
            found.append(CHECKSUMS.get(name, f"{name} {became(old, new)}"))
    return found


def known_of_both(
    one: Mapping[str, str], other: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return two signatures. If their interpreters differ, entries that only one of them has are
    left out."""
    if one.get("interpreter") == other.get("interpreter"):
        return one, other
    hidden = {name for name in OF_OWN_INTERPRETER if (name in one) != (name in other)}
    first, second = ({n: t for n, t in s.items() if n not in hidden} for s in (one, other))
    return first, second


def _backend(name: str, request: Request) -> dict[str, str]:
    origin = {**available(FORMATS_GROUP), **available()}[backend_of(name)]
    python = request.pythons.get(name, sys.executable)
    found = {"interpreter": python}
    if python == sys.executable:
        found["backend"] = f"{origin.distribution} {origin.version}"
    variables = request.environment.get(name, {})
    return {**found, **{f"--env {variable}": text for variable, text in variables.items()}}


def _installed(backend: str, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the recorded greeting with the versions that are installed here; entries that are not
    installed are left out."""
    found = {
        "Python": platform.python_version(),
        "code": code(backend_of(backend)),
        "harness code": digest("harness"),
    }
    for name in recorded:
        try:
            own, (public, plus, _) = version(name), recorded[name].partition("+")
            # Keep the recorded version if it only adds a local part (``2.1.0+cpu``).
            found.setdefault(name, recorded[name] if plus and own == public else own)
        except (PackageNotFoundError, ValueError):  # an empty name raises ValueError
            continue
    return found


def _checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
