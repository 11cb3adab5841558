"""The table of the time of each folder's tests: a row for every folder; old rows stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import times

PAGE = times.PAGE.read_text(encoding="utf-8")


def test_the_page_has_a_row_for_every_room_of_tests() -> None:
    assert list(times.rows_of(PAGE)) == times.folders(), "run python tests/times.py"


def test_what_is_written_is_read_again() -> None:
    rows = {"language": ("1,234", "75 s"), "text": ("", "")}
    assert times.rows_of(times.with_rows(PAGE, rows)) == rows


def test_all_but_the_table_stays() -> None:
    written = times.with_rows(PAGE, {})
    assert written.partition(times.START)[0] == PAGE.partition(times.START)[0]
    assert written.partition(times.END)[2] == PAGE.partition(times.END)[2]


@pytest.mark.parametrize("marker", [times.START, times.END])
def test_a_page_without_a_marker_is_an_error(marker: str) -> None:
    with pytest.raises(ValueError, match=f"lacks {marker.strip()}"):
        times.with_rows(PAGE.replace(marker, ""), {})


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (75.4, "75 s"), (130, "2 min")])
def test_a_time_has_two_digits(seconds: float, words: str) -> None:
    assert times.in_words(seconds) == words


def test_times_are_summed_by_room(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    case = '<testcase classname="tests.language.test_a.TestB" name="test_c" time="1.25"/>'
    report.write_text(f"<testsuites><testsuite>{case}{case}</testsuite></testsuites>")
    assert times.rows_in([report, report])["language"] == ("4", "5 s")
    assert times.rows_in([report])["text"] == ("0", "1 s")
    report.write_text(report.read_text().replace("/>", "><failure/></testcase>"))
    with pytest.raises(ValueError, match=r"language\.test_a\.TestB\.test_c failed"):
        times.rows_in([report])
