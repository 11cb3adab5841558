"""Shell completion for ``differences``."""

from __future__ import annotations

from collections.abc import Iterable

import click

from harness.command.options import completers


def definitions(ctx: click.Context) -> Iterable[str]:
    """Return the names of layers and the like that the catalogue covers."""
    from harness.defaults.catalogue import catalogue, layers

    return layers(catalogue())


def compared(ctx: click.Context) -> Iterable[str]:
    """Return the frameworks in the catalogue."""
    from harness.defaults.catalogue import catalogue, frameworks

    return frameworks(catalogue())


completers.update(definition=definitions, framework=compared)
