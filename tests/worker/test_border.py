"""What a backend returns is looked at where it comes in: a broken promise is a finding of its own
cell, and names what was broken."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import plugin_broken_promises
import pytest
from broken_promises import run
from wording import Wording

from harness.results.cell import CellResult

# Fault -> the check that names it, and how.
NAMED: Mapping[str, tuple[str, str]] = {
    "numpy-none": ("values", "numpy() returned None for "),
    "numpy-list": ("values", "numpy() returned a value of type list for "),
    "primitive-none": ("values", "returned None; expected a tensor (in the primitive tanh([3, 7]"),
    "primitive-signature": ("values", "argument 'shape' (in the primitive broadcast_to([1], "),
    "primitive-dtype": ("primitives", "add([3, 7], [7]) returned dtype float32; expected float64"),
    "equal-floats": ("primitives", "equal([2, 3], [3]) returned dtype float64; expected bool"),
    "execute-empty": ("pipeline", "the function from execute() returned no loss, step, "),
    "dict": (
        "start",
        "harness_backend returned a value of type dict; expected a harness.extend.Backend",
    ),
    "lacks-required": ("start", "lacks('float64') names 'tanh', which every backend must have"),
    "trace-lists": ("outputs", "output.h1: nothing was returned"),
}
# The same for those that are only run with all tests.
SIBLINGS: Mapping[str, tuple[str, str]] = {
    "numpy-text": ("primitives", "tensor() returned dtype <U32; expected float64"),
    "numpy-object": (
        "primitives",
        "numpy() returned an array of dtype object for the result of tensor()",
    ),
    "tensor-narrow": ("primitives", "tensor() returned dtype float32; expected float64"),
    "tensor-none": (
        "primitives",
        "tensor() returned a NoneType whose shape is not a tuple of numbers",
    ),
    "primitive-list": (
        "primitives",
        "matmul([3, 5], [5, 7]) returned a list whose shape is not a",
    ),
    "primitive-raises": ("values", "list index out of range (in the primitive expand_dims([3], "),
    "primitive-hidden-dtype": (
        "primitives",
        "keepdims=True) returned dtype float32; expected float64",
    ),
    "primitive-axes": ("primitives", "axes=(1, 0)) returned shape [7, 11]; expected [11, 7]"),
    "primitive-shape": (
        "primitives",
        "sum([3], axis=(0,), keepdims=False) returned shape [1]; expected []",
    ),
    "less-equal-bytes": (
        "primitives",
        "less_equal([3, 7], []) returned dtype uint8; expected bool",
    ),
    "one-hot-integers": (
        "primitives",
        "one_hot([3], classes=11, dtype='float64') returned dtype int64",
    ),
    "table-list": (
        "start",
        "primitives returned a value of type list; expected a dictionary of functions",
    ),
    "table-number": (
        "start",
        "'exp' in the table of primitives is a value of type float; expected a function",
    ),
    "compile-none": ("values", "compile() returned None; expected a function"),
    "compiled-none": (
        "values",
        "the function from compile() returned None; expected a dictionary of tensors by name",
    ),
    "compiled-list": (
        "inference",
        "the function from compile() returned a value of type list; expected a dict",
    ),
    "execute-none": ("pipeline", "execute() returned None; expected a function"),
    "execute-list": (
        "pipeline",
        "the function from execute() returned a value of type list; expected a dictionary",
    ),
    "advance-none": ("pipeline", "advance() returned None; expected a function"),
    "several-text": ("pipeline", "several() returned a value of type str; expected a function"),
    "gradient-text": (
        "open",
        "value_and_gradient() returned a value of type str; expected a function",
    ),
    "gradient-single": ("values", "returned a value of type tuple; expected results and gradients"),
    "session-text": (
        "open",
        "session() returned a value of type str; expected a "
        "harness.extend.executor.Session, or None",
    ),
    "claim-text": (
        "open",
        "claim() of embedding returned a value of type str; expected a Native, or None",
    ),
    "claim-packing": (
        "open",
        "the packing of claim() of embedding returned None; expected a Packing",
    ),
    "claim-few": ("inference", "Nothing returned 0 results; expected 1"),
    "optimizer-text": (
        "open",
        "claim_optimizer() returned a value of type str; expected a NativeOptimizer",
    ),
    "optimizer-single": (
        "training-sgd",
        "update() returned a value of type dict; expected the next state",
    ),
    "optimizer-clips": ("open", "Clipper clips gradients, but the model does not"),
    "versions-list": (
        "start",
        "versions() returned a value of type list; expected a dictionary of texts",
    ),
    "versions-many": ("start", "versions() returned 1,000 texts; 100 are allowed"),
    "fused-number": (
        "start",
        "fused returned a value of type int; expected a dictionary of functions",
    ),
    "primitive-surrogate": ("primitives", r"tanh raised RuntimeError: odd \ud800 text"),
    "devices-text": ("start", "devices() returned 'cpu'; expected a list of names"),
    "dtypes-none": ("start", "dtypes() returned None; expected a list of names"),
    "settings-list": (
        "pipeline",
        "settings() returned a value of type list; expected a dictionary of texts",
    ),
    "paths-list": ("open", "answer['paths']: Input should be a valid dictionary, found ['native']"),
    "forward-none": ("inference", "answer: Input should be a valid dictionary, found None"),
    "forward-list": ("inference", "answer: Input should be a valid dictionary, found [1.0]"),
    "forward-odd": ("inference", "answer[1]: Input should be a valid string, found 1"),
    "gradients-odd": ("gradients", "gradient.embed_1.table: nothing was returned"),
    "step-empty": ("training-sgd", "step 1: loss: nothing was returned"),
    "read-empty": ("initial-values", "answer['parameters']: Field required"),
    "read-odd": ("training-sgd", "answer[0]['slots']['m']: Input should be a valid dictionary"),
    "trace-odd": ("outputs", "output.h1: nothing was returned"),
    "no-name": ("start", "Plain.name is not a string; expected the name of the entry point"),
    "other": (
        "start",
        "harness_backend returned a value of type SimpleNamespace; expected a harness.",
    ),
    "lacks-text": ("start", "lacks('float64') returned 'erf'; expected a list of names"),
    "device-lost": ("values", "CUDA error: an illegal memory access was encountered"),
    "poisoned": ("values", "RuntimeError: no more"),
}
# Those that the tests of the other commands are for.
ELSEWHERE = ("forward-flat", "forward-empty", "forward-texts", "read-narrow", "read-integers")
ELSEWHERE += ("second-path-lost", "memory-huge", "sqrt-in-lanes", "erf-undeclared", "erf-lacking")
ELSEWHERE += ("no-device", "talkative", "windows-lacking")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin as this process sees it."""
    monkeypatch.syspath_prepend(plugin_broken_promises.FOLDER)


@functools.cache
def matrix(faults: tuple[str, ...]) -> dict[str, CellResult]:
    """A run of many faults beside each other, and of a backend that is right."""
    report = run(*faults, "nothing")
    assert report.exit_code != 0
    return {r.cell.backend.removeprefix("wrong-"): r for r in report.results}


def named(fault: str, among: Mapping[str, tuple[str, str]]) -> None:
    """A fault is found by the check that must name it, and no fault of the harness is."""
    result = matrix(tuple(among))[fault]
    check, words = among[fault]
    assert result.verdict in ("differ", "error"), result
    (finding,) = [f for f in result.findings if f.check == check]
    assert words in finding.detail
    assert not [f.detail for f in result.findings if "error in the harness itself" in f.detail]


@pytest.mark.parametrize("fault", NAMED)
def test_a_broken_promise_is_named(fault: str) -> None:
    named(fault, NAMED)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SIBLINGS)
def test_every_other_broken_promise_is_named(fault: str) -> None:
    named(fault, SIBLINGS)


def test_the_backend_beside_them_agrees() -> None:
    result = matrix(tuple(NAMED))["nothing"]
    assert result.verdict == "agree"
    # The check of the primitives was not asked for, and shows only where it fails.
    assert "primitives" not in [f.check for f in result.findings]


def test_every_fault_of_the_plugin_is_expected() -> None:
    import harness_wrong

    expected = {*NAMED, *SIBLINGS, *ELSEWHERE, "nothing"}
    assert expected == {*harness_wrong.FAULTS, "dict", "no-name", "other"}


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("primitive-dtype", "add([3, 7], [7]) ... float32 ... float64"),
        (
            "trace-lists",
            "forward ... differs ... layer embed_1 (specs/layers/embedding.yaml:9)",
        ),
    ],
)
def test_the_first_value_of_a_wrong_kind_is_the_place(
    fault: str, place: str, wording: Wording
) -> None:
    wording(matrix(tuple(NAMED))[fault].location, place)


def test_a_wrong_primitive_fails_whatever_is_asked_for() -> None:
    (result,) = run("equal-floats", checks=("values",)).results
    assert [(f.check, f.verdict) for f in result.findings if f.verdict != "agree"] == [
        ("primitives", "differ")
    ]
    assert result.verdict == "differ"
