"""The operators of each framework that have a rule, for ``harness port --operators``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from harness.checking.own_model.against import HANDLER, SERVICE
from harness.checking.own_model.run import FORMS
from harness.command.options import NEXT_NAME, interpreters
from harness.environments.columns import choose
from harness.errors import CouldNotRun, check_known
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.plugins import available
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault
from harness.worker.worker import Worker


def list_operators(
    backend: str | None, python: str | None, timeout: float, tell: Callable[[str], None]
) -> dict[str, list[str]]:
    """Return the operators that can be ported, by framework. ``backend`` limits the frameworks to
    this one. ``tell`` shows the framework whose rules are read.

    Raises:
        UsageError: the backend is unknown.
        CouldNotRun: a process failed.
    """
    by_framework = {}
    names = [backend] if backend else _frameworks()
    pythons = interpreters(NEXT_NAME.split(python) if python else (), lambda: names)
    for name in names:
        tell(f"reading the rules of {name}")
        if operators := _operators_of(name, pythons.get(name), timeout):
            by_framework[name] = operators
    return by_framework


def _frameworks() -> Sequence[str]:
    """Return the installed backends, one of each family, and the formats that no backend runs."""
    backends = choose(()).names
    families = {name.partition("-")[0]: None for name in backends}
    return list(dict.fromkeys([*families, *sorted({*available(FORMATS_GROUP)} - {*available()})]))


def _operators_of(name: str, python: str | None, timeout: float) -> list[str]:
    check_known("backend", name, (*available(), *available(FORMATS_GROUP)))
    handler = None if name in available() else HANDLER
    worker = Worker(Launch(name, python or sys.executable, service=SERVICE, handler=handler))
    try:
        return sorted(Remote(worker, timeout, forms=FORMS).call("operators"))
    except WorkerFault as fault:
        if fault.users_error is not None:  # the backend cannot run models of users
            return []
        raise CouldNotRun(f"{name}: {fault.outcome.cause}") from None
    finally:
        worker.close()
