"""GPUs, as the driver's own tool nvidia-smi tells of them: what they are, and what they are doing.

It comes with every driver and needs no package; where there is none, there are no cards here.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SMI = "nvidia-smi"
PLAIN = "--format=csv,noheader"
# What a card is: the same in every run, so that results of two can be told apart by it.
FIELDS = (
    *("name", "uuid", "driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem"),
    *("mig.mode.current", "memory.total"),
)
# What it is doing: the reasons for its clocks last, whose name differs between drivers.
STATE = (
    *("uuid", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "memory.used"),
    "clocks_event_reasons.active",
)
OLD_REASONS = "clocks_throttle_reasons.active"
# Bits of nvmlDeviceGetCurrentClocksEventReasons, as nvml.h has them.
REASONS: Mapping[int, str] = {
    0x1: "idle",
    0x2: "clocks set by a user",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
# Those under which a speed is not that of the card as it is sold. At its power cap a card works as
# it is meant to.
SLOWED = frozenset(
    {
        *("hardware slowdown", "thermal slowdown by software", "thermal slowdown by hardware"),
        "power brake",
    }
)
SECONDS, BETWEEN = 20.0, 0.5


@dataclass(frozen=True)
class CardState:
    """One look at one card: MHz, degrees Celsius, watts, bytes; None for what it does not tell."""

    uuid: str
    sm: float | None
    memory: float | None
    temperature: float | None
    power: float | None
    used: int | None
    reasons: tuple[str, ...]


def cards() -> list[dict[str, str]]:
    """Name, UUID, driver, limits, MIG and memory of each GPU, with units; none without a driver."""
    rows = _rows([f"--query-gpu={','.join(FIELDS)}", PLAIN]) or []
    return [dict(zip(FIELDS, row, strict=False)) for row in rows]


def card_used(
    known: Sequence[Mapping[str, str]], number: int, visible: str | None
) -> Mapping[str, str] | None:
    """The card that a process has under a number; None if that cannot be told.

    Args:
        known: All of the machine, in the order of their numbers.
        number: That of ``cuda:N``.
        visible: ``CUDA_VISIBLE_DEVICES`` of the process, None if it is not set.
    """
    wanted = str(number)
    if visible is not None:
        listed = [part.strip() for part in visible.split(",")]
        wanted = listed[number] if number < len(listed) else ""
    if wanted.isdecimal():
        return known[int(wanted)] if int(wanted) < len(known) else None
    return next((card for card in known if wanted and card["uuid"].startswith(wanted)), None)


def processes(uuid: str) -> dict[int, int | None]:
    """Bytes of a card by the process that holds them, None for what the driver does not tell.

    In a container the numbers may be those of the machine outside.
    """
    rows = _rows(["--query-compute-apps=gpu_uuid,pid,used_memory", f"{PLAIN},nounits"]) or []
    own = (row[1:] for row in rows if len(row) == 3 and row[0] == uuid and row[1].isdecimal())
    return {int(pid): _bytes(used) for pid, used in own}


class Watch:
    """Looks at all cards twice a second, for as long as it is entered, through the driver: nothing
    runs on a card for it."""

    def __init__(self) -> None:
        self.states: list[CardState] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Watch:
        query = f"--query-gpu={','.join(_state_fields())}"
        command = [SMI, query, f"{PLAIN},nounits", f"--loop-ms={round(BETWEEN * 1000)}"]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.states += filter(None, map(state, lines))


def state(line: str) -> CardState | None:
    """A line of nvidia-smi about :data:`STATE`, without units; None for one that is none."""
    found = [part.strip() for part in line.split(",")]
    if len(found) != len(STATE):
        return None
    uuid, *numbers, used, bits = found
    sm, memory, temperature, power = map(_number, numbers)
    return CardState(uuid, sm, memory, temperature, power, _bytes(used), reasons(bits))


def reasons(bits: str) -> tuple[str, ...]:
    """Why the clocks are what they are, in words; nothing where the driver does not tell."""
    try:
        found = int(bits, 16)
    except ValueError:
        return ()
    known = tuple(text for bit, text in REASONS.items() if found & bit)
    return known if found < 2 * max(REASONS) else (*known, f"others ({bits})")


def summary(states: Iterable[CardState], uuid: str) -> dict[str, Any]:
    """What a card did while it was looked at: the range of its clocks in MHz, the most of its
    degrees, watts and bytes, and all reasons for its clocks."""
    own = [one for one in states if one.uuid == uuid]

    def values(name: str) -> list[Any]:
        return [value for one in own if (value := getattr(one, name)) is not None]

    clocks = {
        f"{name}_mhz": [min(found), max(found)]
        for name in ("sm", "memory")
        if (found := values(name))
    }
    most = {
        name: max(found) for name in ("temperature", "power", "used") if (found := values(name))
    }
    said = sorted({reason for one in own for reason in one.reasons})
    return {"looks": len(own), **clocks, **most, "reasons": said}


def _state_fields() -> Sequence[str]:
    """The fields of a state, as this driver names them."""
    for fields in (STATE, (*STATE[:-1], OLD_REASONS)):
        if _rows([f"--query-gpu={','.join(fields)}", PLAIN]) is not None:
            return fields
    return STATE


def _rows(arguments: Sequence[str]) -> list[list[str]] | None:
    """The table that nvidia-smi prints; None where it is not there or refuses."""
    try:
        done = subprocess.run(
            [SMI, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return [[part.strip() for part in line.split(",")] for line in lines]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None


def _bytes(text: str) -> int | None:
    found = _number(text)
    return None if found is None else round(found) << 20
