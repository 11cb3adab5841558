"""The names of devices: ``cpu``, and ``cuda:N`` for a card; ``cuda`` alone is ``cuda:0``."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import unknown
from harness.runtime.labels import backend_of
from harness.runtime.plugins import ships

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
