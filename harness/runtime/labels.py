"""Names of backends with a label, such as ``torch@2.6``, and names of devices.

A report has one column for each backend with a label, so the code calls such a name a column.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from harness.errors import unknown
from harness.runtime.plugins import ships

# A label is part of folder and file names, which have at most 255 characters.
LABEL = re.compile(r"[A-Za-z0-9._-]{1,100}")
# A label that is a version. The framework that runs must have this version.
VERSION = re.compile(r"\d+(\.\d+)+\S*")


def backend_of(column: str) -> str:
    """Return the backend's name without the label: ``torch`` for ``torch@2.6``. It selects the
    plugin."""
    return column.partition("@")[0]


def contradiction(column: str, versions: Mapping[str, str]) -> str:
    """Return a message if the label of a backend is a version, e.g. ``torch@2.6``, and a different
    version of the framework runs; else return an empty text.

    ``versions`` maps a package to the version that the worker reports. A label that is not a
    version is never wrong.
    """
    backend, _, label = column.partition("@")
    if not VERSION.fullmatch(label):
        return ""
    try:
        allowed = SpecifierSet(f"=={label}.*")
    except InvalidSpecifier:
        return ""
    name = next((n for n in (backend, backend.split("-")[0]) if n in versions), None)
    checked = versions if name is None else {name: versions[name]}
    if not checked or any(_matches(allowed, version) for version in checked.values()):
        return ""
    running = ", ".join(f"{n} {version}" for n, version in checked.items())
    return f"{column} was requested, but {running} answered"


def _matches(allowed: SpecifierSet, version: str) -> bool:
    try:
        return allowed.contains(version, prereleases=True)
    except InvalidVersion:  # a plugin may report any text
        return False


# Device names: ``cpu``, ``mps`` for the GPU of an Apple processor, and ``cuda:N`` for other GPUs;
# ``cuda`` alone is ``cuda:0``.

CPU, CARD, MPS = "cpu", "cuda", "mps"


def device_names(cards: int) -> tuple[str, ...]:
    """Return the device names that a framework offers if it sees ``cards`` GPUs."""
    if not cards:
        return (CPU,)
    return (CPU, CARD, *(f"{CARD}:{number}" for number in range(cards)))


def card_of(device: str) -> int | None:
    """Return the number of the GPU in a device name, e.g. 1 for ``cuda:1``; return None if the
    device is not a GPU."""
    kind, colon, number = device.partition(":")
    if kind != CARD or (colon and not number.isdecimal()):
        return None
    return int(number) if colon else 0


def check_device(device: str, columns: Collection[str]) -> None:
    """Raise an error for an impossible device name before a framework starts. ``columns`` are names
    of backends, e.g. ``torch@2.6``.

    Only the framework knows whether the device exists. Backends of other distributions may use
    other device names.

    Raises:
        UsageError: no backend in ``columns`` can have such a device.
    """
    if device in (CPU, MPS) or card_of(device) is not None:
        return
    if all(ships(backend_of(column)) for column in columns):
        raise unknown("device", device, (CPU, CARD, f"{CARD}:N", MPS))
