"""How a session begins in a worker, whatever it is for."""

from __future__ import annotations

from typing import Any

from harness.program.serial import decode
from harness.runtime import promises
from harness.runtime.backend import Backend
from harness.runtime.session import Session


def open_session(
    backend: Backend, training: Any, inference: Any, rule: Any, path: str, dtype: str, device: str
) -> Session:
    """A session of programs that came over the wire, on a backend that is made ready for it."""
    backend.use(device, dtype)
    made = backend.session(
        decode(training), decode(inference), path=path, dtype=dtype, rule=decode(rule)
    )
    return promises.instance(made, Session, "session()", "a harness.runtime.session.Session")
