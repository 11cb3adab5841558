"""Where a cell differs though its forward pass on ordinary values is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wording import Wording

from harness.checking.first_difference import Expectations, describe_later_phases, find_makers
from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation
from harness.results.findings import Finding


@pytest.fixture(scope="module")
def lstm() -> Case:
    return make_case(load_spec("lesson6/stateful_lstm"), Request(), own=False)


def finding(check: str, *names: str, right: tuple[str, ...] = (), **errors: float) -> Finding:
    """A check's finding in which ``names`` are off and ``right`` are not."""
    off = [Deviation(name, errors.get("error", 1.0), 1e-7, 1e-6) for name in names]
    return Finding(check, off + [Deviation(name, 0.0, 1e-7, 1e-6) for name in right]).judge()


def test_only_layers_that_a_wrong_value_depends_on_are_named(lstm: Case) -> None:
    program = lstm.training
    assert find_makers(program, "hidden_states", ()) == ("embed", "norm", "lstm")
    assert find_makers(program, "hidden_states", ["norm/y"]) == ("lstm",)
    assert find_makers(program, "output.logits", ["hidden_states"]) == ("out",)
    assert find_makers(program, "loss", ["out/y"]) == ("sparse_cross_entropy",)


def test_wrong_gradients_are_named_from_the_loss_on(lstm: Case, wording: Wording) -> None:
    findings = [
        finding("outputs", right=("output.logits",)),
        finding("gradients", "gradient.embed.table", right=("gradient.out.W",)),
        finding("cotangent-gradients", "gradient.embed.table", "gradient.norm.beta"),
        finding("training-sgd", "step 1: embed.table moved"),
    ]
    text, layers = describe_later_phases(findings, lstm.training)
    wording(text, "gradients: gradient.norm.beta (batch_norm), gradient.embed.table")
    assert layers == ("norm", "embed")


def test_a_layer_of_a_chain_has_its_own_definition() -> None:
    program = load_spec("resnet").program()
    words, _ = describe_later_phases(
        [finding("gradients", "gradient.third.0.norm_1.beta")], program
    )
    assert words.endswith("wrong gradients: gradient.third.0.norm_1.beta (batch_norm)")


def test_three_wrong_gradients_are_named_at_most(lstm: Case, wording: Wording) -> None:
    names = [f"gradient.{port.name}" for port in lstm.training.parameters[:-2]]
    words, _ = describe_later_phases([finding("gradients", *names)], lstm.training)
    wording.line(
        words,
        "gradients: gradient.lstm.b_o ... gradient.lstm.b_g"
        f" ... gradient.lstm.b_f ... {len(names) - 3}",
    )


def test_the_first_wrong_step_is_named(lstm: Case, wording: Wording) -> None:
    late = finding("training", "step 10: out.W m", "step 3: out.W m", error=5.0)
    late.deviations.append(Deviation("step 3: out.b v", 9.0, 1e-7, 1e-6))
    early = finding("training-sgd", "step 2: out.b moved", right=("step 1: out.b moved",))
    right = finding("gradients", right=("gradient.out.W",))
    extreme = finding("extremes", "loss")
    known = finding("gradients", "gradient.embed.table")
    known.verdict = "known-difference"
    text, layers = describe_later_phases([right, late, extreme], lstm.training)
    wording(text, "gradients ... 'step 3: out.b v'")
    assert layers == ("out",)
    wording(
        describe_later_phases([late, early], lstm.training)[0],
        "gradients ... 'step 2: out.b moved'",
    )
    assert describe_later_phases([known, late, early], lstm.training)[1] == ("out",)


def test_results_that_are_not_traced_are_named(lstm: Case, wording: Wording) -> None:
    findings = [finding("loss", "loss"), finding("gradients", "gradient.out.W")]
    wording(describe_later_phases(findings, lstm.training)[0], "forward ... agrees ... loss")


def test_checks_on_other_values_are_named(lstm: Case, wording: Wording) -> None:
    findings = [
        finding("gradients", right=("gradient.out.W",)),
        finding("extremes", "loss"),
        Finding("kinks", faults=["a corner is cut"]).judge(),
        Finding("causality", held=1).judge(),
    ]
    wording(describe_later_phases(findings, lstm.training)[0], "forward ... extremes, kinks")


# --- Native layers, places --------------------------------------------------------------------


def test_where_the_model_overflows_nothing_is_warned_of() -> None:
    """A warning of the oracle's own numbers would stand between the lines of the report."""
    growing = Path(__file__).parents[1] / "support" / "odd_models" / "growing.yaml"
    case = make_case(load_spec(str(growing)), Request(), own=False)
    large = {name: 4 * array for name, array in case.material.parameters.items()}
    material = replace(case.material, parameters=large)
    found = Expectations(case, material, "float32").values["y", None]
    assert (found > np.finfo(np.float32).max).any()
