"""The names of columns: a backend's own, and one with a label, such as ``torch@2.6``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from harness.errors import unknown
from harness.runtime.plugins import ships

# A name of a folder, and a part of file names, has at most 255 characters.
LABEL = re.compile(r"[A-Za-z0-9._-]{1,100}")
# A label that is taken at its word: the version that answers must be one of it.
VERSION = re.compile(r"\d+(\.\d+)+\S*")


def backend_of(column: str) -> str:
    """The backend's own name, by which it is loaded."""
    return column.partition("@")[0]


def contradiction(column: str, versions: Mapping[str, str]) -> str:
    """How the version that runs contradicts a column's label, in words; empty if it does not.

    ``versions`` are those that its worker tells of. A label that is not a version says nothing.
    """
    backend, _, label = column.partition("@")
    if not VERSION.fullmatch(label):
        return ""
    try:
        wanted = SpecifierSet(f"=={label}.*")
    except InvalidSpecifier:
        return ""
    name = next((n for n in (backend, backend.split("-")[0]) if n in versions), None)
    found = versions if name is None else {name: versions[name]}
    if not found or any(_is_one_of(wanted, version) for version in found.values()):
        return ""
    answered = ", ".join(f"{n} {version}" for n, version in found.items())
    return f"{column} was asked for, and {answered} answered"


def _is_one_of(wanted: SpecifierSet, version: str) -> bool:
    try:
        return wanted.contains(version, prereleases=True)
    except InvalidVersion:  # a plugin may call it anything
        return False


# The names of devices: ``cpu``, and ``cuda:N`` for a card; ``cuda`` alone is ``cuda:0``.

CPU, CARD = "cpu", "cuda"


def device_names(cards: int) -> tuple[str, ...]:
    """The devices that a framework offers which sees so many cards."""
    if not cards:
        return (CPU,)
    return (CPU, CARD, *(f"{CARD}:{number}" for number in range(cards)))


def card_of(device: str) -> int | None:
    """The number of the card that a name stands for, None for any other device."""
    kind, colon, number = device.partition(":")
    if kind != CARD or (colon and not number.isdecimal()):
        return None
    return int(number) if colon else 0


def check_device(device: str, columns: Collection[str]) -> None:
    """Check the name of a device before a framework starts; whether it is there, only the
    framework knows. A backend that does not ship may have devices of other names.

    Raises:
        UsageError: none of the backends can have such a device.
    """
    if device == CPU or card_of(device) is not None:
        return
    if all(ships(backend_of(column)) for column in columns):
        raise unknown("device", device, (CPU, CARD, f"{CARD}:N"))
