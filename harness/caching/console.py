"""The command ``harness cache``."""

from __future__ import annotations

from harness.caching import noise_store
from harness.caching.compiled_code import archives
from harness.caching.options import CacheOptions
from harness.command.outcome import CommandResult
from harness.errors import UsageError, several
from harness.files.system import cache_folder
from harness.files.user_file import MIB, displayed


def run_cache(options: CacheOptions) -> CommandResult:
    """Show or delete the compiled code and the noise of earlier runs.

    Raises:
        UsageError: a file cannot be deleted.
    """
    found, (measured, noise_bytes) = archives(), noise_store.size()
    size = sum(path.stat().st_size for path in found)
    if options.clear:
        try:
            for path in found:
                path.unlink(missing_ok=True)
            noise_store.delete()
        except OSError as error:
            raise UsageError(
                f"cannot delete {displayed(error.filename)}: {error.strerror}"
            ) from None
    data = {
        "folder": str(cache_folder()),
        "archives": len(found),
        "bytes": size,
        "noise": {"entries": measured, "bytes": noise_bytes},
        "deleted": options.clear,
    }
    deleted = ", deleted" * options.clear
    lines = (
        f"{several(len(found), 'archive')} of compiled code, {size / MIB:,.1f} MiB{deleted}",
        f"{several(measured, 'noise measurement')}, {noise_bytes / MIB:,.1f} MiB{deleted}",
    )
    return CommandResult(data, f"{displayed(cache_folder())}:\n" + "\n".join(lines))
