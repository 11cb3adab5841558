"""The values that a shell completes for options and arguments, by their kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from harness.checking.options import SCHEMAS
from harness.command.options import completers
from harness.errors import HarnessError
from harness.runtime.paths import COMPILED_PATHS, KNOWN_DTYPES, PATHS

# Commands with dtypes of their own.
DTYPES_OF = {
    **dict.fromkeys(("bench", "train", "generate"), (*KNOWN_DTYPES, "tf32")),
    "run": ("float64", "float32"),
}
# Additional paths of some commands.
FURTHER = {"check": ("all",), **dict.fromkeys(("bench", "train"), (*COMPILED_PATHS, "fastest"))}
MODES = ("forward", "train")
TEXTS = ("builtin", "nietzsche")


def backends(ctx: click.Context) -> Iterable[str]:
    """Return the backends whose framework is installed, and the environments' versions."""
    from harness.environments import cache
    from harness.runtime.needs import own
    from harness.runtime.plugins import available

    return [*(name for name in available() if name not in own()), *cache.kept()]


def formats(ctx: click.Context) -> Iterable[str]:
    """Return the installed formats."""
    from harness.runtime.hookspecs import FORMATS_GROUP
    from harness.runtime.plugins import available

    return available(FORMATS_GROUP)


def models(ctx: click.Context) -> Iterable[str]:
    """Return the models by name, also of the given folders, and the YAML files of this folder. For
    ``explain``, also all other definitions."""
    from harness.language.library import FOLDERS, Library

    library = Library(_folders(ctx))
    kinds = FOLDERS if ctx.info_name == "explain" else ("model",)
    files = sorted(path.name for path in Path().glob("*.yaml") if path.is_file())
    return [*files, *(name for kind in kinds for name in library.names(kind))]


def checks(ctx: click.Context) -> Iterable[str]:
    """Return the names of all checks and findings."""
    from harness.checking.checks import CHECKS, FINDINGS

    return dict.fromkeys((*CHECKS, *FINDINGS))


def sizes(ctx: click.Context) -> Iterable[str]:
    """Return the sizes of the specs on the command line."""
    from harness.language.library import lesson6
    from harness.language.model import load_spec

    # Before the option's value is complete, click leaves the earlier arguments unread.
    given = ctx.params.get("specs") or ctx.params.get("spec") or ctx.args or lesson6()
    found: dict[str, None] = {}
    for name in [given] if isinstance(given, str) else given:
        try:
            found.update(dict.fromkeys(load_spec(name, _folders(ctx)).model.sizes))
        except HarnessError:
            continue  # the command reports the error; here the user is still typing
    return [f"{size}=" for size in found]


def environments(ctx: click.Context) -> Iterable[str]:
    """Return the environments that are kept."""
    from harness.environments import cache

    return cache.kept()


def wanted(ctx: click.Context) -> Iterable[str]:
    """Return the results that a run can return; for an upgrade, the comparisons."""
    return ("numbers", "speed") if ctx.info_name == "upgrade" else ("outputs", "loss", "gradients")


def _folders(ctx: click.Context) -> tuple[Path, ...]:
    return tuple(Path(f) for f in ctx.params.get("folders") or () if Path(f).is_dir())


completers.update(
    backend=backends,
    format=formats,
    model=models,
    check=checks,
    size=sizes,
    dtype=lambda ctx: DTYPES_OF.get(ctx.info_name or "", KNOWN_DTYPES),
    path=lambda ctx: (*PATHS, *FURTHER.get(ctx.info_name or "", ())),
    mode=lambda ctx: MODES,
    text=lambda ctx: TEXTS,
    device=lambda ctx: ("cpu", "cuda"),
    phase=lambda ctx: ("training", "inference"),
    cluster=lambda ctx: ("ray", "ray://"),
    environment=environments,
    schema=lambda ctx: SCHEMAS,
    want=wanted,
)
