"""Names and states of GPUs, from nvidia-smi, which is part of every NVIDIA driver.

If nvidia-smi is missing, the functions assume that this machine has no NVIDIA GPUs.
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
# The fields that identify a GPU. They never change, so they distinguish the results of two GPUs.
FIELDS = (
    *("name", "uuid", "driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem"),
    *("mig.mode.current", "memory.total"),
)
# The fields that describe a GPU's activity. The clock reasons come last, because their field has
# another name in older drivers.
STATE = (
    *("uuid", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "memory.used"),
    "clocks_event_reasons.active",
)
OLD_REASONS = "clocks_throttle_reasons.active"
# The bits of nvmlDeviceGetCurrentClocksEventReasons, from nvml.h.
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
# The reasons that make a GPU slower than specified. A power cap is normal operation.
SLOWED = frozenset(
    {
        *("hardware slowdown", "thermal slowdown by software", "thermal slowdown by hardware"),
        "power brake",
    }
)
SECONDS, BETWEEN = 20.0, 0.5


@dataclass(frozen=True)
class CardState:
    """The state of a GPU at one moment: the clock rates ``sm`` (of the processors) and ``memory``
    in MHz, the temperature in degrees Celsius, the power in watts, and the ``used`` memory in
    bytes.

    ``reasons`` say why the clock rate is lowered, e.g. "power cap". A value that the GPU does not
    report is None.
    """

    uuid: str
    sm: float | None
    memory: float | None
    temperature: float | None
    power: float | None
    used: int | None
    reasons: tuple[str, ...]


def cards() -> list[dict[str, str]]:
    """Return a dictionary for each GPU, with name, UUID, driver, limits, MIG mode and memory as
    text with units. The keys are nvidia-smi's names."""
    rows = _rows([f"--query-gpu={','.join(FIELDS)}", PLAIN]) or []
    return [dict(zip(FIELDS, row, strict=False)) for row in rows]


def card_used(
    cards_known: Sequence[Mapping[str, str]], number: int, visible: str | None
) -> Mapping[str, str] | None:
    """Return nvidia-smi's description of the GPU that a process uses as ``cuda:N``; return None if
    it is unknown.

    Args:
        cards_known: All GPUs of the machine, in the order of their numbers.
        number: The number N in ``cuda:N``.
        visible: ``CUDA_VISIBLE_DEVICES`` of the process, None if it is not set.
    """
    name = str(number)
    if visible is not None:
        names = [part.strip() for part in visible.split(",")]
        name = names[number] if number < len(names) else ""
    if name.isdecimal():
        return cards_known[int(name)] if int(name) < len(cards_known) else None
    return next((card for card in cards_known if name and card["uuid"].startswith(name)), None)


def processes(uuid: str) -> dict[int, int | None]:
    """Return a dictionary from process id to the bytes that the process holds in a GPU's memory.
    The bytes are None if the driver does not report them.

    In a container, the process ids may be those of the host, and differ from the ids in the
    container.
    """
    rows = _rows(["--query-compute-apps=gpu_uuid,pid,used_memory", f"{PLAIN},nounits"]) or []
    own = (row[1:] for row in rows if len(row) == 3 and row[0] == uuid and row[1].isdecimal())
    return {int(pid): _bytes(used) for pid, used in own}


class Watch:
    """A context manager during which nvidia-smi records the states of all GPUs twice a second, in
    the list ``states``.

    The recording puts no load on the GPUs.
    """

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
    """Return the state of a GPU from a line that nvidia-smi printed; return None if the line is of
    another kind.

    The line has the fields :data:`STATE`, without units.
    """
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(STATE):
        return None
    uuid, *numbers, used, bits = parts
    sm, memory, temperature, power = map(_number, numbers)
    return CardState(uuid, sm, memory, temperature, power, _bytes(used), reasons(bits))


def reasons(bits: str) -> tuple[str, ...]:
    """Return the reasons why a GPU lowers its clock rate, as texts, e.g. "power cap"; empty if
    there are none.

    ``bits`` is a hexadecimal number from nvidia-smi. Each bit stands for one reason.
    """
    try:
        mask = int(bits, 16)
    except ValueError:
        return ()
    texts = tuple(text for bit, text in REASONS.items() if mask & bit)
    return texts if mask < 2 * max(REASONS) else (*texts, f"others ({bits})")


def summary(states: Iterable[CardState], uuid: str) -> dict[str, Any]:
    """Summarize ``states``, the states of all GPUs, for the GPU with the identifier ``uuid``.

    The keys of the result are ``looks`` (the number of states), ``sm_mhz`` and ``memory_mhz`` (the
    lowest and the highest clock rate), ``temperature``, ``power`` and ``used`` (maxima), and
    ``reasons`` for lower clock rates.
    """
    own_states = [card_state for card_state in states if card_state.uuid == uuid]

    def values(name: str) -> list[Any]:
        return [
            value for card_state in own_states if (value := getattr(card_state, name)) is not None
        ]

    clocks = {
        f"{name}_mhz": [min(found), max(found)]
        for name in ("sm", "memory")
        if (found := values(name))
    }
    most = {
        name: max(found) for name in ("temperature", "power", "used") if (found := values(name))
    }
    all_reasons = sorted({reason for card_state in own_states for reason in card_state.reasons})
    return {"looks": len(own_states), **clocks, **most, "reasons": all_reasons}


def _state_fields() -> Sequence[str]:
    """Return the names of the fields of a state. An old driver has another name for one of them."""
    for fields in (STATE, (*STATE[:-1], OLD_REASONS)):
        if _rows([f"--query-gpu={','.join(fields)}", PLAIN]) is not None:
            return fields
    return STATE


def _rows(arguments: Sequence[str]) -> list[list[str]] | None:
    """Run nvidia-smi with these arguments, and return the table that it prints; return None if
    nvidia-smi is missing or fails."""
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
    mebibytes = _number(text)
    return None if mebibytes is None else round(mebibytes) << 20
