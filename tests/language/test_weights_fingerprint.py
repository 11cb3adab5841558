"""The fingerprint of a spec: another with another meaning, the same with the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SPECS

import harness
from harness.language.model import fingerprint

NAME = "lesson6/stateful_lstm"
TEXT = (SPECS / "models" / f"{NAME}.yaml").read_text()
MODELS = sorted(f"lesson6/{p.stem}" for p in SPECS.glob("models/lesson6/*.yaml"))


@pytest.fixture(scope="module")
def usual() -> str:
    return fingerprint(harness.load(NAME))


def changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    return text


def of_model(folder: Path, *changes: tuple[str, str]) -> str:
    path = folder / "changed.yaml"
    # A name that ships stands for what ships.
    path.write_text(changed(TEXT, *changes).replace(f"model: {NAME}\n", "model: changed\n"))
    return fingerprint(harness.load(str(path)))


def of_definition(folder: Path, name: str, *changes: tuple[str, str]) -> str:
    path = folder / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text(changed((SPECS / f"{name}.yaml").read_text(), *changes))
    return fingerprint(harness.load(NAME, [folder]))


def test_the_same_in_every_process(usual: str) -> None:
    module = "harness.language.model"
    program = f"import harness, {module} as w; print(w.fingerprint(harness.load({NAME!r})))"
    for seed in ("0", "1", "12345"):
        printed = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout == f"{usual}\n"


@pytest.mark.parametrize(
    ("name", "older"),
    [
        (NAME, "fa9662511bcd93b2e0eb757616521191c2a4dc2698bd1531f15538272e19b57a"),
        ("resnet", "0dbb72be49de857ba8f936652efc1b8672e9f91268edb7d6b1d4bcfcc1f57932"),
    ],
)
def test_weights_of_older_versions_stay_valid(name: str, older: str) -> None:
    assert fingerprint(harness.load(name)) == older


def test_every_model_has_its_own() -> None:
    assert len(MODELS) == 12
    assert len({fingerprint(harness.load(name)) for name in MODELS}) == len(MODELS)


@pytest.mark.parametrize(
    "change",
    [
        ("norm(embed(chars))", "embed(chars) + 0 * norm(embed(chars))"),
        ("out(hidden_states)", "out(2 * hidden_states)"),
        ("softmax(logits)", "logits"),
        ("gate: hard_sigmoid_fifth", "gate: sigmoid"),
        ("{layer: batch_norm}", "{layer: batch_norm, epsilon: 1.0e-4}"),
        ("{layer: batch_norm}", "{layer: batch_norm, momentum: 0.9}"),
        ("units: vocab}", "units: vocab, activation: relu}"),
        ("{layer: dense, units: vocab}", "{layer: dense, units: vocab, init: {W: zeros}}"),
        ("mean(sparse", "2 * mean(sparse"),
        ("cross_entropy(logits, target)", "cross_entropy(next_chars, target)"),
        ("adam_epsilon_hat, learning_rate: 0.001, epsilon: 1.0e-8", "sgd, learning_rate: 0.001"),
        ("learning_rate: 0.001, epsilon: 1.0e-8", "learning_rate: 0.002, epsilon: 1.0e-8"),
        ("epsilon: 1.0e-8", "epsilon: 1.0e-7"),
        ("next_chars =", "next_letters ="),
    ],
    ids=lambda change: change[1][:30],
)
def test_another_meaning(tmp_path: Path, usual: str, change: tuple[str, str]) -> None:
    assert of_model(tmp_path, change) != usual


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layers/lstm", ("f * c + i * g", "i * c + f * g")),
        ("layers/batch_norm", ("(x - moving_mean)", "(x + moving_mean)")),
        ("layers/batch_norm", ("+ (1 - momentum) * center", "- (1 - momentum) * center")),
        ("functions/hard_sigmoid_fifth", ("0.2", "0.25")),
        ("losses/sparse_cross_entropy", ("y = -take", "y = -2 * take")),
        ("optimizers/adam_epsilon_hat", ("sqrt(v) + epsilon", "sqrt(v) - epsilon")),
    ],
)
def test_another_meaning_of_a_definition(
    tmp_path: Path, usual: str, name: str, change: tuple[str, str]
) -> None:
    assert of_definition(tmp_path, name, change) != usual


@pytest.mark.parametrize(
    "changes",
    [
        (),
        [("model: lesson6/stateful_lstm", "model: mine/another_name")],
        [("# Row r", "# A row")],
        [("equations: |", "equations: |\n\n")],
        [("Every next character", "Each next letter"), ("fast.ai", "Another")],
        [("epsilon: 1.0e-8", "epsilon: 0.00000001")],
        [("learning_rate: 0.001, epsilon: 1.0e-8", "epsilon: 1.0e-8, learning_rate: 0.001")],
        [("units: hidden, gate: hard_sigmoid_fifth", "gate: hard_sigmoid_fifth, units: hidden")],
        [("vocab: 86", "vocab: 90"), ("hidden: 256", "hidden: 8"), ("parameters: 332058\n", "")],
        [("epochs: 4", "epochs: 5"), ("batch: 64", "batch: 32"), ("stride: 8", "stride: 4")],
    ],
    ids=[
        *("place", "name", "comment", "blank-lines", "prose", "number", "order"),
        *("order-of-attributes", "sizes", "training"),
    ],
)
def test_the_same_meaning(tmp_path: Path, usual: str, changes: list[tuple[str, str]]) -> None:
    assert of_model(tmp_path, *changes) == usual


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("layers/lstm", [("layer: lstm", "# Copied.\nlayer: lstm")]),
        ("layers/lstm", [("    g = ", "    new = "), ("i * g", "i * new")]),
        (
            "optimizers/adam_epsilon_hat",
            [("beta_1: 0.9, beta_2: 0.999", "beta_2: 0.999, beta_1: 0.9")],
        ),
    ],
    ids=["place", "name-inside", "order"],
)
def test_the_same_meaning_of_a_definition(
    tmp_path: Path, usual: str, name: str, changes: list[tuple[str, str]]
) -> None:
    assert of_definition(tmp_path, name, *changes) == usual
