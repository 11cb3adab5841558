"""pyproject.toml, the record of tried versions, docs/versions.md and the constraints agree."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import dependencies as known
import pytest
import versions
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from places import ROOT
from wording import Wording

BACKENDS, FORMATS = "harness.backends", "harness.formats"
TABLES = known.project()
RUNS = known.read_record()
PAGE = (known.ROOT / "docs/versions.md").read_text(encoding="utf-8")
EVERY = {
    canonicalize_name(r.name): r
    for requirements in known.declared(TABLES).values()
    for r in requirements
}

# Imported only after the user has installed it: for ``to_frame``, and by pytest-xdist itself.
OPTIONAL = {"pandas", "xdist"}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and top-level names of the absolute imports that run; types alone are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]
        yield from imported(node)


def undeclared(tree: ast.AST, names: set[str]) -> list[str]:
    """Imports of packages other than the named ones, with their lines."""
    own = {"harness", *OPTIONAL, *sys.stdlib_module_names, *names}
    return [f"{line}: {top}" for line, top in imported(tree) if top not in own]


def test_every_import_of_the_harness_is_declared() -> None:
    parts = known.declared(TABLES)
    users = [r for part in ("core", *known.extras(TABLES)) for r in parts[part]]
    declared = {canonicalize_name(requirement.name) for requirement in users}
    owners = packages_distributions().items()
    names = {top for top, found in owners if declared & {canonicalize_name(n) for n in found}}
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / "harness").rglob("*.py"))
        if (lines := undeclared(ast.parse(path.read_text(encoding="utf-8")), names))
    }
    assert found == {}


def test_an_import_that_is_not_declared_is_named() -> None:
    planted = (
        "import os\nif TYPE_CHECKING:\n    import yaml\ndef f():\n    from click.core import Group"
    )
    assert undeclared(ast.parse(planted), {"numpy"}) == ["5: click"]


def test_every_part_declares_something() -> None:
    parts = known.declared(TABLES)
    assert set(parts) == {
        "core",
        "torch",
        "jax",
        "flax",
        "keras",
        "onnx",
        "onnxruntime",
        "report",
        "data",
        "ray",
        "array-api-strict",
        "pytensor",
        "build-system",
    } | {
        "test",
        "docs",
        "lint",
    }
    assert len(parts["core"]) > 5
    assert all(parts.values())


def test_every_bound_and_every_newest_version_was_run() -> None:
    assert list(known.complaints(TABLES, RUNS)) == []


def test_the_lowest_of_all_backends_and_formats_was_run_in_one_environment() -> None:
    (run,) = [r for r in RUNS if (r["set"], r["part"]) == ("lowest", versions.EVERY)]
    assert known.passed(run)
    for requirement in versions.requirements(versions.EVERY):
        assert Version(run["versions"][requirement.name]) == known.lowest(requirement)
    ran = " ".join(c["command"] for c in run["commands"])
    # Flax wants a later scipy than the rest.
    every = TABLES["project"]["entry-points"][BACKENDS].keys() - {"flax"}
    assert all(f"--backend {name} " in ran for name in every)
    assert all(f"--to {name} " in ran for name in TABLES["project"]["entry-points"][FORMATS])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"click>=8.3.3"', '"click>=8.3.2"', r"core: click>=8.3.2 begins .* not tried: 8.3.3"),
        ('"torch>=2.10"', '"torch>=2.6"', r"torch: torch>=2.6 begins .* not tried: 2.10.0"),
        ('"ray>=2.54"', '"ray>=2.54", "dask>=2"', r"ray: dask>=2 begins .*: none"),
        ('"numpy>=1.26"', '"numpy>=1.26,<2"', r"core: numpy<2,>=1.26 has no newest .*: 2\."),
        ('"build>=1.2.1"', '"build>=1.2"', r"test: build>=1.2 begins .* not tried: 1.2.1"),
    ],
)
def test_a_bound_that_was_not_tried_is_named(old: str, new: str, complaint: str) -> None:
    text = (known.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    changed = known.project(text.replace(old, new))
    found = list(known.complaints(changed, RUNS))
    assert any(re.search(complaint, line) for line in found), found


def test_a_run_that_failed_counts_for_nothing() -> None:
    failed: list[dict[str, Any]] = [
        {**r, "commands": [*r["commands"][:-1], {**r["commands"][-1], "result": "exit code 1"}]}
        for r in RUNS
    ]
    assert len(list(known.complaints(TABLES, failed))) >= len(RUNS) + 2 * len(EVERY)
    assert not known.passed({"commands": []})


def test_a_requirement_without_a_lower_bound_is_refused(wording: Wording) -> None:
    with wording.raises(ValueError, "flax<2"):
        known.lowest(Requirement("flax<2"))


def test_the_page_names_the_pythons_that_were_tried() -> None:
    assert known.pythons(RUNS) in " ".join(PAGE.split())


def test_the_page_shows_the_record_and_tells_why_of_every_bound() -> None:
    written = known.with_rows(PAGE, TABLES, RUNS)
    assert written == PAGE, "run python tests/versions.py tables"
    reasons = re.findall(r"^\| `[\w-]+` \|(?: [^|]*\|){2} (.+) \|$", PAGE, re.MULTILINE)
    assert len(reasons) == len(EVERY)
    assert min(map(len, reasons)) > 10


def test_a_row_too_few_or_too_many_is_named(wording: Wording) -> None:
    lines = PAGE.splitlines(keepends=True)
    short = "".join(line for line in lines if not line.startswith("| `rich`"))
    with wording.raises(ValueError, "docs/versions.md"):
        known.with_rows(short, TABLES, RUNS)
    with wording.raises(ValueError):
        known.with_rows(f"{PAGE}\n| `dask` | 1 | 1 | because |\n", TABLES, RUNS)


def constraint_lines() -> list[str]:
    lines = known.CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#")
    return lines[1:]


def test_constraints_are_one_plain_version_each() -> None:
    """No index, no option, no build of one machine: pip takes them anywhere."""
    lines = constraint_lines()
    assert len(lines) == len({canonicalize_name(Requirement(line).name) for line in lines})
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


def test_constraints_fix_everything_declared_within_its_bounds() -> None:
    fixed = {canonicalize_name(r.name): r for r in map(Requirement, constraint_lines())}
    for name, requirement in EVERY.items():
        (specifier,) = fixed[name].specifier
        assert specifier.version in requirement.specifier, (name, specifier)


def test_constraints_are_made_of_this_environment() -> None:
    """Of what is installed here, each distribution has its line, without the local version."""
    made = [Requirement(line) for line in known.constraints().splitlines()[1:]]
    names = {r.name for r in made}
    assert {"numpy", "click", "packaging"} <= names
    assert not {"pip", canonicalize_name(TABLES["project"]["name"])} & names
    assert "+" not in known.constraints()


def a_program(folder: Path, name: str, text: str) -> None:
    """A program of an environment that is none."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / "bin" / name).chmod(0o755)


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path, wording: Wording) -> None:
    a_program(tmp_path, "tool", 'echo "no $1"; echo why >&2; exit 3')
    wording(versions.run(tmp_path, "tool luck"), "3")
    a_program(tmp_path, "fine", 'test "$1" = "$(dirname "$2")" && test -f text.txt')
    assert versions.run(tmp_path, "fine {root} {root}/tests") == "passed"


def test_names_of_packages_may_have_underscores_in_their_metadata() -> None:
    found = versions.installed(Path(sys.prefix), "array-api-strict")[1]
    assert found.keys() >= {"array-api-strict", "typing_extensions", "numpy"}


def test_a_command_that_hangs_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setattr(versions, "SECONDS", 0.2)
    a_program(tmp_path, "tool", "exec sleep 30")
    wording(versions.run(tmp_path, "tool"), "0.2")


def test_what_cannot_be_installed_is_a_failure_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    def install(folder: Path, part: str, kind: str, python: str) -> str:
        return "exit code 1: no such version"

    def found(folder: Path, part: str) -> tuple[str, dict[str, str]]:
        return "3.11.0", {}

    monkeypatch.setattr(versions, "make", install)
    monkeypatch.setattr(versions, "installed", found)
    monkeypatch.setattr(known, "RECORD", tmp_path / "tried.json")
    result = CliRunner().invoke(versions.main, ["lowest", "torch", "core"])
    assert result.exit_code == 1
    wording.line(result.output, "torch ... 3.11.0 ... 1")
    assert [r["part"] for r in known.read_record()] == ["core", "torch"]
    assert not any(known.passed(r) for r in known.read_record())
    again = CliRunner().invoke(versions.main, ["lowest", "torch"])
    assert again.exit_code == 1
    assert len(known.read_record()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["lowest", "haiku"],
            "'haiku' ... torch, jax, flax, keras, onnx",
        ),
        (["newest", "core", "--python", "python9"], "'python9'"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str, wording: Wording) -> None:
    result = CliRunner().invoke(versions.main, arguments)
    assert result.exit_code == 2
    wording.line(result.output, message)
