"""Options of ``new-backend``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class NewBackendOptions:
    """Write the package of a new backend to the folder harness-NAME.

    The package runs at once, with numpy in place of a framework. To add a framework, replace
    numpy's functions in one table. The package's tests are the harness's checks.
    """

    name: str = option(
        MISSING, "Name of the backend: letters, digits and _.", word="name", metavar="NAME"
    )
    graph: bool = option(False, "The framework builds graphs and compiles them, as PyTensor.")
    lazy: bool = option(False, "The framework computes a tensor when it is read, as MLX.")
    as_json: bool = shared.as_json()
