"""The only test of the suite, which runs for every check of every cell."""

from __future__ import annotations

import pytest

from harness.output.printing import shown
from harness.results.cell import Cell
from harness.results.findings import PASSING
from harness.suite.cells import Cells


def test_check(cell: Cell, check: str, cells: Cells) -> None:
    """Fail if a check of a cell finds a difference. Skip the test if the check does not apply to
    the model or to the dtype."""
    findings = cells.findings(cell, check)
    if not findings:
        pytest.skip(f"{check} does not apply to {cell.spec} in {cell.dtype}")
    for finding in findings:
        if finding.verdict not in PASSING:
            place = cells.location(cell)
            text = f"{cell}\n{finding.check}: {finding.verdict}: {finding.detail}\n{place}"
            pytest.fail(shown(text.strip()), pytrace=False)
    for finding in findings:
        if finding.verdict in ("unsupported", "not-applicable"):
            pytest.skip(shown(finding.detail))
        if finding.verdict == "known-difference":
            pytest.xfail(shown(finding.detail))
