"""The names of devices: ``cpu``, and ``cuda:N`` for a card; ``cuda`` alone is ``cuda:0``."""

from __future__ import annotations

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
