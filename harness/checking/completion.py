"""The values that a shell completes: of options and arguments, by their kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from harness.command.options import completers
from harness.errors import HarnessError
from harness.runtime.paths import COMPILED_PATHS, KNOWN_DTYPES, PATHS

# Commands that take others than these.
DTYPES_OF = {
    **dict.fromkeys(("bench", "train", "generate"), (*KNOWN_DTYPES, "tf32")),
    "run": ("float64", "float32"),
}
# Paths that commands take beside those of all.
FURTHER = {"check": ("all",), **dict.fromkeys(("bench", "train"), (*COMPILED_PATHS, "fastest"))}
MODES = ("forward", "train")
TEXTS = ("builtin", "nietzsche")


def backends(ctx: click.Context) -> Iterable[str]:
    """Those that are installed with their framework, and the versions of which there are
    environments."""
    from harness.environments import cache
    from harness.runtime.needs import own
    from harness.runtime.plugins import available

    return [*(name for name in available() if name not in own()), *cache.kept()]


def formats(ctx: click.Context) -> Iterable[str]:
    """Those that are installed."""
    from harness.runtime.hookspecs import FORMATS_GROUP
    from harness.runtime.plugins import available

    return available(FORMATS_GROUP)


def models(ctx: click.Context) -> Iterable[str]:
    """Models by name, also of folders given before, and specs that lie in this folder; for
    ``explain``, all other definitions."""
    from harness.language.library import FOLDERS, Library

    library = Library(_folders(ctx))
    kinds = FOLDERS if ctx.info_name == "explain" else ("model",)
    files = sorted(path.name for path in Path().glob("*.yaml") if path.is_file())
    return [*files, *(name for kind in kinds for name in library.names(kind))]


def checks(ctx: click.Context) -> Iterable[str]:
    """Checks and findings."""
    from harness.checking.checks import CHECKS, FINDINGS

    return dict.fromkeys((*CHECKS, *FINDINGS))


def sizes(ctx: click.Context) -> Iterable[str]:
    """The sizes of the specs that were given before."""
    from harness.language.library import lesson6
    from harness.language.model import load_spec

    # Where the option's value is still to come, click leaves the arguments before it unread.
    given = ctx.params.get("specs") or ctx.params.get("spec") or ctx.args or lesson6()
    found: dict[str, None] = {}
    for name in [given] if isinstance(given, str) else given:
        try:
            found.update(dict.fromkeys(load_spec(name, _folders(ctx)).model.sizes))
        except HarnessError:
            continue  # the command says what is wrong with it; here the user is still typing
    return [f"{size}=" for size in found]


def environments(ctx: click.Context) -> Iterable[str]:
    """Those that are kept."""
    from harness.environments import cache

    return cache.kept()


def wanted(ctx: click.Context) -> Iterable[str]:
    """Results of a run; of an upgrade, what is compared."""
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
    want=wanted,
)
