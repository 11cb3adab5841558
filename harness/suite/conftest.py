"""The suite's pytest configuration: it makes a test for each cell and check, and has the fixture
with the cells' results."""

from __future__ import annotations

import pytest

from harness.suite.cells import ENGINE, Cells, list_tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each planned cell and check. If pytest runs no tests, e.g. only shows its
    help, there are none."""
    engine = metafunc.config.stash.get(ENGINE, None)
    planned = list_tests(engine) if engine is not None else {}
    values = [pytest.param(*test_arguments, id=name) for name, test_arguments in planned.items()]
    metafunc.parametrize(("cell", "check"), values)


@pytest.fixture(scope="session")
def cells(request: pytest.FixtureRequest) -> Cells:
    """Return the results of the cells, which all tests of this session share."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [(c["cell"], c["check"]) for c in calls if "cell" in c and "check" in c]
    return Cells(request.config.stash[ENGINE], selected)
