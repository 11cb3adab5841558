"""Recording of the GPU's clock rate and memory while backends are timed on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness.runtime.labels import card_of
from harness.timing.contestant import Contestant
from harness.worker.cards import SLOWED, Watch, card_used, cards, processes, summary


@contextmanager
def watch_gpu(contestants: Sequence[Contestant]) -> Iterator[None]:
    """Watch the GPU while the rounds are timed; afterwards store a summary (clock rates, memory) in
    each backend's record. On the CPU do nothing."""
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
        memory = split_memory(processes(card["uuid"]), contestant.worker.pid, seen.get("used"))
        contestant.record.card = {"uuid": card["uuid"], **seen, **memory}


def split_memory(
    bytes_by_process: Mapping[int, int | None], own: int | None, used: int | None
) -> dict[str, int | None]:
    """Return a dictionary with the peak GPU memory in bytes: ``own_bytes`` of this worker, and
    ``others_bytes`` of all other processes. A value is None if it is unknown.

    Other processes include the workers of the other backends. These stay alive while this worker is
    timed, and each holds a CUDA context and an allocator cache.

    Args:
        bytes_by_process: The bytes that each process uses, by process id.
        own: The process id of this worker.
        used: The peak of the bytes in use on the GPU, summed over all processes.
    """
    own_bytes = bytes_by_process.get(own) if own is not None else None
    if used is None or own_bytes is None:
        return {"own_bytes": own_bytes, "others_bytes": None}
    return {"own_bytes": own_bytes, "others_bytes": max(0, used - own_bytes)}


def list_slowdowns(record: Mapping[str, Any]) -> list[str]:
    """Return a list with one message if the GPU lowered its clock rate during the timing, else an
    empty list.

    ``record`` is the field ``card`` of a cell's record. ``record["reasons"]`` lists the causes of a
    lower clock rate that nvidia-smi reported, by nvidia-smi's names.
    """
    reasons = [reason for reason in record.get("reasons", ()) if reason in SLOWED]
    if not reasons:
        return []
    return [
        f"not to be relied on: the GPU slowed down during the timing ({', '.join(reasons)}); let "
        "it cool (see nvidia-smi -q -d PERFORMANCE), and measure again"
    ]
