"""The checksum of a module's code: of all its files, and without importing any."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.runtime.code_digest import digest


def test_code_is_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "trapped"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "inner.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert digest("trapped.inner") == digest("trapped") != ""
    assert digest("trapped.missing") == digest("no_such_module") == ""
    assert "trapped" not in sys.modules


def test_every_file_counts_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "counted"
    (package / "sub").mkdir(parents=True)
    files = ("__init__.py", "inner.py", "other.py", "sub/deep.py", "native.so")
    for name in files:
        (package / name).write_text("")
    (tmp_path / "beside.py").write_text("")
    (package / "sub" / "loop").symlink_to(package)
    seen = {digest("counted.inner")}
    for name in files:
        (package / name).write_text("x = 1")
        seen.add(digest("counted.inner"))
    assert len(seen) == len(files) + 1
    (tmp_path / "beside.py").write_text("x = 1")
    (package / "data.txt").write_text("x = 1")
    os.mkfifo(package / "pipe.txt")
    assert digest("counted.inner") in seen


def test_a_file_that_cannot_be_read_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "__init__.py").write_text("")
    (tmp_path / "lost" / "gone.py").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "lost" / "pipe.py")
    assert digest("lost") == digest("lost") != ""
