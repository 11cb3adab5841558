"""How a session begins in a worker, whatever it is for."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.program.ir import Program
from harness.program.serial import decoded
from harness.runtime import promises
from harness.runtime.backend import Backend
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session


class CannotStart(Exception):
    """A framework that is installed and loaded computes nothing here, as without any device."""


def open_session(
    backend: Backend, training: Any, inference: Any, rule: Any, path: str, dtype: str, device: str
) -> Session:
    """A session of programs that came over the wire, on a backend that is made ready for it.

    Raises:
        CannotStart: the framework cannot make a tensor and read it.
    """
    backend.use(device, dtype)
    try:
        backend.numpy(backend.tensor(np.ones((2, 3), host_dtype(dtype))))
    except Exception as error:
        raise CannotStart(
            f"it cannot make and read a tensor: {type(error).__name__}: {error}"
        ) from error
    programs = (decoded(training), decoded(inference))
    return make_session(backend, *programs, path=path, dtype=dtype, rule=rule and decoded(rule))


def make_session(
    backend: Backend, training: Program, inference: Program, **choices: Any
) -> Session:
    """The session of a model that a backend makes, or the plain one.

    Raises:
        ContractError: what the backend made is not a session.
    """
    made = backend.session(training, inference, **choices)
    if made is None:
        return Session(backend, training, inference, **choices)
    wanted = "a harness.extend.executor.Session, or None,"
    found: Session = promises.instance(made, Session, "session()", wanted)
    return found
