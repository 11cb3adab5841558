"""A fixture that runs a test twice: with the code for Linux, and with the code for other POSIX
systems. A mark for tests of what only Linux offers."""

from __future__ import annotations

import pytest

from harness.files import system as facts

linux_only = pytest.mark.skipif(not facts.LINUX, reason="of a feature that only Linux has")


@pytest.fixture(params=["native", facts.PORTABLE])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The code that this process and the processes that it starts use."""
    if request.param == facts.PORTABLE:
        monkeypatch.setenv(facts.VARIABLE, facts.PORTABLE)
        monkeypatch.setattr(facts, "LINUX", False)
    return str(request.param)
