"""What makes ``pytest --pyargs harness.suite`` know its options, and nobody else's pytest.

pytest loads this file in every session of an environment that has the harness; it stays out of
all of them but those that name the suite, so that the options can have short names.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

SUITE = ("harness.suite", "harness/suite")


def pytest_load_initial_conftests(early_config: pytest.Config, args: Sequence[str]) -> None:
    """Add the options where the suite is among the arguments."""
    if any(name in argument for name in SUITE for argument in args):
        early_config.pluginmanager.import_plugin("harness.suite.options")
