"""Checks of backends that each violate one rule of the backend contract."""

from __future__ import annotations

from typing import Any

import plugin_broken_promises

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.checking.runner import Report

SPEC = "lesson6/three_char"
CHECKS = ("values", "inference", "training-sgd", "pipeline", "initial-values", "aliasing")


def request(*faults: str, **changes: Any) -> Request:
    names = tuple(f"wrong-{fault}" for fault in faults)
    given = {"specs": (SPEC,), "dtypes": ("float64",), "checks": CHECKS, "jobs": 2, **changes}
    return Request(
        backends=names, environment={n: plugin_broken_promises.variables() for n in names}, **given
    )


def run(*faults: str, **changes: Any) -> Report:
    with Engine(request(*faults, **changes)) as engine:
        return engine.run()
