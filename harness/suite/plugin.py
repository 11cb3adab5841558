"""Plugin that adds the suite's options to ``pytest --pyargs harness.suite`` only.

pytest loads this file in every session. The options have short names, so other sessions must not
get them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

SUITE = ("harness.suite", "harness/suite")


def pytest_load_initial_conftests(early_config: pytest.Config, args: Sequence[str]) -> None:
    """Add the options if the suite is among the arguments."""
    if any(name in argument for name in SUITE for argument in args):
        early_config.pluginmanager.import_plugin("harness.suite.options")
