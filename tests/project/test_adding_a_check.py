"""docs/adding-a-check.md names the places of a check, and these places name only known checks."""

from __future__ import annotations

import re

import pytest
from places import DOCS, ROOT

from harness.checking import blame, first_difference, reproducer
from harness.checking.causes import find
from harness.checking.changes import ONLY_WHERE_WRONG
from harness.checking.checks import CHECKS, FINDINGS, TABLE
from harness.checking.own_model import check_table as own_model
from harness.checking.request import HUGE_CHECKS, QUICK
from harness.demo import console as demo
from harness.porting import proof
from harness.results.findings import MEASURING, WHOLE_STEPS

PAGE = (DOCS / "adding-a-check.md").read_text(encoding="utf-8")
# Findings of the harness itself, before the first check or in place of a check.
NO_CHECKS = {"oracle", "start", "open", "harness"}


def test_the_files_of_the_page_exist() -> None:
    files = set(re.findall(r"`((?:harness|docs|tests)/[a-z_/-]+\.(?:py|md))`", PAGE))
    assert len(files) > 10
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []


def test_names_of_checks_and_of_findings_are_unique() -> None:
    assert len(CHECKS) == len(TABLE)
    assert len(FINDINGS) == sum(len(check.findings) or 1 for check in TABLE)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(HUGE_CHECKS, id="huge"),
        pytest.param(QUICK["checks"], id="quick"),
        pytest.param(own_model.CHECKS, id="own-model"),
        pytest.param(demo.CHECKS, id="demo"),
        pytest.param((find.REPEATABILITY, find.LARGE, find.PRIMITIVES), id="causes"),
    ],
)
def test_a_place_names_only_known_checks(names: tuple[str, ...]) -> None:
    assert set(names) <= set(CHECKS)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(MEASURING, id="measuring"),
        pytest.param((WHOLE_STEPS,), id="whole-steps"),
        pytest.param(reproducer.MATERIALS, id="reproducer"),
        pytest.param(first_difference.FORWARD, id="forward"),
        pytest.param(first_difference.BACKWARD, id="backward"),
        pytest.param(first_difference.UPDATE, id="update"),
        pytest.param(blame.TRAINING, id="blame"),
        pytest.param(find.INFERENCE + find.TRAINING, id="causes"),
        pytest.param(find.OTHER_ARGUMENTS, id="other-arguments"),
        pytest.param(proof.ITEMS, id="port"),
    ],
)
def test_a_place_names_only_known_findings(names: tuple[str, ...]) -> None:
    assert set(names) <= set(FINDINGS)


def test_findings_that_exist_only_after_an_error_are_known() -> None:
    assert set(ONLY_WHERE_WRONG) <= {*CHECKS, *FINDINGS, *NO_CHECKS}
