"""Worker handlers that describe themselves wrongly at the start, or not at all."""

from __future__ import annotations

import os
import sys
import time
from typing import Any


class _Served:
    def __init__(self, name: str) -> None:
        self.name = name

    def versions(self) -> dict[str, str]:
        return {"framework": "1.2.3"}

    def devices(self) -> list[str]:
        return ["cpu"]

    def answer(self, payload: dict[str, Any]) -> Any:
        return None

    def __call__(self, verb: str, payload: dict[str, Any]) -> Any:
        return self.answer(payload) or f"{self.name} {verb}"


def honest(name: str) -> _Served:
    return _Served(name)


def echoing(name: str) -> Any:
    """Return a handler with a valid description, which answers with its argument."""
    served = _Served(name)
    served.answer = lambda payload: payload.get("value")
    return served


def mute(name: str) -> _Served:
    served = _Served(name)
    served.versions = lambda: None  # type: ignore[method-assign,assignment,return-value]
    return served


def odd_devices(name: str) -> _Served:
    served = _Served(name)
    served.devices = lambda: "cpu"  # type: ignore[method-assign,assignment,return-value]
    return served


def nameless(name: str) -> _Served:
    served = _Served(name)
    served.name = None  # type: ignore[assignment]
    return served


def another_form(name: str) -> _Served:
    served = _Served(name)
    served.devices = lambda: [1, 2]  # type: ignore[method-assign,assignment,return-value]
    return served


def impostor(name: str) -> _Served:
    return _Served("another")


def missing_framework(name: str) -> None:
    print("looking for the framework")
    raise ModuleNotFoundError("No module named 'framework'")


def leave(name: str) -> None:
    sys.exit("no device found")


def crash(name: str) -> None:
    os.abort()


def hang(name: str) -> None:
    time.sleep(60)
