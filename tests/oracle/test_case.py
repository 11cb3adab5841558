"""The material that is checked with, and what the oracle says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from places import SUPPORT

from harness.checking.request import Request, make_case
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle import kinks
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.draw import draw
from harness.oracle.kinks import KINK_MARGIN, kink_margin
from harness.oracle.oracle import ORDERS
from harness.runtime.answers import Arguments
from harness.runtime.session import Session

GROUPS = ("parameters", "statistics", "inputs", "state", "targets")


def small(name: str, seed: int = 0) -> Case:
    return make_case(load_spec(f"lesson6/{name}"), Request(seed=seed), own=False)


@pytest.fixture(scope="module")
def lstm() -> Case:
    return small("stateful_lstm")


def arrays(material: Arguments) -> dict[str, Any]:
    return {f"{g} {n}": a for g in GROUPS for n, a in getattr(material, g).items()}


def test_rows_of_steps_and_labels_have_one_to_spare_or_do_not_fit() -> None:
    spec = load_spec(str(SUPPORT / "odd_models" / "spoken.yaml"))
    case = make_case(spec, Request(), own=False)
    steps, labels = case.material.inputs["lengths"], case.material.targets["counts"]
    assert steps.tolist() == [case.time, 3, 1]
    assert labels.tolist() == [2, 2, 2]
    other = case.batch_of(case.batch, case.time, 1)
    assert other.inputs["lengths"].tolist() == [2, case.time, 0]
    assert other.targets["counts"].tolist() == [1, 2, 0]
    for time in (1, 2):
        short = case.batch_of(case.batch, time, 2)
        assert (short.inputs["lengths"] <= time).all()


# --- Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lesson6())
def test_material_is_exact_in_float32_and_of_the_programs_shapes(name: str) -> None:
    program = load_spec(name).program("training", hidden=7)
    material = draw(program, 3, 4, 0)
    for label, array in arrays(material).items():
        if array.dtype.kind == "f":
            assert array.dtype == np.float64, label
            assert np.array_equal(array, array.astype(np.float32)), label
            assert np.unique(array).size > 1, label
        else:
            assert array.dtype == np.int64, label
    free = {"batch": 3, "time": 4}
    for group in GROUPS:
        ports = getattr(program, group)
        found = {n: a.shape for n, a in getattr(material, group).items()}
        assert found == {p.name: program.shape(p, free) for p in ports}


@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_a_bias_behind_convolutions_is_seen_beside_what_they_add_up_to(name: str) -> None:
    case = make_case(load_spec(name), Request(), own=False)
    logits = case.forward("inference", case.material, "main").values["output.logits"]
    assert 1 < np.abs(logits).max() < 32


def test_material_is_at_no_special_value(lstm: Case) -> None:
    material = lstm.material
    vectors = {n: a for n, a in material.parameters.items() if a.ndim == 1}
    assert len(vectors) == 7  # four gates, out.b, gamma and beta
    for name, array in {**vectors, **material.statistics}.items():
        assert np.abs(array).min() >= 0.2, name
        assert not np.any(array == 1), name
    for name in ("norm.moving_variance",):
        assert material.statistics[name].min() > 0
    assert material.parameters["norm.gamma"].min() > 0
    for gate in "ifgo":
        recurrent = material.parameters[f"lstm.U_{gate}"]
        assert np.abs(recurrent - recurrent.T).max() > 0.1
    assert all(np.abs(a).max() > 0.1 for a in material.state.values())


def test_indices_are_below_their_bound_and_targets_sum_to_1() -> None:
    program = load_spec("lesson6/keras_gru").program("training", hidden=7, vocab=11)
    target = draw(program, 3, 4, 0).targets["target"]
    assert np.array_equal(target.sum(-1), np.ones((3, 4)))
    assert target.min() == 0
    indexed = load_spec("lesson6/simple_rnn").program("training", vocab=5)
    chars = draw(indexed, 50, 8, 0).inputs["chars"]
    assert sorted(np.unique(chars)) == [0, 1, 2, 3, 4]


def test_other_seeds_other_numbers_and_the_same_seed_the_same(lstm: Case) -> None:
    program = lstm.training
    one, same, other = (arrays(draw(program, 3, 4, seed)) for seed in (0, 0, 1))
    for name in one:
        assert np.array_equal(one[name], same[name]), name
        assert not np.array_equal(one[name], other[name]), name
    for name, array in small("stateful_lstm", 1).material.parameters.items():
        assert not np.array_equal(array, lstm.material.parameters[name])
    parameters = lstm.material.parameters
    assert not np.array_equal(parameters["lstm.W_i"], parameters["lstm.W_f"])


def test_another_batch_keeps_the_parameters(lstm: Case) -> None:
    other = lstm.batch_of(2, 6)
    assert other.parameters is lstm.material.parameters
    assert other.inputs["chars"].shape == (2, 6)
    assert other.state["h"].shape == (2, 7)
    assert not np.array_equal(lstm.batch_of(3, 4).state["h"], lstm.material.state["h"])


def test_cotangents_are_of_every_output_and_state_and_never_flat(lstm: Case) -> None:
    names = {f"output.{n}" for n in ("normalised", "hidden_states", "logits", "next_chars")}
    assert {"state.h", "state.c"} <= set(lstm.cotangents) <= names | {"state.h", "state.c"}
    for array in lstm.cotangents.values():
        assert array.std() > 0.5
        assert np.array_equal(array, array.astype(np.float32))


# --- Kinks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["keras_gru", "simple_rnn", "stateful_lstm", "three_char"])
def test_material_is_off_every_kink(name: str) -> None:
    case = small(name)
    margin = kink_margin(case.training, case.material)
    assert KINK_MARGIN <= margin < np.inf


def test_a_preactivation_on_a_kink_is_seen() -> None:
    case = small("simple_rnn")
    parameters = dict(case.material.parameters)
    parameters["embed.table"] = np.zeros_like(parameters["embed.table"])
    parameters["rnn.b"] = np.zeros_like(parameters["rnn.b"])
    on_it = dataclasses.replace(case.material, parameters=parameters)
    assert kink_margin(case.training, on_it) == 0.0


def test_a_draw_on_a_kink_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    margins = iter([0.0, 1e-7, 0.5, 0.9])
    monkeypatch.setattr(kinks, "kink_margin", lambda *_: next(margins))
    assert small("simple_rnn").seed == 2
    margins = iter([1e-9, 1e-6, *[0.0] * 40])
    assert small("simple_rnn").seed == 1


# --- Expected values --------------------------------------------------------------------------


def test_expected_values_are_computed_once(lstm: Case) -> None:
    calls: list[str] = []

    def run(session: Session) -> Mapping[str, Any]:
        calls.append(session.dtype)
        return {"y": np.asarray(1 / 3, session.dtype)}

    once = lstm.expect("counted", run)
    assert lstm.expect("counted", run) is once
    assert calls == ["float64"]
    assert once.values["y"].dtype == np.float64
    once.noise("float32")
    # Rounded at random, and in each order.
    assert calls == ["float64", *["float32"] * (1 + len(ORDERS))]
    assert once.noise("float32")["y"] == pytest.approx(abs(float(np.float32(1 / 3)) - 1 / 3) * 3)
    assert once.noise("float64")["y"] == 0.0
    assert calls[-1] == "float64"
    main = lstm.gradients(lstm.material, "main")
    assert lstm.gradients(lstm.material, "main") is main
    assert lstm.gradients(lstm.material, "main", lstm.cotangents) is not main
    assert lstm.gradients(lstm.material, "other") is not main


def test_no_noise_is_below_the_median_of_its_pass(lstm: Case) -> None:
    errors = {"a": 0.0, "b": 1e-8, "c": 2e-8, "d": 3e-8, "e": 1e-9, "f": np.inf}

    def run(session: Session) -> Mapping[str, Any]:
        off = session.dtype != "float64"
        return {n: np.asarray(1.0 + e if off else 1.0) for n, e in errors.items()}

    noise = lstm.expect("noise", run).noise("float32")
    assert [noise[n] for n in "abcd"] == pytest.approx([1e-8, 1e-8, 2e-8, 3e-8], rel=1e-6)
    # Where float32 has no answer it is not said to be exact.
    assert noise["f"] == np.inf
    expected = lstm.gradients(lstm.material, "main")
    assert set(expected.noise("float32")) == set(expected.values)
    noise = expected.noise("float32")
    assert 1e-8 < min(noise.values()) < max(noise.values()) < 1e-4


def test_only_selects_by_prefix(lstm: Case) -> None:
    expected = lstm.gradients(lstm.material, "main")
    names = set(expected.only("gradient.", "loss").values)
    assert "loss" in names
    assert {n.partition(".")[0] for n in names} == {"loss", "gradient"}


def test_training_carries_its_state(lstm: Case) -> None:
    rule = lstm.spec.update
    assert rule is not None
    batches = [
        {"inputs": m.inputs, "targets": m.targets, "learning_rate": 0.01}
        for m in (lstm.material, lstm.batch_of(3, 4))
    ]
    found = lstm.train(rule, batches, lstm.material, "two").values
    session = lstm._reference.oracle
    session.load(lstm.material.parameters, lstm.material.statistics)
    state: Mapping[str, Any] = lstm.material.state
    losses = []
    for batch in batches:
        results = session.step(batch["inputs"], state, batch["targets"], 0.01)
        state = state_of(results)
        assert set(state) == {"h", "c"}
        losses.append(float(results["loss"]))
    assert [float(found[f"step {n}: loss"]) for n in (1, 2)] == losses
    session.load(lstm.material.parameters, lstm.material.statistics)
    session.step(batches[0]["inputs"], lstm.material.state, batches[0]["targets"], 0.01)
    fresh = session.step(batches[1]["inputs"], lstm.material.state, batches[1]["targets"], 0.01)
    assert abs(float(fresh["loss"]) - losses[1]) > 1e-6


def test_a_step_is_compared_by_how_far_parameters_moved(lstm: Case) -> None:
    start = lstm.material.parameters["out.b"]
    step = {
        "results": {"loss": np.float32(2.0)},
        "parameters": {"out.b": (start - 1e-3).astype(np.float32)},
        "statistics": {"norm.moving_mean": np.zeros(5, np.float32)},
        "slots": {"m": {"out.b": np.ones(11, np.float32)}},
    }
    found = step_values(3, step, lstm.material)
    assert set(found) == {
        "step 3: loss",
        "step 3: out.b moved",
        "step 3: norm.moving_mean",
        "step 3: out.b m",
    }
    moved = found["step 3: out.b moved"]
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, -1e-3, atol=1e-7)
