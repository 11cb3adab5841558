"""What the tests of histories share, and those of users' models."""

from __future__ import annotations

import pytest
from history_runs import Run
from pristine import Pristine

from harness.runtime.own_model.service import OwnModelService
from harness.runtime.plugins import load


def _at(run: Run, patch: pytest.MonkeyPatch) -> None:
    """Its backends are installed, here and for workers."""
    patch.syspath_prepend(run.site)
    patch.setenv("PYTHONPATH", str(run.site))


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Pristine]:
    """A run that is complete, and known to be remembered."""
    run = Run(tmp_path_factory.mktemp("remembered"))
    with pytest.MonkeyPatch.context() as patch:
        _at(run, patch)
        assert len(run().ran) == 6
        assert run.report.exit_code == 0
        again = run()
    assert (again.ran, again.reasons, run.starts) == ([], [], 0)
    assert (run.report.exit_code, len(run.report.results)) == (0, 6)
    assert len(run.files) == 1, "a run that adds nothing leaves no file"
    return run, Pristine(run.folder)


@pytest.fixture
def run(remembered: tuple[Run, Pristine], monkeypatch: pytest.MonkeyPatch) -> Run:
    """That run, as it was when it was complete."""
    run, pristine = remembered
    pristine.restore()
    run.more = {}
    _at(run, monkeypatch)
    return run


@pytest.fixture(scope="module")
def torch_service() -> OwnModelService:
    """What opens models of users that are torch's."""
    return OwnModelService("torch", load("torch"))
