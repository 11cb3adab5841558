"""Backends that do less where nobody looks get no speed; those that do all the work do."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from places import SUPPORT
from quick_rounds import quick_rounds

from harness.timing import timed_round
from harness.timing.contestant import Contestant, TimedResult
from harness.timing.proofs import times
from harness.timing.request import BenchRequest, Entry
from harness.timing.run import Bench
from harness.worker.launch import Launch, thread_settings

pytestmark = pytest.mark.alone

PYTHONPATH = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
# Of one thread: on a busy machine two wait for each other.
SETTINGS = {"PYTHONPATH": PYTHONPATH, **thread_settings(1)}
SIZES = {"hidden": (64,), "vocab": (17,), "factors": (5,)}
# Words of the refusals.
LEFT = "timed steps, step"
LESS = "computes less if results are not read"
CACHE = "answers from a cache"
KNOWN = "differs: step"
CLOCK = "its clock goes wrong"
ALWAYS = "differs from the oracle in the middle of a round"
BEFORE = "works before the clock starts"
# The first of them is the one that the quick tests run.
CLOCKS = ("clock_slow_by_15", "clock_slow_by_5", "slow_clock", "halved_when_long", "slow_in_rounds")
LAZY = (
    *("skipping_second", "skipping_unread", "skipping_by_lot", "skipping_forgotten"),
    *("half_when_read", "anew_when_read", "rows_when_read"),
)
# What must be refused, and in which words; the systems that have what the cheat is about.
STATELESS, STATEFUL = "lesson6/sequence_rnn", "lesson6/stateful_lstm"
TRAINED = {
    **dict.fromkeys(("frozen_bias", "frozen_slots", "halved_rate", "every_second_update"), LEFT),
    **dict.fromkeys(("coarse_unread", "coarse_in_rows", "half_gradient"), LEFT),
    "fewer_of_several": (LEFT, LESS),
    **dict.fromkeys(("moments_every_second", "small_updates_dropped", "rounded_parameters"), LEFT),
    "frozen_once_proved": LEFT,
    **dict.fromkeys(("known", "tired"), ALWAYS),
    **dict.fromkeys(CLOCKS, CLOCK),
    "halfway": ("does not wait for its work", LEFT),
}
FORWARD = {
    **dict.fromkeys(("coarse_unread", "coarse_in_rows", "half_batch", "rounded_parameters"), LEFT),
    "by_first_column": (LEFT, LESS, CACHE),
    "stale_second": (LEFT, LESS),
    **dict.fromkeys(LAZY, LESS),
    "coarse_when_known": KNOWN,
    "known": ALWAYS,
    "second_reading": (LEFT, LESS),
    "boasting": "is not the product",
    **dict.fromkeys(("third_sighting", "small_cache", "by_place"), (CACHE, LESS)),
    "last_of_several": (LEFT, LESS),
    **dict.fromkeys(CLOCKS, CLOCK),
    "halfway": ("does not wait for its work", LEFT, LESS),
}
# What is refused in other words than in training.
NEW = {name: words for name, words in FORWARD.items() if words not in TRAINED.values()}
# These show in what a round has left, where it has many steps.
LATE = {"frozen_late": LEFT, "debt": "leaves work for later"}
# These show in what it takes to hand batches over, where steps are longer than copies.
BEFOREHAND = {"beforehand": BEFORE, "beforehand_aside": (BEFORE, CACHE, LESS)}
LONG = {**SIZES, "hidden": (512,)}
CARRYING = {"stale_state": LEFT, "stale_statistics": LEFT}
Cheats = dict[str, str | tuple[str, ...]]


def one_of_a_kind(cheats: Cheats) -> Cheats:
    """The first of all cheats that are refused in the same words."""
    alike: dict[str | tuple[str, ...], str] = {}
    for name, words in cheats.items():
        alike.setdefault(words, name)
    return {name: words for words, name in alike.items()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs, but for those that a pace is taken of: on a slow machine they are all noise."""
    quick_rounds(monkeypatch, 0.2, 0.05)
    monkeypatch.setattr(times, "SHORT", 0.01)


def run(
    spec: str, mode: str, *names: str, sizes: Mapping[str, tuple[int, ...]] = SIZES
) -> dict[str, TimedResult]:
    if spec == STATEFUL:
        sizes = {"hidden": (16,), "vocab": (11,)}
    request = BenchRequest(
        specs=(spec,),
        modes=(mode,),
        batches=(48,),
        sizes=sizes,
        rounds=3,
        threads=1,
        path="derived",
    )
    entries = []
    for name in names:
        module = "handlers" if name == "honest" else "cheats"
        launch = Launch(name, handler=f"timed.{module}:{name}", environment=SETTINGS)
        entries.append(Entry(name, launch))
    with Bench(request, entries) as bench:
        return {result.cell.backend: result for result in bench.run()}


@pytest.mark.parametrize(
    ("spec", "mode", "cheats"),
    [
        pytest.param(STATELESS, "train", one_of_a_kind(TRAINED), id="trained"),
        pytest.param(STATELESS, "forward", one_of_a_kind(NEW), id="forward"),
        pytest.param(STATELESS, "train", TRAINED, id="all-trained"),
        pytest.param(STATELESS, "forward", FORWARD, id="all-forward"),
        pytest.param(STATELESS, "forward", BEFOREHAND, id="beforehand"),
        pytest.param(STATELESS, "train", LATE, id="late"),
        pytest.param(STATEFUL, "train", CARRYING, id="carrying"),
        pytest.param(STATEFUL, "forward", {"stale_state": LEFT}, id="carrying-forward"),
    ],
)
def test_cheats_are_refused_and_say_why(
    spec: str,
    mode: str,
    cheats: Cheats,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if cheats is LATE:
        short, long = Contestant.steps_in, 80
        # However busy the machine is: more steps than any other proof makes.
        monkeypatch.setattr(
            Contestant,
            "steps_in",
            lambda one, seconds, least=3: (
                long if seconds == timed_round.ROUND else short(one, seconds, least)
            ),
        )
    if cheats is BEFOREHAND:
        monkeypatch.setattr(timed_round, "WARMING", 0.1)  # until all that is put aside is done
    found = run(spec, mode, "honest", *cheats, sizes=LONG if cheats is BEFOREHAND else SIZES)
    honest = found.pop("honest")
    assert (honest.status, honest.reason) == ("measured", "")
    for name, words in cheats.items():
        status, reason = found[name].status, found[name].reason
        allowed = (words,) if isinstance(words, str) else words
        assert status == "refused", name
        assert any(word in reason for word in allowed), (name, reason)
