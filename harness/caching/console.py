"""The command ``harness cache``."""

from __future__ import annotations

from harness.caching.compiled_code import archives, root
from harness.caching.options import CacheOptions
from harness.command.outcome import CommandResult
from harness.errors import UsageError, several
from harness.files.user_file import MIB, displayed


def run_cache(options: CacheOptions) -> CommandResult:
    """Show or delete the compiled code of earlier runs.

    Raises:
        UsageError: a file cannot be deleted.
    """
    found = archives()
    size = sum(path.stat().st_size for path in found)
    if options.clear:
        try:
            for path in found:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"cannot delete {displayed(path)}: {error.strerror}") from None
    data = {"folder": str(root()), "archives": len(found), "bytes": size, "deleted": options.clear}
    text = f"{several(len(found), 'archive')} of compiled code, {size / MIB:,.1f} MiB"
    return CommandResult(data, f"{displayed(root())}: {text}{', deleted' * options.clear}")
