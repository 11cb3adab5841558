"""An error that nobody expected ends a command with its own exit code: 1 means a difference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wording import Wording

HARNESS = Path(sys.executable).with_name("harness")
# Python runs it at each start: the import of one module fails, in words that act on a terminal.
PLANTED = """
import sys

class Planted:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            raise {error}

sys.meta_path.insert(0, Planted)
"""


def run(folder: Path, module: str, error: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(PLANTED.format(module=module, error=error))
    return subprocess.run(
        [HARNESS, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("harness.commands", "--help"),
        ("harness.checking.explain_definition", "list"),
        ("harness.checking.console", "check lesson6/simple_rnn --backend numpy --html r.html"),
        ("harness.report.inputs", "report absent -o r.html"),
    ],
)
def test_an_unexpected_error_has_an_exit_code_of_its_own(
    tmp_path: Path, module: str, words: str, wording: Wording
) -> None:
    done = run(tmp_path, module, "RuntimeError('planted \\x1b[2J')", *words.split())
    assert done.returncode == 70, done.stderr
    wording.line(done.stderr, "Traceback (most recent")
    assert "RuntimeError: planted \\x1b[2J\n" in done.stderr
    wording(done.stderr.splitlines()[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sitecustomize.py"]


@pytest.mark.parametrize("error", ["SystemExit('planted')", "SystemExit([1])"])
def test_an_exit_without_a_number_is_an_unexpected_error(tmp_path: Path, error: str) -> None:
    done = run(tmp_path, "harness.checking.explain_definition", error, "list")
    assert done.returncode == 70, done.stderr
    assert error.split("(")[1].strip("')") in done.stderr
