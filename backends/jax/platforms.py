"""Which of JAX's platforms a session starts, as the backends on JAX share it.

JAX starts all platforms that it finds when it is first asked for a device, and a started CUDA holds
a context on every card. So cards are counted without JAX, and a session of the CPU starts the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from harness.extend import UsageError, card_of, device_names

# What makes XLA add up in one order on a GPU, at the price of speed.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
DEVICES = Path("/dev")
_CARD = re.compile(r"nvidia\d+|dxg")


def devices() -> tuple[str, ...]:
    """The names for ``--device``, as the driver's files and the installed plugins tell."""
    plugins = [entry.name for entry in entry_points(group="jax_plugins")]
    nodes = [path.name for path in DEVICES.iterdir()]
    return device_names(cards(nodes, plugins, os.environ.get("CUDA_VISIBLE_DEVICES")))


def cards(nodes: Iterable[str], plugins: Iterable[str], visible: str | None) -> int:
    """How many cards JAX would find.

    Args:
        nodes: The files of ``/dev``: ``nvidia0``, or ``dxg`` under Windows.
        plugins: The platforms that are installed, of which CUDA's is one or not.
        visible: ``CUDA_VISIBLE_DEVICES``, None if it is not set.
    """
    count = sum(_CARD.fullmatch(node) is not None for node in nodes)
    if not any("cuda" in plugin for plugin in plugins):
        return 0
    if visible is None or not count:
        return count
    listed = [part.strip() for part in visible.split(",")]
    # CUDA sees those before the first that is none. A part of a card (MIG) has a name of its own.
    wrong = (i for i, part in enumerate(listed) if part in ("", "-1"))
    return min(next(wrong, len(listed)), len(listed))


def start(jax: Any, device: str) -> Any:
    """The device of JAX by its name for ``--device``; no other platform is started for it.

    Raises:
        UsageError: there is no such device.
    """
    offered, card = devices(), card_of(device)
    if device not in offered:
        raise UsageError(f"jax has no device {device!r} here; it has {', '.join(offered)}")
    before = jax.config.jax_platforms
    wanted = "cpu" if card is None else "cuda"
    if wanted not in (before or "").split(","):
        # The CPU stays beside a card: it makes constants.
        jax.config.update("jax_platforms", "cpu" if card is None else "cuda,cpu")
        if before:
            jax.extend.backend.clear_backends()
    found = jax.local_devices(backend=wanted)
    if (card or 0) >= len(found):
        raise UsageError(f"jax sees {len(found)} of the cards, and {device!r} is none of them")
    return found[card or 0]


def prepare(jax: Any, device: str, dtype: str) -> Any:
    """Start the device, which is returned, and set what decides the digits of a session.

    Raises:
        UsageError: there is no such device.
    """
    started = start(jax, device)
    # Only a float64 session may see 64-bit types: they would reach float32 sessions through the
    # bias correction of optax's Adam, a Python float to an integer power.
    jax.config.update("jax_enable_x64", dtype == "float64")
    # The default lets a GPU round the inputs of a product to TF32.
    precision = "tensorfloat32" if dtype == "tf32" else "highest"
    jax.config.update("jax_default_matmul_precision", precision)
    return started


def settings(jax: Any) -> Mapping[str, str]:
    """What :func:`prepare` has set, as JAX now tells it."""
    return {"matmul precision": str(jax.config.jax_default_matmul_precision)}


def deterministic(variables: Mapping[str, str]) -> Mapping[str, str]:
    """XLA's flag beside those that are set already."""
    flags = variables.get("XLA_FLAGS", "").split()
    return {"XLA_FLAGS": " ".join([*(f for f in flags if f != DETERMINISTIC), DETERMINISTIC])}


class PeakMemory:
    """The peak of a device's memory since it was last forgotten.

    JAX's own counts from the start of the process: it tells of what came later only where that was
    more.
    """

    def __init__(self) -> None:
        self._before = 0

    def forget(self, device: Any) -> None:
        """Count from now on."""
        self._before = _peak(device) or 0

    def told(self, device: Any) -> int | None:
        """Bytes; None if there is no memory of its own, or no more was used than before."""
        found = _peak(device)
        return found if found is not None and found > self._before else None


def _peak(device: Any) -> int | None:
    stats = device.memory_stats() if device is not None else None
    return (stats or {}).get("peak_bytes_in_use")
