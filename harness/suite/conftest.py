"""One test for each spec, dtype and check; the cells that they share."""

from __future__ import annotations

import pytest

from harness.check.checks import FINDINGS
from harness.suite.cells import ENGINE, Cells, identity


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The plan of the engine, check by check."""
    engine = metafunc.config.stash[ENGINE]
    parameters = [
        pytest.param(cell, check, id=f"{identity(cell)}-{check}")
        for cell in engine.cells()
        for check in FINDINGS
    ]
    metafunc.parametrize(("cell", "check"), parameters)


@pytest.fixture(scope="session")
def cells(request: pytest.FixtureRequest) -> Cells:
    """The cells of this session."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [(c["cell"], c["check"]) for c in calls if "cell" in c and "check" in c]
    return Cells(request.config.stash[ENGINE], selected)
