"""Sizes and models at which honest backends were once blamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness
from harness.checking.runner import Report

SPECS = Path(__file__).parents[1] / "support" / "odd_models"
BOTH = ("float64", "float32")
SIZES = [
    ("sequence_unrolled", {"hidden": 256}, 0, ("float32",), "pipeline*", "numpy"),
    ("simple_rnn", {"time": 100}, 1, ("float32",), "saturation", "numpy"),
    ("first_rnn", {}, 148, ("float64",), "training,pipeline*", "numpy,torch"),
    ("first_rnn", {"vocab": 2}, 0, ("float64",), "*", "numpy"),
    ("sequence_onehot", {"hidden": 1}, 1, BOTH, "causality", "numpy"),
    ("sequence_onehot", {"vocab": 1}, 0, BOTH, "causality", "numpy"),
    ("stateful_lstm", {"time": 1}, 0, ("float32",), "embedding-rows", "torch"),
    ("stateful_lstm", {"batch": 1, "time": 1}, 1, BOTH, "kinks", "torch"),
    ("theano_gru", {"vocab": 1}, 0, ("float32",), "large-sizes", "keras"),
    # Which of two entries a softmax of large logits has is a matter of rounding to a narrow dtype,
    # and so are the digits of 1 - tanh(x) ** 2 where a framework hands tanh(x) on in it.
    ("sequence_unrolled", {"batch": 33}, 0, ("bfloat16",), "extremes", "torch"),
    ("three_char", {"batch": 1}, 0, ("float16",), "saturation", "torch"),
    # The gradient of a bias, times the loss' scale, is beyond float16, and no product's is; then a
    # framework leaves a step out.
    ("theano_gru_combined", {"time": 33}, 0, ("float16",), "large-sizes", "torch"),
    ("theano_gru", {"time": 100}, 0, ("float16",), "training-sgd", "torch"),
    # Terms of 0.4 that leave 0.0008, or 0 where their sum is rounded to bfloat16, before a relu.
    ("three_char", {"hidden": 1}, 0, ("bfloat16",), "last-index", "torch"),
    # A hundred products in a row, of which no two frameworks round the same.
    ("sequence_onehot", {"time": 100}, 0, ("bfloat16",), "saturation,values", "jax"),
]


def faults(report: Report) -> list[str]:
    return [
        f"{result.cell}: {f.check}: {f.verdict}: {f.detail}"
        for result in report.results
        for f in result.findings
        if f.verdict not in ("agree", "not-applicable")
    ]


def test_the_bias_of_a_narrow_convolution_keeps_the_digits_of_its_gradient() -> None:
    """It is a sum over all places of all examples, which XLA takes in the dtype of its terms."""
    checks = "large-sizes"
    assert faults(harness.check("lenet", "jax", dtypes="bfloat16", checks=checks)) == []


@pytest.mark.parametrize(("system", "sizes", "seed", "dtypes", "checks", "backends"), SIZES)
def test_no_size_is_blamed(
    system: str,
    sizes: dict[str, int],
    seed: int,
    dtypes: tuple[str, ...],
    checks: str,
    backends: str,
) -> None:
    report = harness.check(
        f"lesson6/{system}",
        backends.split(","),
        sizes=sizes,
        seed=seed,
        dtypes=dtypes,
        checks=tuple(checks.split(",")),
    )
    assert faults(report) == []
    assert any(f.verdict == "agree" for r in report.results for f in r.findings)


def silent(report: Report) -> set[str]:
    """The checks that had nothing to compare, in any cell."""
    findings = [f for result in report.results for f in result.findings]
    return {f.check for f in findings if f.verdict == "not-applicable"}


@pytest.mark.parametrize(
    ("model", "unanswered"),
    [
        ("bias_before_norm", set()),
        ("bidirectional", set()),
        ("time_major", set()),
        ("mixing", {"batch-independence"}),
        ("attention", set()),
        ("maxima", set()),
        ("no_parameters", set()),
        # All examples are alike, so that sums over them are rounded to one side.
        ("position_only", set()),
        # Its loss is infinite in float32, whoever computes it.
        ("growing", {"loss", "gradients"}),
        # They have no time of 1, one of 7 or more, a batch of 1, or a time of 4.
        ("differences", set()),
        ("short_table", set()),
        ("next_of_the_batch", set()),
        ("no_padding", set()),
        ("first_place", set()),
        ("moved_indices", set()),
        ("columns", set()),
        ("long_convolution", {"batch-independence"}),
        ("both_directions", set()),
        ("masked_directions", set()),
        ("no_axes", set()),
        ("names_that_begin_alike", set()),
        # What an optimizer moves together lay in two orders.
        ("two_gates", set()),
        ("gated_by_the_one_before", set()),
        ("normalised_twice", set()),
        # What no step reads was not carried.
        ("nothing_kept", set()),
    ],
)
def test_no_model_is_blamed(model: str, unanswered: set[str]) -> None:
    report = harness.check(str(SPECS / f"{model}.yaml"), ["numpy", "torch"], paths=("derived",))
    assert faults(report) == []
    assert silent(report) == unanswered


@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("model", ["norms_of_one_number", "counted", "clipped_scale"])
def test_layers_of_frameworks_are_not_blamed(model: str, backend: str, seed: int) -> None:
    """What is nothing but rounding is rounded otherwise in a fused kernel, and whole numbers are
    not rounded by anybody."""
    report = harness.check(str(SPECS / f"{model}.yaml"), [backend], seed=seed)
    assert faults(report) == []
    assert silent(report) <= {"offset"}


@pytest.mark.parametrize(
    ("backend", "label"), [("torch", "torch.lstm"), ("keras", "keras.layers.Bidirectional LSTM")]
)
def test_a_frameworks_own_layer_keeps_the_states_where_a_mask_is_false(
    backend: str, label: str
) -> None:
    checks = ("outputs", "state", "loss", "gradients", "carried-state", "batch-independence")
    report = harness.check(str(SPECS / "masked_directions.yaml"), [backend], checks=checks)
    assert faults(report) == []
    for result in report.results:
        assert result.layers["read"] == label
        assert {f.verdict for f in result.findings} == {"agree"}


@pytest.mark.parametrize("backend", ["jax", "keras", "keras-jax"])
@pytest.mark.parametrize("model", ["normalised_twice", "nothing_kept"])
def test_statistics_go_through_calls_in_order_and_slots_stay_in_every_framework(
    model: str, backend: str
) -> None:
    """A model of Keras calls what is farther from its outputs first; and its moments are moved by
    differences, of which a small gradient after a large one has no digits where beta is 0."""
    checks = ("values", "optimizer-steps", "training", "pipeline*")
    assert faults(harness.check(str(SPECS / f"{model}.yaml"), [backend], checks=checks)) == []


def test_whoever_turns_one_of_two_relus_is_not_blamed() -> None:
    """Both together moved a parameter by less than half of what one alone did, in step 4."""
    report = harness.check(
        "resnet_bottleneck", ["jax"], checks="training-sgd", dtypes="float32", paths="derived"
    )
    assert faults(report) == []
    assert [f.verdict for r in report.results for f in r.findings] == ["agree"]


@pytest.mark.parametrize(("model", "seed"), [("bert", 4), ("bert", 0), ("moe", 5)])
def test_fused_attention_is_not_blamed_for_how_it_is_rounded(model: str, seed: int) -> None:
    """Of rows that are all but one-hot, its gradient has the rounding of terms that equations have
    not: a few yardsticks in one of sixteen draws, where the heads are few, and up to ninety."""
    report = harness.check(model, ["torch"], checks="saturation", sizes={"heads": 1}, seed=seed)
    assert faults(report) == []
    worst = [f.deviations[0] for r in report.results for f in r.findings]
    assert all(deviation.error < 8 * deviation.yardstick for deviation in worst)


@pytest.mark.parametrize(
    ("model", "uncompared"),
    [
        # What rounding leaves of a gradient that is 0, of terms that are rounded to a narrow dtype.
        ("bias_before_norm", "gradient.one.b"),
        # Beyond 65504, of a product and of what is added to it.
        ("counts_by_a_rate", "gradient.rate.b"),
    ],
)
def test_what_narrow_dtypes_have_not_is_nobodys_fault(model: str, uncompared: str) -> None:
    report = harness.check(
        str(SPECS / f"{model}.yaml"),
        ["torch"],
        dtypes=["bfloat16", "float16"],
        checks=("values", "far-inputs", "partial-batch"),
    )
    assert faults(report) == []
    told = " ".join(f.detail for result in report.results for f in result.findings)
    assert f"{uncompared} was not compared" in told


@pytest.mark.parametrize(
    ("model", "checks", "uncompared"),
    [
        ("naive_likelihood", ("extremes",), "loss"),
        # A gradient that is no number spreads as a framework has it: 0 times NaN, or not at all.
        ("weight_norm", ("kinks", "tails"), "gradient.many.W"),
    ],
)
def test_equations_that_end_in_no_number_blame_nobody(
    model: str, checks: tuple[str, ...], uncompared: str
) -> None:
    report = harness.check(str(SPECS / f"{model}.yaml"), ["numpy", "torch"], checks=checks)
    assert faults(report) == []
    for result in report.results:
        if result.cell.dtype == "float32":
            assert any(f"{uncompared} was not compared" in f.detail for f in result.findings)
    assert silent(report) == set()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_places_that_are_compared_stay_whole_in_narrow_dtypes(dtype: str) -> None:
    """Else a place within a row's length would be a matter of rounding, and all that follows."""
    report = harness.check("bert", ["torch"], dtypes=dtype, checks=("values", "training-sgd"))
    assert faults(report) == []
    assert silent(report) == set()


def test_a_gradient_of_what_no_digit_is_left_of_may_end_in_no_number() -> None:
    report = harness.check(
        str(SPECS / "steep_quotient.yaml"), ["torch"], dtypes="float32", checks="extremes"
    )
    assert faults(report) == []
    assert silent(report) == {"extremes"}


@pytest.mark.parametrize(
    ("optimizer", "backend"),
    [
        # The difference of two numbers near 2,000, of which one is divided by 1 - beta_2 ** t: a
        # last place of that power is a thousandth of a step in float32.
        ("radam", "torch"),
        ("radam", "jax"),
        # A second moment that is NaN is the largest, as the frameworks have it.
        ("amsgrad", "torch"),
        ("amsgrad_corrected", "jax"),
        ("amsgrad_epsilon_hat", "keras"),
        # The product of a hundred momenta is below the least normal number: XLA has 0.
        ("nadam", "jax"),
        # A norm that is NaN scales nothing, or makes all NaN.
        ("lamb", "jax"),
        # Beside large gradients, an average of none is below the least normal number.
        ("adafactor", "jax"),
        # A coefficient of 0: Keras' classes keep nothing, cannot be traced, or lose all digits.
        ("sgd_momentum_scaled, momentum: 0", "keras"),
        ("adadelta, rho: 0", "keras"),
        ("adam_epsilon_hat, beta_1: 0", "keras-jax"),
        ("adam, beta_1: 0", "numpy"),
        # By the spec itself no number, of a gradient of 0 or from the second step on.
        ("sgd, gradient: g * g / g", "numpy"),
        ("sgd, schedule: log(2 - t)", "numpy"),
    ],
)
def test_no_optimizer_is_blamed(optimizer: str, backend: str, tmp_path: Path) -> None:
    assert faults(steps_of(optimizer, backend, tmp_path)) == []


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_optimizer_with_products_is_not_blamed_for_narrow_ones(
    dtype: str, backend: str, tmp_path: Path
) -> None:
    assert faults(steps_of("muon", backend, tmp_path, dtypes=(dtype,))) == []


def steps_of(optimizer: str, backend: str, folder: Path, **further: Any) -> Report:
    text = (SPECS / "maxima.yaml").read_text(encoding="utf-8")
    spec = folder / "maxima.yaml"
    spec.write_text(text.replace("optimizer: sgd", f"optimizer: {optimizer}"), encoding="utf-8")
    checks = ("optimizer-steps",)
    return harness.check(str(spec), [backend], checks=checks, timeout=600.0, **further)


def test_long_runs_of_an_optimizer_are_left_to_float32_by_float64_alone() -> None:
    def compared(*dtypes: str) -> dict[str, int]:
        report = harness.check("lesson6/three_char", ["numpy"], dtypes=dtypes)
        assert faults(report) == []
        return {
            r.cell.dtype: f.comparisons
            for r in report.results
            for f in r.findings
            if f.check == "optimizer-steps"
        }

    both, alone = compared(*BOTH), compared("float64")
    assert both["float64"] < alone["float64"] == both["float32"]
    beside, alone = compared("float32", "bfloat16"), compared("bfloat16")
    assert beside["bfloat16"] == alone["bfloat16"]
