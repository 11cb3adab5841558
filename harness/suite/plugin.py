"""A pytest plugin that adds the suite's options only if the command line has ``--pyargs
harness.suite``. pytest loads this file in every session, and the options have short names. In other
sessions they could collide with other options."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

SUITE = ("harness.suite", "harness/suite")


def pytest_load_initial_conftests(early_config: pytest.Config, args: Sequence[str]) -> None:
    """Add the suite's options if the suite is among the arguments of pytest."""
    if any(name in argument for name in SUITE for argument in args):
        early_config.pluginmanager.import_plugin("harness.suite.options")
