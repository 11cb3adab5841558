"""Parametrisation of the suite's test by cell and check, and the fixture with the cells."""

from __future__ import annotations

import pytest

from harness.suite.cells import ENGINE, Cells, list_tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise the test with the planned cells and checks. The list is empty if the session has
    no engine, because pytest runs no tests."""
    engine = metafunc.config.stash.get(ENGINE, None)
    planned = list_tests(engine) if engine is not None else {}
    values = [pytest.param(*test_arguments, id=name) for name, test_arguments in planned.items()]
    metafunc.parametrize(("cell", "check"), values)


@pytest.fixture(scope="session")
def cells(request: pytest.FixtureRequest) -> Cells:
    """Return the cells of this session."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [(c["cell"], c["check"]) for c in calls if "cell" in c and "check" in c]
    return Cells(request.config.stash[ENGINE], selected)
