"""The values that a shell suggests for each kind of option or argument of all commands. An import
of this module registers them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from harness.checking.options import SCHEMAS
from harness.command.options import completers
from harness.errors import HarnessError
from harness.runtime.paths import COMPILED_PATHS, KNOWN_DTYPES, PATHS

# Commands that accept different dtypes than other commands.
DTYPES_OF = {
    **dict.fromkeys(("bench", "train", "generate"), (*KNOWN_DTYPES, "tf32")),
    "run": ("float64", "float32"),
}
# Commands that accept further paths.
FURTHER = {
    "check": ("all",),
    "fuzz": COMPILED_PATHS,
    **dict.fromkeys(("bench", "train"), (*COMPILED_PATHS, "fastest")),
}
MODES = ("forward", "train")
TEXTS = ("builtin", "nietzsche")


def backends(ctx: click.Context) -> Iterable[str]:
    """Return the backends whose framework is installed, and the framework versions that are
    installed in environments, e.g. ``torch@2.6``."""
    from harness.environments import installed
    from harness.runtime.needs import missing_here
    from harness.runtime.plugins import available

    return [
        *(name for name in available() if name not in missing_here()),
        *installed.complete_environments(),
    ]


def formats(ctx: click.Context) -> Iterable[str]:
    """Return the names of the installed weight formats."""
    from harness.runtime.hookspecs import FORMATS_GROUP
    from harness.runtime.plugins import available

    return available(FORMATS_GROUP)


def models(ctx: click.Context) -> Iterable[str]:
    """Return the names of models, including models in the folders on the command line, and the YAML
    files in the current folder. For ``explain``, also return the names of all other definitions."""
    from harness.language.library import FOLDERS, Library

    library = Library(_existing_folders(ctx))
    kinds = FOLDERS if ctx.info_name == "explain" else ("model",)
    files = sorted(path.name for path in Path().glob("*.yaml") if path.is_file())
    return [*files, *(name for kind in kinds for name in library.names(kind))]


def checks(ctx: click.Context) -> Iterable[str]:
    """Return the names of all checks and of the findings (results) that checks report."""
    from harness.checking.checks import CHECKS, FINDINGS

    return dict.fromkeys((*CHECKS, *FINDINGS))


def sizes(ctx: click.Context) -> Iterable[str]:
    """Return the names of the sizes of the specs on the command line."""
    from harness.language.library import lesson6
    from harness.language.model import load_spec

    # During completion, click has not yet parsed all arguments; the rest is in ``ctx.args``.
    names = ctx.params.get("specs") or ctx.params.get("spec") or ctx.args or lesson6()
    size_names: dict[str, None] = {}
    for name in [names] if isinstance(names, str) else names:
        try:
            size_names.update(dict.fromkeys(load_spec(name, _existing_folders(ctx)).model.sizes))
        except HarnessError:
            continue  # the user is still typing; the command itself will report the error
    return [f"{size}=" for size in size_names]


def losses(ctx: click.Context) -> Iterable[str]:
    """Return the names of the shipped losses."""
    from harness.language.library import Library

    return Library(()).names("loss")


def environments(ctx: click.Context) -> Iterable[str]:
    """Return the names of the installed environments."""
    from harness.environments import installed

    return installed.complete_environments()


def definitions(ctx: click.Context) -> Iterable[str]:
    """Return the names of the layers, functions, losses and optimizers in the catalogue of
    defaults, as suggestions for the argument ``LAYER`` of ``differences``."""
    from harness.defaults.catalogue import catalogue, layers

    return layers(catalogue())


def compared_frameworks(ctx: click.Context) -> Iterable[str]:
    """Return the names of the frameworks in the catalogue of defaults, as suggestions for
    ``--between``."""
    from harness.defaults.catalogue import catalogue, frameworks

    return frameworks(catalogue())


def run_results(ctx: click.Context) -> Iterable[str]:
    """Return the values that a shell suggests for the option ``--want``. In the command ``run``,
    they are the names of a model's results; in the command ``upgrade``, they are kinds of
    comparison."""
    return ("numbers", "speed") if ctx.info_name == "upgrade" else ("outputs", "loss", "gradients")


def _existing_folders(ctx: click.Context) -> tuple[Path, ...]:
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
    device=lambda ctx: ("cpu", "cuda", "mps"),
    phase=lambda ctx: ("training", "inference"),
    cluster=lambda ctx: ("ray", "ray://"),
    environment=environments,
    loss=losses,
    schema=lambda ctx: SCHEMAS,
    want=run_results,
    definition=definitions,
    framework=compared_frameworks,
)
