"""Restoring JAX's configuration, which a backend changes for the whole process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

NAMES = ("jax_enable_x64", "jax_default_device", "jax_default_matmul_precision")


@contextlib.contextmanager
def kept_config() -> Iterator[None]:
    """Restore JAX's configuration at the end of this context."""
    kept = {name: getattr(jax.config, name) for name in NAMES}
    try:
        yield
    finally:
        for name, value in kept.items():
            jax.config.update(name, value)
