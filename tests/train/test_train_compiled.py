"""The path that goes through a framework's compiler, where there is none."""

from __future__ import annotations

from pathlib import Path

from small_trainings import harness


def test_a_backend_without_one_says_so_before_it_begins(text: Path, kept: Path) -> None:
    done = harness(text, kept, "--path=compiled")
    assert done.exit_code == 2
    assert "numpy: path 'compiled' is not offered: there is no compiler" in done.output
    assert not kept.exists()
