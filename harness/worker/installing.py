"""What an interpreter of the user's lacks to run a worker, and the command that installs it."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distribution
from urllib.parse import unquote, urlparse

from harness.output.shell import command_line
from harness.runtime import plugins

HARNESS = "backend-comparison-harness"
_LACKS = re.compile(r"No module named '?harness\b")
_OLD = re.compile(r"unknown option:? -P", re.IGNORECASE)


def hint(python: str, backend: str, said: str) -> str:
    """How to mend an interpreter that has printed ``said``; empty for the one that runs here, and
    where nothing is lacking that is known."""
    if python == sys.executable:
        return ""
    own = distribution(HARNESS)
    if _OLD.search(said):
        least = str(own.metadata["Requires-Python"]).lstrip(">=")
        return f"; {python} is older than Python {least}, which the harness wants"
    if not _LACKS.search(said) and "UnknownBackend" not in said:
        return ""
    origin = plugins.available().get(backend)
    brings = own if origin is None else distribution(origin.distribution)
    wanted = dict.fromkeys((requirement(own, backend), requirement(brings, backend)))
    lacks = f"backend {backend!r}" if "UnknownBackend" in said else "harness"
    words = command_line([python, "-m", "pip", "install", *wanted])
    return f"; that interpreter has no {lacks}; install it with: {words}"


def requirement(found: Distribution, extra: str) -> str:
    """What pip is told to install a distribution as it is here, with an extra if it has that."""
    extras = found.metadata.get_all("Provides-Extra") or []
    part = f"[{extra}]" if extra in extras else ""
    address = urlparse(json.loads(found.read_text("direct_url.json") or "{}").get("url", ""))
    if address.scheme == "file":
        return f"{unquote(address.path)}{part}"
    return f"{found.name}{part}=={found.version}"
