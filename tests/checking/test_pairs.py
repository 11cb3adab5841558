"""Two backends held against each other: from the results of both, and in words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from wording import Wording

from harness.arrays import Array
from harness.checking.engine import Engine
from harness.checking.pairs import Pair, Pairs, describe_pairs, read_pairs
from harness.checking.request import Request
from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.file import read_records
from harness.results.findings import Finding
from harness.results.lines import Begin

SPEC = "lesson6/simple_rnn"
OUT = np.array([1.0, -4.0, 2.0])


def cell(backend: str, spec: str = SPEC, dtype: str = "float32") -> Cell:
    return Cell(spec, backend, "cpu", dtype, "native")


def ended(*values: tuple[str, dict[str, Array]]) -> list[Pair]:
    pairs = Pairs([cell(backend) for backend, _ in values])
    return [
        pair
        for backend, arrays in values
        for pair in pairs.ended(CellResult(cell(backend), values=arrays))
    ]


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (OUT, 0.0),
        (OUT + np.array([0, 0, 4e-6]), 1e-6),  # of the largest number
        (OUT.astype(np.float32), 0.0),
        (np.array([1.0, -4.0, np.nan]), math.inf),
        (OUT[:2], math.inf),
    ],
)
def test_error_of_a_pair(other: Array, error: float) -> None:
    (pair,) = ended(("torch", {"output.y": OUT}), ("jax", {"output.y": other}))
    assert pair.backends == ("torch", "jax")
    assert pair.worst == "output.y"
    assert pair.error == pytest.approx(error)


def test_the_worst_tensor_is_named_and_one_that_is_missing_is_worst() -> None:
    near = {"output.y": OUT, "gradient.W": OUT + 1e-3}
    (pair,) = ended(("a", {"output.y": OUT + 1e-9, "gradient.W": OUT}), ("b", near))
    assert (pair.worst, pair.digits) == ("gradient.W", pytest.approx(3.6, abs=0.01))
    for one, other in ((near, {"output.y": OUT}), ({"output.y": OUT}, near)):
        (pair,) = ended(("a", one), ("b", other))
        assert (pair.worst, pair.error) == ("gradient.W", math.inf)


def test_a_gradient_that_is_zero_but_for_rounding_has_the_size_of_its_kind() -> None:
    one = {"gradient.W": OUT, "gradient.b": np.array([1e-17])}
    other = {"gradient.W": OUT, "gradient.b": np.array([-1e-17])}
    (pair,) = ended(("a", one), ("b", other))
    assert pair.error < 1e-10


def test_pairs_are_in_the_order_of_the_plan_and_results_are_let_go() -> None:
    names = ("torch", "jax", "numpy")
    pairs = Pairs([cell(name) for name in names])
    results = [CellResult(cell(name), values={"y": OUT}) for name in reversed(names)]
    found = [pair.backends for result in results for pair in pairs.ended(result)]
    assert found == [("jax", "numpy"), ("torch", "numpy"), ("torch", "jax")]
    assert all(result.values == {} for result in results)


def test_a_backend_without_results_has_no_pair() -> None:
    assert ended(("a", {}), ("b", {"y": OUT})) == []


def pair(one: str, other: str, error: float, dtype: str = "float32", spec: str = "m") -> Pair:
    return Pair(
        spec=spec,
        dtype=dtype,
        path="native",
        device="cpu",
        backends=(one, other),
        error=error,
        worst="output.y",
    )


def test_statement_of_two(wording: Wording) -> None:
    found = [
        pair("torch", "jax", 1e-13, "float64"),
        pair("torch", "jax", 10**-6.1),
    ]
    wording(
        describe_pairs(found),
        "torch ... jax agree ... 13.0 ... float64 (output.y), 6.1 ... float32 (output.y)",
    )


def test_statement_names_the_system_where_they_are_furthest_apart(wording: Wording) -> None:
    found = [pair("a", "b", 1e-7, spec="one"), pair("a", "b", 1e-5, spec="two")]
    wording(describe_pairs(found), "agree ... 5.0 ... float32 ... output.y")


def test_of_many_pairs_the_furthest_is_told_unless_all_are_asked_for(wording: Wording) -> None:
    names = ("a", "b", "c", "d")
    found = [pair(x, y, 1e-7) for i, x in enumerate(names) for y in names[i + 1 :]]
    found[4] = pair("b", "d", 1e-3)
    (line,) = describe_pairs(found)
    wording(line, "6 ... --pairs ... agree ... 3.0 ... float32 (output.y)")
    assert len(describe_pairs(found, every=True)) == 6
    assert describe_pairs([]) == []


def test_two_of_which_one_is_wrong_differ_and_two_that_are_wrong_alike_agree(
    wording: Wording,
) -> None:
    def wrong(backend: str, dtype: str = "float32") -> CellResult:
        off = Deviation("output.y", 10**-1.6, 1e-7, 2e-6)
        found = Finding("outputs", [off], verdict="differ")
        return CellResult(cell(backend, "m", dtype), findings=[found])

    both = [pair("a", "b", 1e-13, "float64"), pair("a", "b", 10**-1.6)]
    wording(
        describe_pairs(both, [wrong("b")]),
        "agree ... 13.0 ... float64 (output.y) ... differ ... float32 (1.6 ... output.y",
    )
    alike = [pair("a", "b", 1e-7)]
    (line,) = describe_pairs(alike, [wrong("a"), wrong("b")])
    wording(line, "agree ... 7.0 ... float32 (output.y)")


def test_what_is_nothing_but_rounding_is_not_what_two_agree_in() -> None:
    """The gradient of attention's bias of keys is zero but for rounding."""
    request = Request(specs=("bert",), backends=("numpy", "torch"), checks=("values",))
    with Engine(request) as engine:
        pairs = {pair.group[1]: pair for pair in engine.run().pairs}
    assert 4 < pairs["float32"].digits < 9, pairs
    assert 12 < pairs["float64"].digits < 17, pairs


def test_pairs_of_a_run_are_recorded_and_kept_when_it_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    request = Request(
        specs=(SPEC,),
        backends=("numpy", "torch"),
        dtypes=("float32",),
        checks=("values",),
        sizes={"hidden": 8},
        records=path,
    )
    with Engine(request) as engine:
        (found,) = engine.run().pairs
    assert found.backends == ("numpy", "torch")
    assert 5 < found.digits < 9
    records = read_records(path)
    assert read_pairs(records) == [found]
    with Engine(Request(**{**vars(request), "resume": True})) as engine:
        assert engine.run().pairs == [found]
    # A backend that has begun again is no longer the one that was compared.
    begun = records.of_kind(Begin)[-1:]
    assert read_pairs(type(records)((*records.lines, *begun))) == []
