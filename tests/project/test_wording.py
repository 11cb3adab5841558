"""Sentences in ``wording.json``: what a rewritten one does, and how entries are renewed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import wording as mechanism

pytest_plugins = ["pytester"]

TEST = """
import pytest

def fail(found):
    raise ValueError(f"x.yaml:3:4: found {found} after 1.25 s\\nallowed: 1 to 4")

@pytest.mark.parametrize("found", [5, 6])
def test_error(found, wording):
    with wording.raises(ValueError, f"x.yaml:3:4 ... {found} ... 4"):
        fail(found)

def test_line(wording, tmp_path):
    wording.line(f"first\\nsecond {tmp_path}/a 2\\nlast", "2")

def test_without_sentence():
    pass
"""
ENTRIES = {
    "test_a.py": {
        "test_error[5]": ["x.yaml:3:4: found 5 after # s", "allowed: 1 to 4"],
        "test_error[6]": ["x.yaml:3:4: found 6 after # s", "allowed: 1 to 4"],
        "test_line": ["second TMP/a 2"],
    }
}


class Folder:
    """A folder with one file of tests and its entries."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.test(TEST)
        self.write(ENTRIES)

    def test(self, text: str) -> None:
        self.pytester.makepyfile(test_a=text)

    @property
    def path(self) -> Path:
        return self.pytester.path / mechanism.FILE

    def write(self, entries: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(entries))

    def read(self) -> Any:
        return json.loads(self.path.read_text())

    def run(self, *arguments: str) -> tuple[int, str]:
        command = ["-p", "wording", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
        result = self.pytester.runpytest_inprocess(*command)
        return int(result.ret), result.stdout.str() + result.stderr.str()


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Folder:
    return Folder(pytester)


def test_entries_that_are_right_pass_also_in_part(folder: Folder) -> None:
    assert folder.run()[0] == 0
    assert folder.run("test_a.py::test_line")[0] == 0
    assert folder.run("-k", "error and 5")[0] == 0


@pytest.mark.parametrize("arguments", [(), ("-n", "2")])
def test_renewed_entries_are_written(folder: Folder, arguments: tuple[str, ...]) -> None:
    folder.path.unlink()
    code, output = folder.run()
    assert code == 1
    assert "--renew-wording" in output
    code, output = folder.run("--renew-wording", *arguments)
    assert code == 0, output
    assert folder.read() == ENTRIES


def test_a_rewritten_sentence_fails_until_it_is_renewed(folder: Folder) -> None:
    folder.test(TEST.replace("allowed: 1", "permitted: 1"))
    code, output = folder.run()
    assert code == 1
    assert "-allowed: 1 to 4" in output
    assert "+permitted: 1 to 4" in output
    assert folder.run("--renew-wording", "-k", "5")[0] == 0
    found = folder.read()["test_a.py"]
    assert found["test_error[5]"][1] == "permitted: 1 to 4"
    assert found["test_error[6]"][1] == "allowed: 1 to 4"


def test_a_fact_that_is_missing_fails_also_while_entries_are_renewed(folder: Folder) -> None:
    folder.test(TEST.replace("x.yaml:3:4: found", "x.yaml:3:5: found"))
    assert folder.run()[0] == 1
    assert folder.run("--renew-wording")[0] == 1
    assert folder.read() == ENTRIES


def test_facts_count_in_their_order() -> None:
    assert mechanism.spans("b is 2, a is 1", "a ... 1") == (8, 14)
    assert mechanism.spans("b is 2, a is 1", "a ... 2") is None


@pytest.mark.parametrize(
    "entries",
    [
        {"test_a.py": {**ENTRIES["test_a.py"], "test_gone": ["a"]}},
        {"test_a.py": {**ENTRIES["test_a.py"], "test_without_sentence": ["a"]}},
        {**ENTRIES, "test_gone.py": {"test_gone": ["a"]}},
    ],
)
def test_an_entry_that_no_test_uses_is_an_error(folder: Folder, entries: dict[str, Any]) -> None:
    folder.write(entries)
    code, output = folder.run()
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "no test uses the entries" in output
    assert folder.run("test_a.py::test_line")[0] == 0
    assert folder.run("--renew-wording")[0] == 0
    assert folder.read() == ENTRIES


def test_lines_that_a_test_no_longer_sees_are_an_error(folder: Folder) -> None:
    more = {**ENTRIES["test_a.py"], "test_line": ["second TMP/a 2", "another line"]}
    folder.write({"test_a.py": more})
    code, output = folder.run()
    assert code == 1
    assert "no longer sees ['another line']" in output


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1.25 s, 3 s of 40 min", "# s, # s of # min"),
        ("torch 2.10.0+cpu, 1e-06 or 1.0e-06", "torch #, # or #"),
        ("model.yaml:3:14: 4,294 of 8", "model.yaml:3:14: 4,294 of 8"),
        ("at 0x7f01 on 2025-11-30 14:28:01", "at 0x# on DATE"),
        ("process 4711 at 127.0.0.1:8080", "process # at ADDRESS"),
        ("gru.W_f and layer 2.", "gru.W_f and layer 2."),
    ],
)
def test_what_changes_from_run_to_run_is_replaced(text: str, found: str) -> None:
    assert mechanism.steady(text, None) == found
