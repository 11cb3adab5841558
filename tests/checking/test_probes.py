"""What the checks of functions, of many steps and of large sizes work with."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import SPOKEN
from threadpoolctl import threadpool_info

from harness.backends.numpy.backend import Numpy
from harness.checking.checks import (
    extremes,
    functions,
    thresholds,
    trajectories,
)
from harness.checking.request import Request, make_case
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.kinks import KINK_MARGIN, kink_margin
from harness.oracle.threads import one_thread
from harness.program.ir import Phase
from harness.program.primitives import OFFERED
from harness.program.serial import encoded
from harness.runtime.answers import Arguments
from harness.runtime.service import SessionService

EVERY = frozenset(OFFERED)


def cases(name: str, **sizes: int) -> tuple[Case, Case]:
    """A system's small case, and the one at its own sizes."""
    spec, request = load_spec(name), Request(sizes=sizes)
    return make_case(spec, request, own=False), make_case(spec, request, own=True)


def test_every_function_has_a_promise_and_values_to_hold_it_to() -> None:
    exact = functions._compute_exact(functions._make_case("functions", EVERY))
    further = functions._compute_exact(functions._make_case("further", EVERY))
    assert (set(exact), set(further)) == (
        set(functions.promises("functions")),
        set(functions.promises("further")),
    )
    finite = {n for n, a in (exact | further).items() if np.isfinite(a).all()}
    assert {"summed", "joined", "rows", "hot", "powers", "order", "numbered", "cubes"} <= finite
    assert [np.isnan(a).sum() for a in (exact["tanh_of_x"], further["sign_of_bounded"])] == [1, 1]


def test_a_backend_is_asked_for_what_it_offers() -> None:
    asked = {
        port.name for port in functions._make_case("further", EVERY - {"erf"}).inference.outputs
    }
    assert set(functions.promises("further")) - asked == {"erf_of_x", "gelu_of_x", "gelu_of_dense"}
    least = functions._make_case("further", frozenset()).inference
    assert {"cubes", "silu_of_x", "joint"} <= {port.name for port in least.outputs}
    assert not functions._optional_primitives(least.nodes)


def test_a_huge_model_is_saturated_with_one_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[float] = set()
    scale = extremes._scale_arguments

    def record(case: Case, factor: float) -> Arguments:
        tried.add(factor)
        return scale(case, factor)

    monkeypatch.setattr(extremes, "_scale_arguments", record)
    for huge, factors in ((10**9, {4.0, 4.5, 5.0, 5.5}), (0, {4.0})):
        monkeypatch.setattr(extremes, "HUGE", huge)
        tried.clear()
        extremes.saturated_material(cases("mlp")[0])
        assert tried == factors


def test_an_index_fills_targets_too() -> None:
    material = extremes.index_material(cases("lesson6/simple_rnn")[0], -1)
    (chars,), (target,) = (
        set(np.unique(a)) for a in (material.inputs["chars"], material.targets["target"])
    )
    assert chars == target > 0


@pytest.mark.parametrize(
    ("value", "promise", "dtype", "agrees"),
    [
        (1 + 2.0**-23, functions.Promise(8), "float32", True),
        (1 + 2.0**-20, functions.Promise(8), "float32", False),
        (1 + 2.0**-23, functions.Promise(0), "float32", False),
        (1 + 2.0**-23, functions.Promise(8), "float64", False),
        (np.nan, functions.Promise(8, 1.0), "float32", False),
        (np.inf, functions.Promise(8, 1.0), "float32", False),
    ],
)
def test_an_entry_is_held_to_its_promise(
    value: float, promise: functions.Promise, dtype: str, agrees: bool
) -> None:
    found = np.array([0.5, value, np.inf, np.nan], dtype)
    exact = np.array([0.5, 1.0, np.inf, np.nan], np.longdouble)
    assert functions._measure_error("x", found, exact, promise, dtype, True).agrees == agrees


def test_what_is_below_the_smallest_normal_number_may_be_zero_unless_it_is_promised() -> None:
    zero, exact = np.zeros(1, np.float32), np.array([2.0**-130], np.longdouble)
    for promised in (False, True):
        found = functions._measure_error(
            "x", zero, exact, functions.Promise(8), "float32", promised
        )
        assert found.agrees is not promised


def test_a_result_of_another_shape_or_dtype_differs() -> None:
    exact = np.ones(3, np.longdouble)
    for wrong in (np.ones(2, np.float32), np.ones(3), None, "text"):
        found = functions._measure_error("x", wrong, exact, functions.Promise(8), "float32", False)
        assert found.reason


@pytest.mark.parametrize("phase", thresholds.LARGE)
@pytest.mark.parametrize("name", lesson6())
def test_large_sizes_are_large_and_off_all_kinks(name: str, phase: Phase) -> None:
    large = thresholds.large_case(*cases(name), phase)
    assert (large.batch, large.time) == thresholds.LARGE[phase]
    assert large.training.sizes["hidden"] == large.batch
    # Without another size, classes are what does not fill whole tiles.
    fewer = 0 if "factors" in large.training.sizes else thresholds.REMAINDER
    assert large.training.sizes["vocab"] >= thresholds.CLASSES - fewer
    assert kink_margin(large.training, large.material) >= KINK_MARGIN
    for array in large.material.inputs.values():
        assert len(np.unique(array, axis=0)) <= thresholds.DISTINCT_EXAMPLES


def test_sizes_that_a_run_sets_stay() -> None:
    large = thresholds.large_case(
        *cases("lesson6/simple_rnn", hidden=9, batch=5, time=6), "training"
    )
    assert (large.batch, large.time, large.training.sizes["hidden"]) == (5, 6, 9)
    assert large.training.sizes["vocab"] == thresholds.CLASSES - thresholds.REMAINDER


def test_of_a_single_class_each_row_may_leave_a_rounding() -> None:
    """Its loss is 0 whatever the parameters are, so that gradients have no size of their own."""
    alone = thresholds.large_case(
        *cases("lesson6/theano_gru", vocab=1, batch=5, time=6), "training"
    )
    several = thresholds.large_case(
        *cases("lesson6/theano_gru", vocab=2, batch=5, time=6), "training"
    )
    for case, rows in ((alone, 30), (several, 0)):
        plain = case.gradients(case.material, "main")
        found = thresholds.add_row_noise(plain, case.batch * case.time)
        for dtype, unit in (("float32", 2.0**-24), ("float64", 2.0**-53)):
            before, after = plain.measured(dtype), found.measured(dtype)
            assert all(after[n] == max(before[n], rows * unit) for n in after if "gradient." in n)
            assert all(after[n] == before[n] for n in after if "gradient." not in n)


def test_a_whole_batch_has_the_examples_of_the_case_and_targets_of_its_own() -> None:
    case, _ = cases("lesson6/keras_gru")
    whole = thresholds.whole_batch(case)
    assert whole is not None
    (inputs,), (own,) = whole.inputs.values(), case.material.inputs.values()
    assert len(inputs) == 64
    np.testing.assert_array_equal(np.unique(inputs, axis=0), np.unique(own, axis=0))
    assert len(np.unique(whole.targets["target"], axis=0)) > case.batch
    assert thresholds.whole_batch(cases("mlp")[0]) is None


# What the model has few of, where more is no other kind of model.
FEW = {
    "gpt": {"heads": 17},
    "moe": {"heads": 17, "experts": 19},
    "llama": {"groups": 17},
    "bilstm_tagger": {"tags": 17},
}


@pytest.mark.parametrize("name", FEW)
def test_there_is_more_of_what_a_model_has_few_of(name: str) -> None:
    small, own = cases(name)
    found = thresholds.numerous_case(small, own)
    assert found is not None
    assert (found.batch, found.time) == (small.batch, small.time)
    sizes = small.training.sizes
    assert {n: s for n, s in found.training.sizes.items() if s != sizes[n]} == FEW[name]
    assert found.entries <= thresholds.MAX_ENTRIES


@pytest.mark.parametrize("sizes", [{"heads": 3, "experts": 3, "head": 3}, {}])
def test_a_count_that_a_run_sets_stays_and_so_do_models_without_any(sizes: dict[str, int]) -> None:
    name = "moe" if sizes else "lesson6/simple_rnn"
    found = thresholds.numerous_case(*cases(name, **sizes))
    assert found is None or not sizes.keys() & {
        n for n, s in found.training.sizes.items() if s > thresholds.MANY - 1
    }


def test_data_are_moved_where_something_is_normalised_and_nowhere_else() -> None:
    moved = extremes.offset_material(cases("lesson6/stateful_lstm")[0])
    assert moved is not None
    assert moved.parameters["embed.table"].mean() > 1000
    assert abs(moved.parameters["norm.beta"]).max() < 10
    assert extremes.offset_material(cases("lesson6/keras_gru")[0]) is None


def test_a_class_is_masked_that_is_no_target() -> None:
    material = extremes.masked_material(cases("lesson6/simple_rnn")[0])
    assert material is not None
    (masked,) = np.flatnonzero(np.isinf(material.parameters["out.b"]))
    assert masked not in material.targets["target"]
    assert extremes.masked_material(cases("lesson6/pure_python_rnn")[0]) is None


def test_whole_numbers_that_are_no_classes_stay_where_a_class_is_masked() -> None:
    spec = load_spec("spoken", overrides={("model", "spoken"): SPOKEN})
    # Sizes at which the masked class is a count, and the next one is none.
    request = Request(sizes={"classes": 5, "symbols": 2})
    case = make_case(spec, request, own=False)
    material = extremes.masked_material(case)
    assert material is not None
    np.testing.assert_array_equal(material.targets["counts"], case.material.targets["counts"])
    assert 2 in material.targets["counts"]
    assert 2 not in material.targets["labels"]


def test_the_rate_of_the_steps_tells_narrow_floats_apart() -> None:
    rate = trajectories.RATE
    assert np.float32(rate) == rate
    assert abs(float(np.float16(rate)) - rate) > 1e-4 * rate


def test_scattered_arrays_and_views_give_what_others_do() -> None:
    case, _ = cases("lesson6/stateful_lstm")
    verbs = SessionService(Numpy())
    verbs.open(encoded(case.training), encoded(case.inference), dtype="float64")
    material = case.material
    verbs.load(material.parameters, material.statistics)
    plain = verbs.forward("inference", material.inputs, material.state)
    batch = (material.inputs, material.state, material.targets)
    found = verbs.gradients("training", *batch)
    trained = {f"gradient.{n}": a for n, a in found["gradients"].items()} | found["results"]
    given = (material.parameters, material.statistics, *batch)
    for wanted, results in zip((plain, plain, trained), verbs.strided(*given), strict=True):
        assert wanted.keys() == results.keys()
        for name, array in results.items():
            assert np.allclose(array, wanted[name], rtol=1e-12, atol=1e-14), name


def test_blas_has_its_threads_back() -> None:
    def threads() -> list[int]:
        return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]

    before = threads()
    with one_thread():
        assert {*threads()} == {1}
    assert threads() == before
