"""Whether an export agrees is judged by several batches, each number for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from random_weights import SPEC, write_random_weights
from small_models import sized
from wording import Wording

from harness.convert import run
from harness.convert.agreement import Agreement, agreement, draw_batches
from harness.convert.console import _text, _verdict
from harness.convert.formats import Exported
from harness.convert.request import Export
from harness.convert.run import Exporting
from harness.convert.source.emitter import Emitter
from harness.convert.weights import Weights
from harness.language.model import load_spec
from harness.oracle.tolerance import Deviation
from harness.program.dims import Dim
from harness.program.ir import Type
from harness.program.signature import input_sizes


def test_agreement_is_by_several_batches_and_sees_one_wrong_number(tmp_path: Path) -> None:
    given = write_random_weights(tmp_path / "w.st", "lesson6/stateful_lstm", "float64")
    spec = load_spec(given.spec)
    found: list[tuple[int, ...]] = []

    def right(inputs: Any, state: Any) -> dict[str, Any]:
        found.append(inputs["chars"].shape)
        return answers(inputs, state)

    def wrong(inputs: Any, state: Any) -> dict[str, Any]:
        results = answers(inputs, state)
        if inputs["chars"].shape == (2, 1):
            results["state.c"][1, 3] += 1e-9
        return results

    answers = oracle_of(given)
    batches = draw_batches(spec, given, 0)
    assert agreement(batches, "float64", right).agrees
    assert found == [(3, 7), (2, 1)]
    refused = agreement(batches, "float64", wrong)
    assert (refused.agrees, refused.worst.name) == (False, "state.c")
    fewer = agreement(batches, "float64", lambda i, s: {})
    assert "nothing was returned" in str(fewer.worst)
    narrow = agreement(
        batches,
        "float64",
        lambda i, s: {n: a.astype("f4") for n, a in answers(i, s).items()},
    )
    assert "expected dtype float64, found float32" in str(narrow.worst)


def test_what_is_lost_in_rounding_agrees_with_nothing(wording: Wording) -> None:
    void = Deviation("y", 1e-8, 1.0, 16.0)
    assert not Agreement(0, void).agrees
    assert _verdict(Agreement(0, void)) == "not-applicable"
    given = Exporting("lost", "float32", Agreement(0, void), [], {})
    told = _text(Export(spec="lost", weights=Path("w.safetensors"), format_="onnx"), given)
    wording(told)
    assert told.endswith("nothing was written")


def oracle_of(given: Weights) -> Any:
    """What gives the right outputs."""
    from harness.oracle.oracle import Oracle
    from harness.runtime.session import Session

    spec = load_spec(given.spec)
    programs = [spec.program(phase, **given.sizes) for phase in ("training", "inference")]

    def answers(inputs: Any, state: Any) -> dict[str, Any]:
        session = Session(Oracle(), *programs, path="equations", dtype="float64")
        session.load(given.parameters, given.statistics)
        results = session.forward("inference", inputs, state)
        return {n: a for n, a in results.items() if not n.startswith("statistics.")}

    return answers


@pytest.mark.parametrize(
    ("error", "digits"), [(0.0, 16.0), (1e-7, 7.0), (2.0, 0.0), (float("inf"), 0.0)]
)
def test_digits(error: float, digits: float) -> None:
    assert Agreement(1, Deviation("x", error, 1.0, 1.0)).digits == pytest.approx(digits)


def test_weights_of_two_dtypes_are_refused(tmp_path: Path, wording: Wording) -> None:
    given = write_random_weights(tmp_path / "w.st")
    mixed = {**given.parameters, "out.b": given.parameters["out.b"].astype("f8")}
    both = Weights(given.spec, given.fingerprint, given.sizes, mixed, {})
    with wording.raises(run.UsageError, "float32 ... float64"):
        run.exported_of(load_spec(SPEC), both)


@pytest.mark.parametrize("dtype", ["float16", "int32", "bool", "complex64"])
def test_weights_of_other_dtypes_are_refused(dtype: str, tmp_path: Path, wording: Wording) -> None:
    given = write_random_weights(tmp_path / "w.st")
    arrays = {n: a.astype(dtype) for n, a in given.parameters.items()}
    other = Weights(given.spec, given.fingerprint, given.sizes, arrays, {})
    with wording.raises(run.UsageError, f"{dtype} ... float32"):
        run.exported_of(load_spec(SPEC), other)


def test_an_export_is_run_at_sizes_that_the_model_can_have() -> None:
    spec = sized("place(x)[:, 1:] - x[:, :-1]", 5)
    program = spec.program()
    arrays = {p.name: np.ones(program.shape(p)) for p in program.parameters}
    given = Weights(spec.name, "", dict(program.sizes), arrays, {})
    found: list[tuple[int, ...]] = []

    def right(inputs: Any, state: Any) -> dict[str, Any]:
        found.append(inputs["x"].shape)
        return {"output.y": inputs["x"][:, 1:] + 1 - inputs["x"][:, :-1]}

    assert agreement(draw_batches(spec, given, 0), "float64", right).agrees
    assert found == [(3, 5, 3), (2, 2, 3)]


def test_code_reads_sizes_that_only_inputs_have() -> None:
    """The second batch has other lengths, so an export that writes their numbers is wrong."""
    spec = load_spec("dlrm")
    programs = spec.program("training"), spec.program("inference")
    arrays = {p.name: np.ones(programs[0].shape(p)) for p in programs[0].parameters}
    free = {"seen", "bought"}
    assert input_sizes(programs[0]) == free
    exported = Exported.of(Exported("dlrm", *programs, arrays, {}).payload())
    assert exported.inference.sizes.keys() == programs[1].sizes.keys() - free
    given = Weights(spec.name, "", dict(programs[0].sizes), arrays, {})
    first, second = (batch.inputs for batch in draw_batches(spec, given, 0))
    for name in ("seen_items", "like_users"):
        assert first[name].shape[1] != second[name].shape[1]


def test_the_variable_of_a_size_differs_from_all_others() -> None:
    """A size may have the name of an argument, of a module, or of a function of Python."""
    types = {0: Type((Dim.of("batch"), Dim.of("len"))), 1: Type(())}
    e = Emitter(cast(Any, None), types, lambda value: "", {}, "x")
    e.argument(0, "x")
    assert e.shape([Dim.of("len"), Dim.of("x") * 2]) == "(len_2, 2 * x_2)"
    e.write(f"y = {e.size(Dim.of('len'))}")
    assert e.free_sizes([0]) == ["len_2 = x.shape[1]"]
    assert e.argument(1, "len_2") == "len_2_2"
    assert e.size(Dim.of("len_2")) == "len_2_3"
