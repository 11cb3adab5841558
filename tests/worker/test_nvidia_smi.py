"""What nvidia-smi tells of cards, by a script in its place that answers as the tool does."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path

import pytest

from harness.worker import cards
from harness.worker.cards import CardState, Watch, card_used, reasons, state, summary

H100 = "GPU-11111111-aaaa"
ONE = ("H100", H100, "570.1", "700.00 W", "1980 MHz", "2619 MHz", "Disabled", "81559 MiB")
SCRIPT = """#!{python}
import sys, time
query = " ".join(sys.argv[1:])
if "{refused}" in query:
    print('Field "{refused}" is not a valid field to query.')
    sys.exit(2)
if "compute-apps" in query:
    print("{uuid}, 100, 1024\\n{uuid}, 200, [N/A]\\nGPU-2, 300, 5")
elif "--query-gpu=name" in query:
    print("{one}")
else:
    while True:
        print("{uuid}, 1755, 2619, 66, 402.12, 3000, 0x0000000000000004", flush=True)
        if "--loop-ms" not in query:
            break
        time.sleep(0.02)
"""


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str = "no field") -> None:
    script = folder / "nvidia-smi"
    values = {"python": sys.executable, "uuid": H100, "one": ", ".join(ONE), "refused": refused}
    script.write_text(SCRIPT.format(**values))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def test_a_card_is_told_with_what_decides_its_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch)
    (found,) = cards.cards()
    assert found == dict(zip(cards.FIELDS, ONE, strict=True))
    assert {"uuid", "driver_version", "power.limit", "mig.mode.current"} <= found.keys()
    assert cards.processes(H100) == {100: 1 << 30, 200: None}


def test_where_there_is_no_driver_there_are_no_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cards.cards() == []
    assert cards.processes(H100) == {}
    with Watch() as watch:
        pass
    assert watch.states == []


@pytest.mark.parametrize("refused", ["no field", "clocks_event_reasons"])
def test_a_card_is_watched_and_the_tool_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Drivers differ in the name of the reasons for clocks."""
    installed(tmp_path, monkeypatch, refused)
    with Watch() as watch:
        end = time.monotonic() + 20
        while not watch.states and time.monotonic() < end:
            time.sleep(0.02)
    assert watch._process is not None
    assert watch._process.returncode is not None
    assert watch.states[0] == CardState(H100, 1755, 2619, 66, 402.12, 3000 << 20, ("power cap",))


def test_what_was_seen_is_told_of_one_card() -> None:
    lines = (
        f"{H100}, 1755, 2619, 66, 402.12, 3000, 0x0000000000000004",
        f"{H100}, 345, 2619, 71, [N/A], 3500, 0x0000000000000041",
        "GPU-2, 100, 100, 99, 1.0, 1, 0x80",
        "Unable to determine the device handle",
    )
    found = summary(filter(None, map(state, lines)), H100)
    assert found == {
        "looks": 2,
        "sm_mhz": [345, 1755],
        "memory_mhz": [2619, 2619],
        "temperature": 71,
        "power": 402.12,
        "used": 3500 << 20,
        "reasons": ["idle", "power cap", "thermal slowdown by hardware"],
    }
    assert summary([], H100) == {"looks": 0, "reasons": []}


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ("0x0000000000000000", ()),
        ("0x00000000000000A0", ("thermal slowdown by software", "power brake")),
        ("0x0000000000000400", ("others (0x0000000000000400)",)),
        ("[N/A]", ()),
    ],
)
def test_reasons_are_words(bits: str, words: tuple[str, ...]) -> None:
    assert reasons(bits) == words


@pytest.mark.parametrize(
    ("number", "visible", "uuid"),
    [
        (1, None, "GPU-22"),
        (2, None, None),
        (0, "1", "GPU-22"),
        (1, "1,0", "GPU-11"),
        (0, "GPU-2", "GPU-22"),
        (0, "MIG-5", None),
        (1, "0", None),
        (0, "", None),
    ],
)
def test_the_card_of_a_process_is_found(number: int, visible: str | None, uuid: str | None) -> None:
    found = card_used([{"uuid": "GPU-11"}, {"uuid": "GPU-22"}], number, visible)
    assert (found["uuid"] if found else None) == uuid
