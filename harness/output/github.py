"""Output for GitHub Actions: annotations (messages at a line of a file), and the step summary.

Untrusted texts from specs, backends and records are escaped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.output.printing import visible

# GitHub shows at most MOST annotations of a kind per step, and rejects summaries that are longer
# than LONGEST bytes.
MOST = 10
LONGEST = 900 * 1024


# ``file``, ``file:line`` or ``file:line:column``.
_PLACE = re.compile(r"(?P<file>.+?)(?::(?P<line>\d+))?(?::(?P<col>\d+))?", re.DOTALL)


def annotation(title: str, message: str, places: Iterable[str] = (), level: str = "error") -> str:
    """Return the command of GitHub Actions (a line of output) that makes GitHub show a message at a
    line of a file.

    ``places`` are texts such as ``file``, ``file:line`` or ``file:line:column``. The first of them
    whose file is in the repository is used. ``level`` is e.g. ``error`` or ``warning``.
    """
    properties = {"title": visible(title)}
    for place in places:
        parts = _PLACE.fullmatch(place)
        path = _in_repository(parts["file"]) if parts is not None else None
        if parts is not None and path is not None:
            at = {name: parts[name] for name in ("line", "col") if parts[name]}
            properties = {"file": path, **at, **properties}
            break
    property_list = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {property_list}::{_data(visible(message))}"


def limit(annotations: Sequence[str]) -> list[str]:
    """Return at most :data:`MOST` annotations; the last annotation says how many were omitted."""
    if len(annotations) <= MOST:
        return list(annotations)
    omitted = len(annotations) - MOST + 1
    return [*annotations[: MOST - 1], annotation(f"{omitted} more", f"{omitted} more: see the log")]


def summarise(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Append Markdown to the step summary, which GitHub Actions shows on the page of a run; do
    nothing outside GitHub Actions.

    Return an error message, or an empty text if there is no error.
    """
    path = environment.get("GITHUB_STEP_SUMMARY")
    if not path:
        return ""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > LONGEST:
        start = data[:LONGEST].rpartition(b"\n")[0]
        data = start + b"\n\nThe rest is too long for a summary: see the log.\n"
    try:
        with open(path, "ab") as file:
            file.write(data + b"\n")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return f"cannot write the summary of the step to {visible(path)}: {reason.lower()}"
    return ""


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _in_repository(file: str) -> str | None:
    """Return the path of a file relative to the root of the repository; return None if the file is
    not in it."""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve()
    try:
        path = Path(file).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    except (OSError, ValueError):
        pass
    return None
