"""What a session refuses, and what it says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wording import Wording

from harness.backends.numpy.backend import Numpy
from harness.errors import UsageError
from harness.language.model import Spec, load_spec
from harness.oracle.draw import draw
from harness.program.updates import UpdateRule
from harness.runtime.answers import Arguments
from harness.runtime.native import (
    ClaimableCall,
    Function,
    GradientFunction,
    Native,
    NativeOptimizer,
    Tensors,
)
from harness.runtime.packing import FrozenZeros, Packing, Part
from harness.runtime.session import Session

SIZES = {"hidden": 7, "vocab": 11, "factors": 5}


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec("lesson6/stateful_lstm")


@pytest.fixture(scope="module")
def material(spec: Spec) -> Arguments:
    return draw(spec.program("training", **SIZES), 3, 4, 0)


def opened(spec: Spec, backend: Numpy | None = None, **choices: Any) -> Session:
    programs = (spec.program("training", **SIZES), spec.program("inference", **SIZES))
    return Session(backend or Numpy(), *programs, **choices)


@pytest.fixture
def session(spec: Spec, material: Arguments) -> Session:
    found = opened(spec, dtype="float64", rule=spec.rule("sgd_momentum"))
    found.load(material.parameters, material.statistics)
    return found


# --- Arrays that do not fit -------------------------------------------------------------------

CHARS = np.array([[0, 1, 2, 3]] * 3)
BELOW, ABOVE = CHARS.copy(), CHARS.copy()
BELOW[2, 3], ABOVE[1, 0] = -1, 11
STATE = np.zeros((3, 7))

WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "missing input": ("inputs", {}, r"input 'chars' is missing \(needed: chars\)"),
    "unknown input": (
        "inputs",
        {"chars": CHARS, "char": CHARS},
        r"unknown input 'char' \(known: chars\)",
    ),
    "missing state": ("state", {"h": STATE}, r"state 'c' is missing \(needed: h, c\)"),
    "unknown target": (
        "targets",
        {"target": CHARS, "aim": CHARS},
        r"unknown target 'aim' \(known: target\)",
    ),
    "axes": (
        "inputs",
        {"chars": CHARS[0]},
        r"input.chars: expected shape \[batch, time\], found \[4\]: 1 axis instead of 2",
    ),
    "width": (
        "state",
        {"h": STATE, "c": np.zeros((3, 8))},
        r"state.c: axis 1 is hidden = 7, found 8 \(expected shape \[batch, hidden\], found",
    ),
    "batch": (
        "state",
        {"h": STATE[:2], "c": STATE},
        r"state.h: axis 0 is batch = 3, found 2 \(expected shape \[batch, hidden\]",
    ),
    "time": (
        "targets",
        {"target": CHARS[:, :3]},
        r"target.target: axis 1 is time = 4, found 3 \(expected shape \[batch, time\]",
    ),
    "empty": ("inputs", {"chars": CHARS[:, :0]}, r"input.chars: axis 1 is time: no time of 1"),
    "below": ("inputs", {"chars": BELOW}, r"input.chars\[2, 3\] is -1; allowed are 0 to 10"),
    "above": ("inputs", {"chars": ABOVE}, r"input.chars\[1, 0\] is 11; allowed are 0 to 10"),
    "target above": (
        "targets",
        {"target": ABOVE},
        r"target.target\[1, 0\] is 11; allowed are 0 to 10",
    ),
    "floats": (
        "inputs",
        {"chars": CHARS.astype(float)},
        "input.chars: expected integers, found float64",
    ),
    "bools": ("inputs", {"chars": CHARS > 1}, "input.chars: expected integers, found bool"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("verb", ["forward", "gradients", "step"])
def test_arrays_that_do_not_fit_are_refused_in_words(
    session: Session, wrong: str, verb: str
) -> None:
    group, given, words = WRONG[wrong]
    arrays: dict[str, Any] = {
        "inputs": {"chars": CHARS},
        "state": {"h": STATE, "c": STATE},
        "targets": {"target": CHARS},
    }
    more = {"learning_rate": 0.1} if verb == "step" else {"phase": "training"}
    getattr(session, verb)(**more, **arrays)
    before = session.read()
    with pytest.raises(UsageError, match=words):
        getattr(session, verb)(**more, **{**arrays, group: given})
    after = session.read()
    for name, array in before["parameters"].items():
        assert np.array_equal(array, after["parameters"][name])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integers_are_indices(session: Session, material: Arguments, dtype: Any) -> None:
    chars = material.inputs["chars"]
    one = session.forward("inference", {"chars": chars}, material.state)
    other = session.forward("inference", {"chars": chars.astype(dtype)}, material.state)
    assert np.array_equal(one["output.logits"], other["output.logits"])


@pytest.mark.parametrize(
    ("group", "change", "words"),
    [
        ("parameters", {"out.b": None}, "'out.b'"),
        (
            "parameters",
            {"out.b": np.zeros(10)},
            "out.b ... [11] ... [10]",
        ),
        ("parameters", {"out.c": np.zeros(11)}, "'out.c'"),
        ("statistics", {"norm.moving_mean": None}, "'norm.moving_mean'"),
        (
            "statistics",
            {"norm.moving_mean": np.zeros((5, 1))},
            "norm.moving_mean ... [5] ... [5, 1]",
        ),
        ("statistics", {"mean": np.zeros(5)}, "'mean'"),
    ],
)
def test_parameters_and_statistics_that_do_not_fit_are_refused(
    session: Session,
    material: Arguments,
    group: str,
    change: dict[str, Any],
    words: str,
    wording: Wording,
) -> None:
    given = {"parameters": dict(material.parameters), "statistics": dict(material.statistics)}
    for name, array in change.items():
        if array is None:
            del given[group][name]
        else:
            given[group][name] = array
    with wording.raises(UsageError, words):
        session.load(**given)


# --- Optimizers and paths ---------------------------------------------------------------------


class Halving(NativeOptimizer):
    """Halves every variable, whatever its gradient."""

    label = "Halving"

    def start(self, variables: Tensors) -> Any:
        return 0

    def update(
        self, state: Any, variables: Tensors, gradients: Tensors, learning_rate: float
    ) -> tuple[Any, Tensors]:
        return state + 1, {n: v / 2 for n, v in variables.items()}

    def slots(self, state: Any) -> dict[str, Tensors]:
        return {}


class Claiming(Numpy):
    """Claims the dense layers, with a second bias that stays zero, and plain SGD.

    Its gradients are all ones: these tests only ask what is updated.
    """

    def claim(self, layer: ClaimableCall) -> Native | None:
        if layer.definition != "dense":
            return None
        pieces = {"w": Part("W", True), "b": Part("b"), "b2": FrozenZeros(layer.shapes["b"])}

        def run(values: Tensors, packed: Tensors) -> list[Any]:
            return [values["x"] @ packed["w"].T + packed["b"] + packed["b2"]]

        return Native("Rows", run, Packing(pieces))

    def value_and_gradient(self, function: Function) -> GradientFunction | None:
        def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
            ones = {n: np.ones_like(v) for n, v in variables.items()}
            return function(variables, constants), ones

        return run

    def claim_optimizer(self, rule: UpdateRule) -> NativeOptimizer | None:
        return Halving() if rule.name == "sgd" else None


def test_paths_say_who_runs_what(spec: Spec) -> None:
    session = opened(spec, Claiming(), rule=spec.rule("sgd"))
    assert session.paths() == {
        "embed": "equations",
        "norm": "equations",
        "lstm": "equations",
        "out": "Rows",
        "sparse_cross_entropy": "equations",
        "optimizer": "Halving",
    }
    assert set(opened(spec, Claiming(), path="equations", rule=spec.update).paths().values()) == {
        "equations"
    }
    assert "optimizer" not in opened(spec).paths()


def test_a_rule_is_used_from_the_next_load_on(spec: Spec, material: Arguments) -> None:
    session = opened(spec, Claiming(), dtype="float64", rule=spec.rule("sgd"))
    given = (material.inputs, material.state, material.targets)

    def moved(rate: float) -> dict[str, Any]:
        session.load(material.parameters, material.statistics)
        session.step(*given, rate)
        return {n: a / material.parameters[n] for n, a in session.read()["parameters"].items()}

    assert all(np.all(ratio == 0.5) for ratio in moved(1.0).values())
    session.use_rule(spec.rule("sgd_momentum"))
    assert session.paths()["optimizer"] == "equations"
    ratios = moved(1e-3)
    assert not np.any(ratios["out.b"] == 0.5)
    velocity = session.read()["slots"]["velocity"]
    assert set(velocity) == set(material.parameters)
    session.use_rule(None)
    assert "optimizer" not in session.paths()


def test_what_is_frozen_is_neither_trained_nor_neutral(spec: Spec, material: Arguments) -> None:
    session = opened(spec, Claiming(), dtype="float64", rule=spec.rule("sgd_momentum"))
    session.load(material.parameters, material.statistics)
    assert set(session.variables) - set(session.trained()) == {"out/b2"}
    session.step(material.inputs, material.state, material.targets, 0.5)
    assert not session.variables["out/b2"].any()
    assert not np.array_equal(session.variables["out/b"], material.parameters["out.b"])
    found = session.read()
    assert set(found["parameters"]) == set(material.parameters)
    assert set(found["slots"]["velocity"]) == set(material.parameters)


def test_a_claim_without_automatic_differentiation_is_refused_in_words(
    spec: Spec, material: Arguments, wording: Wording
) -> None:
    class NoGradients(Claiming):
        def value_and_gradient(self, function: Function) -> GradientFunction | None:
            return None

    session = opened(spec, NoGradients(), dtype="float64")
    session.load(material.parameters, material.statistics)
    session.forward("training", material.inputs, material.state)
    with wording.raises(UsageError):
        session.gradients("training", material.inputs, material.state, material.targets)


# --- Traces -----------------------------------------------------------------------------------


def test_a_trace_names_every_value_once_in_the_order_of_making(
    session: Session, material: Arguments
) -> None:
    found = [(n, t) for n, t, _ in session.trace("training", material.inputs, material.state)]
    assert len(found) == len(set(found))
    names = list(dict.fromkeys(n for n, _ in found))
    gates = ["lstm/i", "lstm/f", "lstm/g", "lstm/o", "lstm/c"]
    assert [n for n in names if n in gates] == gates
    for gate in gates:
        assert [t for n, t in found if n == gate and t is not None] == [0, 1, 2, 3]
    assert names.index("norm/y") < names.index("lstm/i") < names.index("out/y")


def test_a_claimed_layer_shows_its_results_only(spec: Spec, material: Arguments) -> None:
    session = opened(spec, Claiming(), dtype="float64")
    session.load(material.parameters, material.statistics)
    traced = {n: a for n, _, a in session.trace("training", material.inputs, material.state)}
    assert [n for n in traced if n.startswith("out/")] == ["out/y"]
    assert traced["out/y"].shape == (3, 4, 11)
