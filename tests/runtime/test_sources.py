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
    files = ("__init__.py", "inner.py", "other.py", "sub/deep.py", "native.so", "sub/data.txt")
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
    os.mkfifo(package / "pipe.txt")
    for name in ("__pycache__/inner.pyc", ".cache/data.txt", ".hidden"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x = 1")
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


FAMILY = {
    "__init__.py": "",
    "parts/__init__.py": "",
    "parts/one/__init__.py": "",
    "parts/one/backend.py": "from family.parts.two import kernels\nfrom .deep import x\n",
    "parts/one/deep/x.py": "from ... import shared\n",
    "parts/one/deep/__init__.py": "",
    "parts/shared.py": "import_module('family.parts.named.late')\n",
    "parts/two/__init__.py": "",
    "parts/two/kernels.py": "import family.outer\n",
    "parts/named/__init__.py": "",
    "parts/named/late.py": "",
    "parts/one/neighbour.py": "",
    "parts/neighbour/__init__.py": "",
    "parts/neighbour/backend.py": "from family.parts.one import backend\n",
    "outer.py": "",
}
REACHED = [name for name in FAMILY if "neighbour" not in name]


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FAMILY.items():
        path = tmp_path / "family" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "family"


@pytest.mark.parametrize("name", FAMILY)
def test_of_a_package_counts_what_a_module_can_reach(name: str, family: Path) -> None:
    before = digest("family.parts.one.backend")
    (family / name).write_text(f"{FAMILY[name]}# changed\n")
    assert (digest("family.parts.one.backend") != before) == (name in REACHED)


@pytest.mark.parametrize(
    "text",
    [
        "exec('import family.parts.neighbour')",
        "__import__('fam' + 'ily.parts.neighbour')",
        "from importlib import import_module\nimport_module(f'family.parts.{x}')",
        "import importlib.util as u\nu.spec_from_file_location('x', 'neighbour/backend.py')",
        "from importlib import import_module\nimport_module('.neighbour', 'family.parts')",
        "from importlib import import_module as get\nget('fam' + 'ily.parts.neighbour')",
        "import importlib\nget = importlib.import_module\nget('fam' + 'ily.parts.neighbour')",
        "import importlib\ngetattr(importlib, 'import_module')('fam' + 'ily.parts.neighbour')",
        "import builtins\nbuiltins.exec('import family.parts.neighbour')",
        "run = exec\nrun('import family.parts.neighbour')",
        "import pkgutil\npkgutil.resolve_name('fam' + 'ily.parts.neighbour')",
        "this is no Python",
    ],
)
def test_where_the_source_does_not_tell_all_counts(text: str, family: Path) -> None:
    (family / "parts" / "two" / "kernels.py").write_text(text)
    before = digest("family.parts.one.backend")
    (family / "parts" / "neighbour" / "backend.py").write_text("# changed")
    assert digest("family.parts.one.backend") != before


def test_data_that_lies_with_what_is_reached_counts(family: Path) -> None:
    before = digest("family.parts.one.backend")
    (family / "parts" / "neighbour" / "table.json").write_text("1")
    assert digest("family.parts.one.backend") == before
    (family / "parts" / "two" / "data").mkdir()
    (family / "parts" / "two" / "data" / "table.json").write_text("1")
    assert digest("family.parts.one.backend") != before


def test_what_is_imported_of_the_same_distribution_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    late = "def f():\n    import second"
    texts = {"alone": "import first", "first": late, "second": "", "no": ""}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    seen = [digest("alone", texts)]
    assert digest("alone") != seen[0]
    for name in texts:
        (tmp_path / f"{name}.py").write_text(f"{texts[name]}\n# changed")
        seen.append(digest("alone", texts))
    assert len({*seen}) == 4
    assert seen[-1] == seen[-2]
    (tmp_path / "second.py").write_text("exec('import no')")
    before = digest("alone", texts)
    (tmp_path / "no.py").write_text("# again")
    assert digest("alone", texts) != before


def test_a_name_for_a_text_is_no_secret(family: Path) -> None:
    (family / "parts" / "two" / "kernels.py").write_text(
        "from importlib import import_module\nWHERE = 'a' if 1 else 'b'\nimport_module(WHERE)\n"
    )
    before = digest("family.parts.one.backend")
    (family / "parts" / "neighbour" / "backend.py").write_text("# changed")
    assert digest("family.parts.one.backend") == before


def test_backends_that_ship_do_not_count_each_other() -> None:
    from harness.runtime.code_digest import _dependency_files, _find_specs

    torch = _dependency_files(
        "harness.backends.torch.backend", _find_specs("harness.backends.torch.backend")
    )
    folders = {path.parent.name for path in torch}
    assert "torch" in folders
    assert not folders & {"jax", "numpy", "keras", "onnx"}
