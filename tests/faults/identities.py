"""Worker handlers that greet in odd ways, or not at all."""

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

    def __call__(self, verb: str, payload: dict[str, Any]) -> str:
        return f"{self.name} {verb}"


def honest(name: str) -> _Served:
    return _Served(name)


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
