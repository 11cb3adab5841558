"""Start only the JAX platform that a session needs.

At the first request for a device, JAX starts all platforms that it finds. A started CUDA platform
holds a context on every card. This module therefore counts cards without JAX, and a CPU session
starts only the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from harness.extend import UsageError, card_of, device_names

# This flag makes XLA sum in a fixed order on a GPU, which costs speed.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
DEVICES = Path("/dev")
_CARD = re.compile(r"nvidia\d+|dxg")


def devices() -> tuple[str, ...]:
    """Return the names for ``--device``, from the driver's files and the installed plugins."""
    plugins = [entry.name for entry in entry_points(group="jax_plugins")]
    nodes = [path.name for path in DEVICES.iterdir()]
    return device_names(cards(nodes, plugins, os.environ.get("CUDA_VISIBLE_DEVICES")))


def cards(nodes: Iterable[str], plugins: Iterable[str], visible: str | None) -> int:
    """Return how many cards JAX would find.

    Args:
        nodes: The files of ``/dev``: ``nvidia0``, or ``dxg`` under Windows.
        plugins: The installed platforms, possibly including CUDA's.
        visible: ``CUDA_VISIBLE_DEVICES``, None if it is not set.
    """
    count = sum(_CARD.fullmatch(node) is not None for node in nodes)
    if not any("cuda" in plugin for plugin in plugins):
        return 0
    if visible is None or not count:
        return count
    listed = [part.strip() for part in visible.split(",")]
    # CUDA uses the entries before the first invalid one. A partition of a card (MIG) has its own
    # name.
    wrong = (i for i, part in enumerate(listed) if part in ("", "-1"))
    return min(next(wrong, len(listed)), len(listed))


def start(jax: Any, device: str) -> Any:
    """Start the platform of a device and return the JAX device by its name for ``--device``.

    Raises:
        UsageError: there is no such device.
    """
    offered, card = devices(), card_of(device)
    if device not in offered:
        raise UsageError(f"jax has no device {device!r} here; it has {', '.join(offered)}")
    before = jax.config.jax_platforms
    wanted = "cpu" if card is None else "cuda"
    if wanted not in (before or "").split(","):
        # The CPU stays available: it makes constants.
        jax.config.update("jax_platforms", "cpu" if card is None else "cuda,cpu")
        if before:
            jax.extend.backend.clear_backends()
    found = jax.local_devices(backend=wanted)
    if (card or 0) >= len(found):
        raise UsageError(f"jax sees {len(found)} of the cards, and {device!r} is none of them")
    return found[card or 0]


def prepare(jax: Any, device: str, dtype: str) -> Any:
    """Start a device and return it; set the precision of a session.

    Raises:
        UsageError: there is no such device.
    """
    started = start(jax, device)
    # Only a float64 session may have 64-bit types: in a float32 session the bias correction of
    # optax's Adam (a Python float to an integer power) would introduce them.
    jax.config.update("jax_enable_x64", dtype == "float64")
    # By default a GPU may round the inputs of a product to TF32.
    precision = "tensorfloat32" if dtype == "tf32" else "highest"
    jax.config.update("jax_default_matmul_precision", precision)
    return started


def settings(jax: Any) -> Mapping[str, str]:
    """Return the settings of :func:`prepare`, as JAX reports them."""
    return {"matmul precision": str(jax.config.jax_default_matmul_precision)}


def deterministic(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return ``XLA_FLAGS`` with the deterministic flag added."""
    flags = variables.get("XLA_FLAGS", "").split()
    return {"XLA_FLAGS": " ".join([*(f for f in flags if f != DETERMINISTIC), DETERMINISTIC])}


class PeakMemory:
    """The peak of a device's memory since the last :meth:`forget`. JAX counts from the start of the
    process, so only a peak above the earlier one is known."""

    def __init__(self) -> None:
        self._before = 0

    def forget(self, device: Any) -> None:
        """Restart the count."""
        self._before = _peak(device) or 0

    def told(self, device: Any) -> int | None:
        """Return the peak in bytes; None if it has not risen, or is not measured."""
        found = _peak(device)
        return found if found is not None and found > self._before else None


def _peak(device: Any) -> int | None:
    stats = device.memory_stats() if device is not None else None
    return (stats or {}).get("peak_bytes_in_use")
