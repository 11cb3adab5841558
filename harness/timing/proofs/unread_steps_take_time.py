"""Proof that steps which nobody reads are made: each takes as long as one that is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from harness.timing.contestant import Contestant, Pace, Refused
from harness.timing.play import sample

# A step in a row takes no less than this share of the longer part of a step alone.
LEAST = 0.75
# And of processors' time no less than this, as to wait for a step takes some too.
LEAST_PROCESSOR = 0.6
# Of the wall's time so much more than that alone that no less was done, whatever processors tell.
LONG = 1.25
# Where it is less than this, or the wall's time is too little, more samples are taken: so many.
CLEAR, SAMPLES = 0.75, 6
# Seconds of steps in a row of such a sample.
TRIED = 0.1


def check_pace(contestant: Contestant) -> None:
    """A step in a row, which nobody reads, takes about as long as one alone, which is read.

    While one is computed the next may be begun, and there is no reading; so that of the time
    alone the longer part is left, to begin a step or to wait for it. Where several steps are one
    call, calls stand for steps; threads that wait for them take processors' time, which tells
    nothing then. On a busy machine wall time tells little; there the time of
    processors does, which overlapping does not save. What the steps alone have led to is looked at
    as all that is timed (:mod:`.unread_steps_agree`).

    Raises:
        Refused: of the wall's time in every round, and in some more samples, it takes much less; or
            of the processors' in half of them, and of the wall's no more.
    """
    paces = contestant.paces
    on_processors = contestant.device == "cpu" and contestant.many == 1
    most = len(paces) + SAMPLES
    while less(paces, on_processors, CLEAR) and len(paces) < most:
        sample(contestant, TRIED)
    middle = sorted(paces, key=lambda p: p.processor_share)[len(paces) // 2]
    shares = {"share": middle.share, "processor_share": middle.processor_share}
    contestant.record.pace = asdict(middle) | shares
    if less(paces, on_processors, LEAST_PROCESSOR):
        raise Refused(
            f"does less where nobody reads: in a row a step takes {middle.row:.3g} s "
            f"({middle.row_processor:.3g} s of processors), and alone {middle.begun:.3g} s to "
            f"begin and {middle.done:.3g} s more until its results are there, of which reading is "
            f"{middle.again:.3g} s ({middle.alone_processor:.3g} s of processors)"
        )


def less(paces: Sequence[Pace], on_processors: bool, least: float) -> bool:
    """Whether a step in a row has taken too little: of the wall's time in every round, or of the
    processors' in half of them, where the work is a processor's.

    Of the wall's the best counts, as on a busy machine it tells little; the processors' is
    scattered about what it is, so that of many samples one is near the bound by chance. Threads
    that wait for one whose core is taken may spend it at full speed, more so in a step that is
    waited for: no less is done by what takes the longer time of the wall's in half of the samples.
    """
    if max(p.share for p in paces) < LEAST:
        return True
    if not on_processors or median(p.share for p in paces) >= LONG:
        return False
    return median(p.processor_share for p in paces) < least
