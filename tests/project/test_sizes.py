"""The table of sizes counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

import sizes

FILE = '''"""A docstring
of two lines."""

from harness.oracle import case

# A comment.
def run(given: dict[str, Any]) -> Mapping[str, Any]:
    """Run."""
    text = """two
lines"""
    return {text: case, **given}
'''


def test_sizes_of_a_small_tree(tmp_path: Path) -> None:
    for name, text in (("checking/run.py", FILE), ("oracle/case.py", "x = 1\n")):
        path = tmp_path / "harness" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    found = sizes.package_sizes(tmp_path)
    assert found == {
        "checking": sizes.Size(lines=11, code=5, files=1, single_importer=0, untyped=2),
        "oracle": sizes.Size(lines=1, code=1, files=1, single_importer=1, untyped=0),
    }
    lines = sizes.table(found).splitlines()
    assert [line.split()[0] for line in lines] == ["package", "checking", "oracle", "harness/"]
    assert lines[-1].split()[-5:] == ["12", "6", "2", "1", "2"]
    assert all(len(line) <= 80 for line in lines)
