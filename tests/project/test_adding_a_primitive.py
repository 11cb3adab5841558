"""docs/adding-a-primitive.md names the places of a primitive: all of them, and none in vain."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from places import DOCS, ROOT

from harness.backends.numpy.primitives import PRIMITIVES
from harness.oracle import oracle
from harness.program.autodiff.reverse import CONSTANT
from harness.program.autodiff.rules import RULES
from harness.program.infer import INFER
from harness.program.primitives import EVERY, OFFERED
from harness.runtime.probe import every_primitive

PAGE = (DOCS / "adding-a-primitive.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`((?:harness|backends|docs|tests)/[a-z_/-]+\.(?:py|md))`", PAGE))
# These stand in a table or in none: nothing else has words like theirs, and they are of each kind.
TELLING = {"cumulative_sum", "argsort", "erf", "sin", "floor"}
# Of tensordot derivatives are made, and none is taken.
WITHOUT_RULE = {"tensordot"}


def test_files_of_the_page_are_there() -> None:
    assert NAMED
    assert [name for name in sorted(NAMED) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(set(INFER), id="types"),
        pytest.param(set(oracle.TABLE), id="oracle"),
        pytest.param({*RULES, *CONSTANT, *WITHOUT_RULE}, id="derivatives"),
        pytest.param({node.op for node in every_primitive(OFFERED).nodes}, id="samples"),
        pytest.param(set(PRIMITIVES), id="numpy"),
    ],
)
def test_every_primitive_stands_in_the_places_of_all(found: set[str]) -> None:
    assert set(EVERY) - found == set()


# The files of backends that translate traced models to the spec language.
TRACERS = {
    *("trace", "trace_rules", "trace_layers", "trace_moves", "trace_operations"),
    *("own_decompositions", "patterns"),
}


def words(path: Path) -> set[str]:
    """What stands between quotes in a file of code, but for primitives that are emitted there."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    calls = [n for n in nodes if isinstance(n, ast.Call) and n.args]
    emitted = {id(n.args[0]) for n in calls if ast.unparse(n.func).endswith("emit")}
    constants = (n for n in nodes if isinstance(n, ast.Constant) and id(n) not in emitted)
    return {n.value for n in constants if isinstance(n.value, str)}


def test_a_file_in_which_primitives_stand_is_on_the_page() -> None:
    paths = [p for f in ("harness", "backends") for p in sorted((ROOT / f).rglob("*.py"))]
    # The files of ports name functions of the spec language, some with the name of a primitive.
    paths = [p for p in paths if p.parent.name != "porting" and p.stem not in TRACERS]
    found = {path.relative_to(ROOT).as_posix() for path in paths if words(path) & TELLING}
    assert len(found) > 20
    assert found - NAMED == set()
