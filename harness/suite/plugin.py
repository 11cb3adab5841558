"""A pytest plugin that adds the suite's options if the command line has ``--pyargs harness.suite``.

pytest loads this file in every session. In other sessions, the suite's short option names could
collide with the options of other plugins.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

SUITE = ("harness.suite", "harness/suite")


def pytest_load_initial_conftests(early_config: pytest.Config, args: Sequence[str]) -> None:
    """Add the suite's options if the command line ``args`` names the suite."""
    if any(name in argument for name in SUITE for argument in args):
        early_config.pluginmanager.import_plugin("harness.suite.options")
