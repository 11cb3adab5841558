"""The rule of imports: packages on levels, no circle, no framework in the harness."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import levels
import picture
import pytest
from places import DOCS, ROOT

from harness.runtime.plugins import available


@cache
def imports() -> list[levels.Import]:
    """Read once, and by the process that runs these tests alone."""
    return levels.imports(ROOT)


def test_every_import_goes_down() -> None:
    assert levels.broken(imports()) == []


def test_nothing_is_imported_in_a_circle() -> None:
    assert levels.circles(imports()) == []


def test_every_package_has_a_level() -> None:
    found = {
        levels.package(m) for m in levels.modules(ROOT) if not m.startswith("harness.backends")
    }
    assert found - {"harness"} == set(levels.LEVEL)


def test_the_picture_is_that_of_the_imports() -> None:
    committed = picture.PICTURE.read_text(encoding="utf-8")
    stale = f"{picture.PICTURE.name} is not that of the imports: run {picture.COMMAND}"
    # Not compared in the assertion, which would print both.
    same = committed == picture.picture(imports())
    assert same, stale


def test_arrows_go_down() -> None:
    drawn_levels = picture.drawn_levels()
    level_of = {name: number for number, level in enumerate(drawn_levels) for name in level}
    drawn = picture.arrows(imports())
    assert drawn
    assert all(level_of[arrow.source] < level_of[arrow.target] for arrow in drawn)


def test_the_page_names_files_that_are_there() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_/]+/|[a-z_0-9/]+\.(?:py|yaml))`", text)
    assert named
    missing = [
        name for name in named if not any((r / name).exists() for r in (ROOT, ROOT / "harness"))
    ]
    assert missing == []


def test_the_page_has_a_line_for_every_package() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## The packages")[2].partition("\n## ")[0]
    named = {name.rstrip("/").removesuffix(".py") for name in re.findall(r"`([^`]+)`", table)}
    assert set(levels.LEVEL) <= named


def test_the_page_lists_the_other_folders_of_tests() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    told = text.partition("`tests/` has")[2].partition("\n\n")[0]
    packages = {p.name for p in (ROOT / "harness").iterdir() if (p / "__init__.py").is_file()}
    folders = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and p.name[0] not in "._"}
    assert packages - folders == {"suite", "extend"}
    assert folders - packages == set(re.findall(r"`tests/(\w+)/`", told))


WRONG = {
    "harness/language/up.py": (
        "import harness.checking.run",
        "language may import",
    ),
    "harness/timing/side.py": (
        "from harness.checking import run",
        "timing may import",
    ),
    "harness/program/late.py": (
        "def f():\n    from harness.runtime import session",
        "program may import from lower levels",
    ),
    "harness/worker/typed.py": (
        "if TYPE_CHECKING:\n    from harness.checking.run import run",
        "worker may import from lower levels",
    ),
    "harness/worker/named.py": ("load('harness.checking.run:run')", "worker may import"),
    "harness/oracle/fast.py": ("def f():\n    import torch.nn", "imports no framework"),
    "harness/checking/own.py": ("from harness.backends import numpy", "names no backend"),
    "harness/checking/named.py": ("load('harness.backends.jax.backend')", "names no backend"),
    "harness/timing/rounds.py": ("from rich.table import Table", "print and read options"),
    "harness/misplaced.py": ("import harness.checking.run", "misplaced has no level"),
    "backends/torch/other.py": ("import jax", "imports its own framework only"),
    "backends/keras/other.py": ("from harness.checking import run", "imports harness.extend"),
    "backends/numpy/other.py": ("from ..jax import backend", "imports nothing of jax"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "harness/checking/run.py",
        "harness/runtime/session.py",
        "backends/jax/backend.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("")
    return tmp_path


@pytest.mark.parametrize("name", WRONG)
def test_what_breaks_the_rule_is_told_with_file_import_and_rule(name: str, tree: Path) -> None:
    text, reason = WRONG[name]
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    told = levels.broken(levels.imports(tree))
    assert told
    line = len(text.splitlines())
    assert all(one.startswith(f"{name}:{line} imports ") for one in told)
    assert any(reason in one for one in told)


@pytest.mark.parametrize("how", ["from harness.checking import run", "def f():\n    import {}"])
def test_a_circle_is_found_wherever_it_is_closed(how: str, tree: Path) -> None:
    (tree / "harness/checking/run.py").write_text("from harness.checking.a import x")
    (tree / "harness/checking/a.py").write_text("from harness.checking import b")
    (tree / "harness/checking/b.py").write_text(how.format("harness.checking.run"))
    names = ["harness.checking.a", "harness.checking.b", "harness.checking.run"]
    assert levels.circles(levels.imports(tree)) == [names]


def test_a_package_with_the_name_of_a_function_does_not_replace_it() -> None:
    program = (
        "import harness, harness.checking.request, harness.timing.request\n"
        "assert all(callable(getattr(harness, name)) for name in harness.__all__)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_own_backends_have_the_entry_points_of_anybody() -> None:
    own = {n: o for n, o in available().items() if o.distribution == "backend-comparison-harness"}
    on_request = {name for name, origin in own.items() if origin.on_request}
    assert on_request == {"onnxruntime", "array-api-strict", "pytensor"}
    usual = {"numpy", "torch", "jax", "flax", "keras", "keras-torch", "keras-jax"}
    assert set(own) == usual | on_request
    families = {"flax": "jax", "keras-torch": "keras", "keras-jax": "keras"}
    for name, origin in own.items():
        family = families.get(name, name.replace("-", "_"))
        assert origin.module == f"harness.backends.{family}.backend"
        assert not origin.rivals


def _families(group: str) -> set[str]:
    """The folders of ``backends/`` that have an entry point of a group."""
    found = entry_points(group=group)
    return {e.module.split(".")[2] for e in found if e.module.startswith("harness.backends.")}


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("harness.backends", ("backend.py", "primitives.py", "defaults.py")),
        ("harness.backends.on_request", ("backend.py", "primitives.py")),
        ("harness.formats", ("format.py", "primitives_export.py")),
    ],
)
def test_folders_of_backends_share_names_of_files(group: str, names: tuple[str, ...]) -> None:
    """As docs/architecture.md says, so that one can say where a primitive is added."""
    families = _families(group)
    assert families
    missing = [
        f"backends/{family}/{name}"
        for family in sorted(families)
        for name in names
        if not (ROOT / "backends" / family / name).is_file()
    ]
    assert missing == []
