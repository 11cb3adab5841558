"""Proof that nothing is computed before the clock starts, while a batch is handed over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from harness.timing.contestant import Contestant, Handed, Refused
from harness.timing.workload import ROTATING

# Of each batch no more than this share of a step is done before its step begins: what a backend
# must do beforehand to save a quarter of it.
SHARE = 1 / 3
# What handing an array over may take beside that, in seconds and by its bytes: some five times as
# much as the slowest backend that ships needs.
SECONDS, BYTES_PER_SECOND = 1e-3, 1e8
SAMPLES = 12


def check_handing_over(contestant: Contestant) -> None:
    """To hand batches over and make steps on them takes no longer than the steps and the copies.

    A backend that computes what comes of a batch as soon as it has it makes its steps in no time.
    The work shows between the handing over and the end of the first steps, whenever it is done: in
    processors' time and in the wall's. On a processor the smaller of both counts: threads that wait
    for the next call spin, and of the wall's time others take some. Of all rounds and of some more
    samples it is the middle one of the first, and the first quarter of the second, on a card the
    least.

    Raises:
        Refused: it takes longer.
    """
    if contestant.case.group.mode != "forward":
        return
    handed, on_cpu = list(contestant.handed), contestant.device == "cpu"
    step = median(p.row_processor if on_cpu else p.row for p in contestant.paces)
    allowed = max(SHARE * ROTATING * step, _of_copies(contestant))
    while _seconds(handed, on_cpu) > allowed and len(handed) < SAMPLES:
        handed.append(_sample(contestant))
    taken = _seconds(handed, on_cpu)
    contestant.record.handing_over = {"seconds": taken, "allowed": allowed, "step": step}
    if taken > allowed:
        raise Refused(
            f"works before the clock starts: to hand over {ROTATING} batches takes {taken:.3g} s "
            f"beside the steps (allowed: {allowed:.3g} s), and a step on one of them {step:.3g} s"
        )


def _seconds(handed: Sequence[Handed], on_cpu: bool) -> float:
    walls = sorted(h.wall for h in handed)
    if on_cpu:
        return min(median(h.processor for h in handed), walls[len(walls) // 4])
    return walls[0]


def _of_copies(contestant: Contestant) -> float:
    """The seconds that handing over all batches may take whatever a step does."""
    arrays = [a for batch in contestant.case.batches for a in batch["inputs"].values()]
    return sum(SECONDS + a.nbytes / BYTES_PER_SECOND for a in arrays)


def _sample(contestant: Contestant) -> Handed:
    """Another handing over, of batches that nobody has seen."""
    before, started = contestant.processor(), time.perf_counter()
    contestant.steps.feed(contestant.case.unseen())
    contestant.throughput(ROTATING)
    middle, now = contestant.processor(), time.perf_counter()
    seconds = contestant.throughput(ROTATING) / ROTATING
    processor = (contestant.processor() - middle) / ROTATING
    return Handed(now - started, middle - before).beyond(ROTATING, seconds, processor)
