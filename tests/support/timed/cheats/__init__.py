"""Backends that are not honest about their speed, by the way in which they cheat."""

from timed.cheats.beforehand import beforehand, beforehand_aside
from timed.cheats.caches import by_place, caching, coarse_when_known, small_cache, third_sighting
from timed.cheats.fewer_steps import fewer_of_several, last_of_several, lazy, one_batch
from timed.cheats.not_waiting import early, halfway, stale
from timed.cheats.put_off import (
    debt,
    half_when_read,
    skipping_by_lot,
    skipping_forgotten,
    skipping_second,
    skipping_unread,
)
from timed.cheats.unread import (
    coarse_in_rows,
    coarse_unread,
    every_second_update,
    frozen_bias,
    frozen_late,
    frozen_once_proved,
    frozen_slots,
    half_batch,
    half_gradient,
    halved_rate,
    stale_second,
    stale_state,
    stale_statistics,
)
from timed.cheats.wrong import drifting, slow_clock, wrong

__all__ = [
    "beforehand",
    "beforehand_aside",
    "by_place",
    "caching",
    "coarse_in_rows",
    "coarse_unread",
    "coarse_when_known",
    "debt",
    "drifting",
    "early",
    "every_second_update",
    "fewer_of_several",
    "frozen_bias",
    "frozen_late",
    "frozen_once_proved",
    "frozen_slots",
    "half_batch",
    "half_gradient",
    "half_when_read",
    "halfway",
    "halved_rate",
    "last_of_several",
    "lazy",
    "one_batch",
    "skipping_by_lot",
    "skipping_forgotten",
    "skipping_second",
    "skipping_unread",
    "slow_clock",
    "small_cache",
    "stale",
    "stale_second",
    "stale_state",
    "stale_statistics",
    "third_sighting",
    "wrong",
]
