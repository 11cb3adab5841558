"""The values that a shell completes for ``differences``."""

from __future__ import annotations

from collections.abc import Iterable

import click

from harness.command.options import completers


def definitions(ctx: click.Context) -> Iterable[str]:
    """Those of which defaults are listed in which frameworks differ."""
    from harness.defaults.catalogue import catalogue, layers

    return layers(catalogue())


def compared(ctx: click.Context) -> Iterable[str]:
    """The frameworks of that list."""
    from harness.defaults.catalogue import catalogue, frameworks

    return frameworks(catalogue())


completers.update(definition=definitions, framework=compared)
