"""Options of ``cache``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class CacheOptions:
    """Show the compiled code that checks keep for later runs, or delete it.

    The least recently used code is deleted at 1 GiB. 'check --fresh' does not use it.
    """

    clear: bool = option(False, "Delete all of it.")
    as_json: bool = shared.as_json()
