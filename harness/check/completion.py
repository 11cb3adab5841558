"""The values that a shell completes: of options and arguments, by their kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from harness.options import completers

DTYPES = ("float64", "float32", "bfloat16", "float16", "tf32")
PATHS = ("native", "equations", "derived", "compiled", "native-compiled", "fastest", "all")
MODES = ("forward", "train")
TEXTS = ("builtin", "nietzsche")


def backends(ctx: click.Context) -> Iterable[str]:
    """Those that are installed, and the versions of which there are environments."""
    from harness.environments import cache
    from harness.runtime.plugins import available

    return [*available(), *cache.kept()]


def formats(ctx: click.Context) -> Iterable[str]:
    """Those that are installed."""
    from harness.runtime.hookspecs import FORMATS_GROUP
    from harness.runtime.plugins import available

    return available(FORMATS_GROUP)


def models(ctx: click.Context) -> Iterable[str]:
    """Models by name, also of folders given before; for ``explain``, all other definitions."""
    from harness.spec.library import FOLDERS, Library

    folders = [Path(f) for f in ctx.params.get("folders") or () if Path(f).is_dir()]
    library = Library(tuple(folders))
    kinds = FOLDERS if ctx.info_name == "explain" else ("model",)
    return [name for kind in kinds for name in library.names(kind)]


def checks(ctx: click.Context) -> Iterable[str]:
    """Checks and findings."""
    from harness.check.checks import CHECKS, FINDINGS

    return dict.fromkeys((*CHECKS, *FINDINGS))


def sizes(ctx: click.Context) -> Iterable[str]:
    """The sizes of the specs that were given before."""
    from harness.spec.library import lesson6
    from harness.spec.model import load_spec

    given = ctx.params.get("specs") or ctx.params.get("spec") or lesson6()
    names = [given] if isinstance(given, str) else given
    found = dict.fromkeys(size for name in names for size in load_spec(name, ()).model.sizes)
    return [f"{size}=" for size in found]


completers.update(
    backend=backends,
    format=formats,
    model=models,
    check=checks,
    size=sizes,
    dtype=lambda ctx: DTYPES,
    path=lambda ctx: PATHS,
    mode=lambda ctx: MODES,
    text=lambda ctx: TEXTS,
    device=lambda ctx: ("cpu", "cuda"),
    want=lambda ctx: ("outputs", "loss", "gradients"),
)
