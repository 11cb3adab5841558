"""The start of JAX on the platform (CPU or CUDA) that a session needs, without starting the other
platform.

By default, JAX starts all installed platforms, and the CUDA platform then uses memory on every GPU.
This module therefore counts GPUs without JAX.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from harness.extend import COMPILED_CODE, UsageError, card_of, device_names

# With this flag, XLA sums in a fixed order on a GPU, which is slower.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
DEVICES = Path("/dev")
_CARD = re.compile(r"nvidia\d+|dxg")


def devices() -> tuple[str, ...]:
    """Return the device names that ``--device`` accepts. GPUs are found from device files and from
    the installed JAX plugins, without starting JAX."""
    plugins = [entry.name for entry in entry_points(group="jax_plugins")]
    nodes = [path.name for path in DEVICES.iterdir()]
    return device_names(gpu_count(nodes, plugins, os.environ.get("CUDA_VISIBLE_DEVICES")))


def gpu_count(nodes: Iterable[str], plugins: Iterable[str], visible: str | None) -> int:
    """Return the number of GPUs that JAX would find, without starting JAX.

    Args:
        nodes: The names of files in ``/dev``: ``nvidia0``, or ``dxg`` under Windows.
        plugins: The names of the installed platform plugins of JAX.
        visible: The variable ``CUDA_VISIBLE_DEVICES``; None if it is not set.
    """
    count = sum(_CARD.fullmatch(node) is not None for node in nodes)
    if not any("cuda" in plugin for plugin in plugins):
        return 0
    if visible is None or not count:
        return count
    listed = [part.strip() for part in visible.split(",")]
    # CUDA ignores the first invalid entry and all entries after it. A partition of a GPU (MIG)
    # counts as a GPU.
    wrong = (i for i, part in enumerate(listed) if part in ("", "-1"))
    return min(next(wrong, len(listed)), len(listed))


def start(jax: Any, device: str) -> Any:
    """Start JAX on the platform (CPU or CUDA) of a device. Return the JAX device for ``device``, a
    value of ``--device``.

    Raises:
        UsageError: JAX has no such device.
    """
    offered, card = devices(), card_of(device)
    if device not in offered:
        raise UsageError(f"jax has no device {device!r} here; it has {', '.join(offered)}")
    before = jax.config.jax_platforms
    platform = "cpu" if card is None else "cuda"
    if platform not in (before or "").split(","):
        # Keep the CPU available, because constants are made there.
        jax.config.update("jax_platforms", "cpu" if card is None else "cuda,cpu")
        if before:
            jax.extend.backend.clear_backends()
    local_devices = jax.local_devices(backend=platform)
    if (card or 0) >= len(local_devices):
        raise UsageError(f"jax can use {len(local_devices)} of the GPUs, but not {device!r}")
    return local_devices[card or 0]


def prepare(jax: Any, device: str, dtype: str) -> Any:
    """Start JAX on a device, and set the precision that ``dtype`` needs; return the JAX device.

    Raises:
        UsageError: JAX has no such device.
    """
    started = start(jax, device)
    # Allow 64-bit types only in a float64 session. In a float32 session the bias correction of
    # optax's Adam (a Python float to an integer power) would otherwise produce them.
    jax.config.update("jax_enable_x64", dtype == "float64")
    # By default JAX may round the inputs of a product to TF32 on a GPU.
    precision = "tensorfloat32" if dtype == "tf32" else "highest"
    jax.config.update("jax_default_matmul_precision", precision)
    return started


def settings(jax: Any) -> Mapping[str, str]:
    """Return a dictionary of the settings that :func:`prepare` has made, e.g. of the precision,
    with the values that JAX reports."""
    return {"matmul precision": str(jax.config.jax_default_matmul_precision)}


def keep_compiled_code(jax: Any) -> None:
    """Let JAX keep compiled code in the folder that the harness gives, if the user has set no
    folder."""
    folder = os.environ.get(COMPILED_CODE)
    if folder is None or jax.config.jax_compilation_cache_dir is not None:
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    # Keep all code, because checks compile many small functions.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # Caches of XLA itself would make the folder's path a part of each key.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    from jax.experimental.compilation_cache import compilation_cache

    # If JAX has compiled before, it does not look at the folder again.
    compilation_cache.reset_cache()


def deterministic(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment variable ``XLA_FLAGS`` with the flag that makes operations
    deterministic. Flags that it has in ``variables`` are kept."""
    return _with_flag(variables, DETERMINISTIC)


def instruction_sets(variables: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Return ``XLA_FLAGS`` with the flag that limits XLA to an instruction set, by the name of the
    set. Flags that it has in ``variables`` are kept."""
    sets = {"sse4": "SSE4_2", "avx2": "AVX2"}
    return {n: _with_flag(variables, f"--xla_cpu_max_isa={isa}") for n, isa in sets.items()}


def _with_flag(variables: Mapping[str, str], flag: str) -> Mapping[str, str]:
    flags = variables.get("XLA_FLAGS", "").split()
    return {"XLA_FLAGS": " ".join([*(f for f in flags if f != flag), flag])}


class PeakMemory:
    """The peak memory of a device since the last :meth:`forget`.

    JAX reports only the peak since the start of the process. If the peak since :meth:`forget` is
    lower than an earlier peak, it is unknown.
    """

    def __init__(self) -> None:
        self._before = 0

    def forget(self, device: Any) -> None:
        """Start a new measurement of peak memory."""
        self._before = _peak(device) or 0

    def peak_bytes(self, device: Any) -> int | None:
        """Return the peak in bytes since the last :meth:`forget`. Return None if it is unknown,
        because it is not above an earlier peak."""
        peak = _peak(device)
        return peak if peak is not None and peak > self._before else None


def _peak(device: Any) -> int | None:
    stats = device.memory_stats() if device is not None else None
    return (stats or {}).get("peak_bytes_in_use")
