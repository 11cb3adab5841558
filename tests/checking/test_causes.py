"""The cause of a planted fault, by substitution: where it is planted, and that nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import localised
import pytest
from click.testing import CliRunner
from test_mutants import BACKENDS, MUTANTS, installed

from harness.checking.causes.cause import Causes, Localised
from harness.checking.causes.localise import localise
from harness.checking.checks import FINDINGS
from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.cli import cli
from harness.results.cell import Cell
from harness.results.findings import Blame

ORDINARY = ("values", "cotangents", "inference")
Search = Callable[..., Localised]


@pytest.fixture(scope="module")
def search() -> Iterator[Search]:
    """Looks for the cause of a planted fault."""
    with installed(), Engine(Request(backends=BACKENDS[:1])) as engine:

        def look(name: str, against: str | None = None) -> Localised:
            mutant = MUTANTS[name]
            checks = dict.fromkeys((*ORDINARY, FINDINGS[mutant.check]))
            engine.request = replace(engine.request, checks=tuple(checks))
            cell = Cell(mutant.spec, BACKENDS[0], name, mutant.dtypes[0], "native")
            return localise(engine, cell, against)

        yield look


def first(found: Localised) -> str:
    assert found.causes is not None
    return str(found.causes.items[0])


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        ("lstm-output-not-squashed", "lstm.yaml:37", "forward: h of layer lstm, time step 0,"),
        ("loss-in-bits", "cross_entropy.yaml:7", "forward: y of layer cross_entropy"),
        ("norm-epsilon-missing-in-inference", "batch_norm.yaml:26", "forward: y of layer norm"),
        ("lstm-cell-clipped", "lstm.yaml:36", "with the data of saturation: c of layer lstm"),
    ],
)
def test_a_wrong_value_is_the_cause_where_all_else_agrees_with_it(
    search: Search, name: str, where: str, words: str
) -> None:
    found = search(name)
    assert where in first(found)
    assert words in first(found)
    assert found.causes is not None
    assert found.causes.proved
    assert "it is the cause" in found.causes.proof


def test_two_causes_are_told_apart_from_what_follows_from_them(search: Search) -> None:
    found = search("characters-swapped").causes
    assert found is not None
    assert [cause.names for cause in found.items] == [("embed_2/y",), ("embed_3/y",)]
    assert found.proved


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gradient-missing", "layer out (dense) receives a right gradient and computes a wrong"),
        (
            "gradient-transposed",
            "a wrong gradient of rnn.U; the gradient that it passes on is right",
        ),
        ("loop-gradient-forwards", "layer rnn (simple_rnn_without_bias) receives a right gradient"),
        ("state-detached-between-steps", "layer rnn ("),
        ("gradient-over-batch", "every gradient is 0.333333 times the right gradient"),
        ("gradient-through-new-state-missing", "gradients along state."),
        # All gradients are zero there: not the right ones times a number.
        (
            "targets-of-zero-ignored",
            "operation divide receives a right gradient and computes a wrong",
        ),
        ("gradient-of-last-call", "right in the first call of a session, but wrong in a later"),
    ],
)
def test_a_wrong_gradient_is_found_at_the_layer_that_makes_it(
    search: Search, name: str, words: str
) -> None:
    assert first(search(name)).startswith("backward: ")
    assert words in first(search(name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rate-frozen", "this fault: the learning rate is always that of the first step"),
        ("rate-one-step-late", "this fault: the learning rate is that of the previous step"),
        ("update-twice", "this fault: every update is applied twice"),
        ("step-not-counted", "this fault: every step counts as the first"),
        ("slots-reset-each-step", "this fault: the slots start from zeros in every step"),
        ("adam-betas-swapped", " more are the first wrong values (specs/optimizers/adam_eps"),
        ("update-omits-biases", "sgd receives right gradients, but step 1: "),
    ],
)
def test_an_optimizer_is_found_by_itself(search: Search, name: str, words: str) -> None:
    assert first(search(name)).startswith("update: ")
    assert words in first(search(name))


def test_what_only_the_loop_of_a_backend_does_wrong_is_found_at_its_layer(search: Search) -> None:
    found = search("loop-results-backwards")
    assert "receives right inputs and computes wrong values" in first(found)
    assert "it is right when its operations run one by one" in first(found)


def test_the_measurement_reaches_faults_of_every_system() -> None:
    """What ``tests/localised.py`` counts: of a model that is not one of Lesson 6 too."""
    (found,) = localised.measured(["adamw-decay-coupled"])
    assert MUTANTS[found.name].spec == "mlp"
    assert (found.family, found.right, found.proved) == ("altered optimizer", True, True)


# --- The verb ---------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    with installed():
        found = CliRunner().invoke(cli, ["localise", *arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.output


def test_the_verb_tells_the_cause_and_returns_1() -> None:
    device = ["--device", "leaky-relu", "--check", "values", "--dtype", "float32"]
    code, shown = run("lesson6/first_rnn", "--backend", BACKENDS[0], *device)
    assert code == 1
    first, second, *_ = shown.splitlines()
    assert first == "checking lesson6/first_rnn on mutants-1, float32, native"
    assert second.endswith(": differ; replacing wrong values to find the cause")
    assert "lesson6/first_rnn on mutants-1, float32, native against the oracle: differs" in shown
    assert "  forward: y of layer dense_in is the first wrong value (" in shown
    assert "  at fault: plugin" in shown


def test_the_verb_returns_0_where_all_agrees() -> None:
    code, shown = run("lesson6/simple_rnn", "--backend", "numpy", "--check", "values")
    assert (code, shown.count("agrees, so there is no cause to find")) == (0, 1)


def test_two_backends_that_agree() -> None:
    arguments = ["lesson6/sequence_rnn", "--backend", BACKENDS[0], "--against", BACKENDS[1]]
    code, shown = run(*arguments, "--device", "control", "--json")
    assert code == 0
    told, answer = shown.splitlines()
    assert told.startswith("comparing lesson6/sequence_rnn on ")
    (record,) = json.loads(answer)
    assert record["agrees"]
    assert record["against"] == BACKENDS[1]


def test_another_backend_without_the_device_runs_on_its_cpu() -> None:
    asked = ["--device", "leaky-relu", "--against", "numpy"]
    code, shown = run("lesson6/first_rnn", "--backend", BACKENDS[0], *asked)
    assert code == 1, shown
    assert f"lesson6/first_rnn on {BACKENDS[0]}, float32, native against numpy on its cpu" in shown
    assert "  forward: y of layer dense_in is the first wrong value (" in shown
    assert "if the values of numpy replace them, everything else agrees" in shown
    code, shown = run("lesson6/first_rnn", "--backend", BACKENDS[0], *asked, "--json")
    (record,) = json.loads(shown.splitlines()[-1])
    assert (record["device"], record["against_device"]) == ("leaky-relu", "cpu")


def test_a_gradient_and_a_step_against_another_backend() -> None:
    of = ["--against", "numpy", "--backend", BACKENDS[0], "--device"]
    code, shown = run("lesson6/simple_rnn", *of, "gradient-transposed")
    assert (code, "a wrong gradient of rnn.U" in shown) == (1, True), shown
    code, shown = run("lesson6/keras_gru", *of, "update-twice")
    assert (code, "  update: " in shown) == (1, True), shown


def test_a_fault_of_the_other_backend_has_its_name() -> None:
    of = ["--backend", "numpy", "--against", BACKENDS[0], "--device", "cpu"]
    code, shown = run("lesson6/simple_rnn", *of)
    assert code == 2
    assert f"{BACKENDS[0]}: device 'cpu' is not offered (offered: control, " in shown


def test_all_that_was_found_is_plain_data() -> None:
    blame = Blame(who="layer", words="it is torch.gru")
    cell = Cell("a", "torch", "cpu", "float32", "native")
    found = Localised(cell, "the oracle", Causes.single("forward", "z is wrong", ["z"]), blame)
    record = json.loads(json.dumps(found.record()))
    assert record["blame"] == {"who": "layer", "words": "it is torch.gru"}
    assert record["causes"][0]["what"] == "z is wrong"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lesson6/simple_rnn", "--backend", "nump"], "did you mean 'numpy'?"),
        (["lesson6/simple_rn", "--backend", "numpy"], "simple_rnn"),
        (
            ["lesson6/simple_rnn", "--backend", "numpy", "--against", "numpy"],
            "numpy cannot be compared with itself",
        ),
        (["lesson6/simple_rnn", "--backend", "numpy", "--dtype", "float3"], "float3"),
        (["lesson6/simple_rnn", "--backend", "numpy", "--device", "tpu"], "tpu"),
    ],
)
def test_a_wrong_wish_is_told(arguments: list[str], words: str) -> None:
    code, shown = run(*arguments)
    assert code == 2
    assert words in shown
