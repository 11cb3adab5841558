"""The card beside a measurement: what it did while rounds ran, and who had memory on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness.runtime.labels import card_of
from harness.timing.contestant import Contestant
from harness.worker.cards import SLOWED, Watch, card_used, cards, processes, summary


@contextmanager
def watched(contestants: Sequence[Contestant]) -> Iterator[None]:
    """Look at the card while rounds are made, and put what was seen into the records.

    Nothing where they are made on the CPU.
    """
    number = card_of(contestants[0].device)
    if number is None:
        yield
        return
    with Watch() as watch:
        yield
    known = cards()
    for contestant in contestants:
        variables = {**os.environ, **contestant.entry.launch.environment}
        card = card_used(known, number, variables.get("CUDA_VISIBLE_DEVICES"))
        if card is None:
            continue
        seen = summary(watch.states, card["uuid"])
        memory = shared(processes(card["uuid"]), contestant.worker.pid, seen.get("used"))
        contestant.record.card = {"uuid": card["uuid"], **seen, **memory}


def shared(
    held: Mapping[int, int | None], own: int | None, used: int | None
) -> dict[str, int | None]:
    """Bytes of a card that a worker holds, and those of all others.

    Workers of one group are alive together, each with its context and its allocator's cache.

    Args:
        held: Bytes by process.
        own: The worker's process.
        used: The most bytes in use on the card, by whomever.
    """
    mine = held.get(own) if own is not None else None
    if used is None or mine is None:
        return {"own_bytes": mine, "others_bytes": None}
    return {"own_bytes": mine, "others_bytes": max(0, used - mine)}


def slowed(record: Mapping[str, Any]) -> list[str]:
    """Why a speed is not that of the card as it is sold, in words; nothing if it is."""
    found = [reason for reason in record.get("reasons", ()) if reason in SLOWED]
    if not found:
        return []
    return [
        f"not to be relied on: the card slowed down while it was timed ({', '.join(found)}); let "
        "it cool, see nvidia-smi -q -d PERFORMANCE, and measure again"
    ]
