"""Shell completion for ``harness differences``: the values that a shell suggests."""

from __future__ import annotations

from collections.abc import Iterable

import click

from harness.command.options import completers


def definitions(ctx: click.Context) -> Iterable[str]:
    """Return the names of the layers, functions, losses and optimizers in the catalogue, as
    suggestions for the argument ``LAYER``."""
    from harness.defaults.catalogue import catalogue, layers

    return layers(catalogue())


def compared(ctx: click.Context) -> Iterable[str]:
    """Return the names of the frameworks in the catalogue, as suggestions for ``--between``."""
    from harness.defaults.catalogue import catalogue, frameworks

    return frameworks(catalogue())


completers.update(definition=definitions, framework=compared)
