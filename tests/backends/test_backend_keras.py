"""Keras 3 on its three engines; each is asked everything at once, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from needed import need
from places import SUPPORT
from sampling import sampled
from wording import Wording

from harness.runtime.plugins import environment

ENGINES = {"keras": "tensorflow", "keras-torch": "torch", "keras-jax": "jax"}

need("keras", *ENGINES.values())

Report = dict[str, Any]
LSTM_MODEL = "lesson6/stateful_lstm"


# XLA compiles each function of the third for one to three seconds.
@pytest.fixture(scope="module", params=sampled(ENGINES, ("keras",)))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def report(name: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What the backend answers, see keras_probe.py."""
    script = SUPPORT / "keras_probe.py"
    done = subprocess.run(
        [sys.executable, str(script), name, str(tmp_path_factory.mktemp("probe"))],
        env={**os.environ, **environment(name)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_engine_is_set_by_the_environment(name: str) -> None:
    wanted = environment(name)
    assert wanted["KERAS_BACKEND"] == ENGINES[name]
    assert wanted["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert wanted["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_import_of_the_plugin_imports_no_framework() -> None:
    code = (
        "import sys, harness.backends.keras.backend\n"
        "print([n for n in ('keras', 'tensorflow', 'torch', 'jax') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_engine_is_refused(name: str, report: Report, wording: Wording) -> None:
    wording.line(report["refused"], f"{ENGINES[name]}")
    assert "set KERAS_BACKEND=" in report["refused"]


def test_versions_and_devices(name: str, report: Report) -> None:
    assert {"keras", ENGINES[name]} <= report["versions"].keys()
    assert report["devices"][0] == "cpu"


def test_arrays_are_copied(report: Report) -> None:
    assert report["copies"]


def test_models_agree_with_the_oracle(name: str, report: Report) -> None:
    errors = report["models"]
    assert len(errors) == (4 if name == "keras-jax" else 20)
    for run, error in errors.items():
        assert error < (1e-13 if "float64" in run else 1e-5), run


def test_claimed_layers_equal_their_equations(name: str, report: Report) -> None:
    """All forms of Keras that lesson 6 does not use, three training steps included."""
    assert report["mixed"]["float32"]["error"] < 5e-4
    if name != "keras-jax":
        assert report["mixed"]["float64"]["error"] < 1e-12
    paths = report["mixed"]["float32"]["paths"]
    assert {label for label in paths.values() if "layers" in label} == {
        f"keras.layers.{kind}"
        for kind in ("Embedding", "GRU", "LSTM", "SimpleRNN", "BatchNormalization", "Dense")
    }
    assert "equations" not in paths.values()


def test_claimed_layers_equal_their_equations_one_at_a_time(report: Report) -> None:
    assert report["watched"] < 1e-6


def test_a_long_loop_in_a_compiled_step(report: Report) -> None:
    assert report["long loop"].keys() == {"forward", "reverse"}
    assert max(report["long loop"].values()) < 1e-13


def test_float64_claims_are_what_keras_computes_in_float64(name: str, report: Report) -> None:
    lstm, gru = report["claims"][LSTM_MODEL], report["claims"]["lesson6/keras_gru"]
    embedding, norm, cell, dense = (
        f"keras.layers.{kind}" for kind in ("Embedding", "BatchNormalization", "LSTM", "Dense")
    )
    layers = {
        "keras": [embedding, norm, cell, dense],
        "keras-torch": [embedding],
        "keras-jax": [embedding, dense],
    }[name]
    assert lstm == [*layers, "keras.losses.sparse_categorical_crossentropy"]
    assert ("keras.layers.GRU" in gru) == (name != "keras-torch")


def test_optimizers_equal_those_of_numpy_in_float64(name: str, report: Report) -> None:
    """With rows of an embedding that repeat, and a learning rate that changes. Keras' Adadelta does
    not run on JAX in float64."""
    kinds = {n: found["paths"]["optimizer"] for n, found in report["optimizers"].items()}
    assert kinds == {
        "sgd": "keras.optimizers.SGD",
        "sgd_momentum_scaled": "keras.optimizers.SGD",
        "adam_epsilon_hat": "keras.optimizers.Adam",
        "rmsprop_epsilon_inside": "keras.optimizers.RMSprop",
        "adadelta": "equations" if name == "keras-jax" else "keras.optimizers.Adadelta",
        "adagrad_epsilon_inside": "keras.optimizers.Adagrad",
        "adamw_epsilon_hat": "keras.optimizers.AdamW",
        "lion": "keras.optimizers.Lion",
        "lamb": "keras.optimizers.Lamb",
        "amsgrad_epsilon_hat": "keras.optimizers.Adam",
    }
    arrays = {n: found["arrays"] for n, found in report["optimizers"].items()}
    assert list(arrays.values()) == [3, 6, 9, 6, 9, 6, 9, 6, 9, 12]
    for found in report["optimizers"].values():
        assert found["error"] < 1e-13


def test_activations_have_no_slope_at_their_corners(report: Report) -> None:
    """At -3, -2.5, 0, 2.5, 3, 1 and -1; NaN stays NaN."""
    flat = {n: [slope == 0 for slope in found] for n, found in report["kinks"].items()}
    assert flat["fifth"] == [True, True, False, True, True, False, False]
    assert flat["sixth"] == [True, False, False, False, True, False, False]
    assert flat["rectify"] == [True, True, True, False, False, False, True]
    assert report["kinks"]["nan"] == [1.0, 1.0, 1.0]


def test_losses_of_far_logits_equal_their_equations(name: str, report: Report) -> None:
    found = report["losses"]
    assert found["error"] < 1e-13
    assert found["float32"] < 1e-5
    dense = "keras.losses.categorical_crossentropy"
    assert found["paths"]["cross_entropy"] == ("equations" if name == "keras" else dense)
    sparse = "keras.losses.sparse_categorical_crossentropy"
    assert found["paths"]["sparse_cross_entropy"] == sparse


def test_native_path_is_a_keras_model(report: Report) -> None:
    model = report["model"]
    assert model["keras"]
    for kind in ("Embedding", "BatchNormalization", "LSTM", "Dense", "InputLayer"):
        assert f"({kind})" in model["summary"], model["summary"]
    # 11 * 5 + 4 * 5 + 4 * 7 * (5 + 7 + 1) + 8 * 11, statistics included
    assert model["parameters"] == 527
    assert model["error"] < 1e-6


def test_functions_are_compiled_where_that_pays(name: str, report: Report) -> None:
    """Of 14 calls Python runs them all on TensorFlow and torch, and a trace on JAX."""
    assert report["calls"] == {"keras": 14, "keras-torch": 14, "keras-jax": 1}[name]


def test_what_keras_does_by_itself_is_still_as_noted(name: str, report: Report) -> None:
    """Each of these is worked around; one that is gone makes its workaround needless."""
    raw = report["raw"]
    exact, single = 1e-14, 1e-9
    # The learning rate is a float32; TensorFlow also rounds the decay rates.
    assert raw["adam"] == pytest.approx(6.6e-6 if name == "keras" else 4.7e-8, rel=0.1)
    assert (raw["adam floatx"] < exact) == (name != "keras")
    assert raw["adam numpy"] < exact
    # Promotion outside of TensorFlow turns float64 into float32.
    assert (raw["matmul"] > single) == (name == "keras-torch")
    assert (raw["tanh"] > single) == (name == "keras-jax")
    assert (raw["batch_norm"] > single) == (name != "keras")
    if name == "keras":
        # Right would be 0.004: the rows of one index are squared before they are added.
        assert raw["repeated rows"] == pytest.approx([0.002, 0.001])
        # A NaN beside a number is left out of a pool of maxima.
        assert raw["pooled"] == 3.0
        # The gradient takes it for granted that targets sum to 1.
        assert raw["targets"] == pytest.approx(0.3655, abs=1e-3)
