"""Options of ``cache``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class CacheOptions:
    """Show the compiled code and the measured noise that are kept for later runs, or delete them.

    The oldest code is deleted at 1 GiB, the oldest noise at 64 MiB. 'check --fresh' uses neither.
    """

    clear: bool = option(False, "Delete both.")
    as_json: bool = shared.as_json()
