"""The paths of the repository and of its folders."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
SUPPORT = TESTS / "support"
SPECS = ROOT / "specs"
DOCS = ROOT / "docs"
