"""Ports of JAX functions and of modules of flax: the spec and its proof."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.commands import cli
from harness.porting.proof import ITEMS

FLAX = os.environ.get("HARNESS_FLAX", "")
needs_flax = pytest.mark.skipif(not FLAX, reason="HARNESS_FLAX names no Python that has Flax")


def port(folder: Path, model: str, *given: str, code: int = 0) -> dict[str, Any]:
    """Port a model of the tests; return the spec, and what the command prints with ``--json``."""
    file = Path(__file__).parent / model
    python = ["--python", FLAX] if "flax" in model else []
    inputs = [part for text in given for part in ("--input", text)]
    arguments = ["port", str(file), *inputs, "-o", str(folder / "port"), *python]
    arguments += ["--backend", "jax", "--check-on", "numpy", "--json"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == code, done.output
    if code:
        return {"error": done.stderr}
    (spec,) = (folder / "port").glob("*.yaml")
    return {**yaml.safe_load(spec.read_text()), **json.loads(done.stdout)}


def names_of(ported: dict[str, Any]) -> list[str]:
    """Return the definition of each layer of a port."""
    return [entry["layer"] for entry in ported["layers"].values()]


def proves_training(folder: Path) -> bool:
    """Return whether the proof of a port has outputs in training mode, in float64."""
    return f"| float64 | {ITEMS['outputs']} |" in (folder / "port" / "README.md").read_text()


def test_function_of_parameters_is_ported(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_jax.py:mlp:mlp_params", "x=batch,12")
    assert ported["proved"] is True
    assert ported["against"]["float64"] > 13
    assert names_of(ported) == ["dense"] * 3
    text = "logits = log_softmax(out(tanh(mid(gelu_tanh(in_layer(x))))))"
    assert ported["equations"].strip() == text
    assert ported["outputs"] == ["logits"]


def test_operators_are_translated(tmp_path: Path) -> None:
    ported = port(
        tmp_path,
        "models_jax.py:operators:operators_params",
        "x=batch,time,6",
        "ids=batch,time:7",
    )
    assert ported["proved"] is True
    # The table has two uses, so it is a parameter and no layer owns it.
    assert list(ported["parameters"]) == ["table"]
    assert names_of(ported) == ["layer_norm", "rms_norm", *["dense"] * 3]
    functions = ("relu6", "mish", "gelu_tanh", "gelu", "softsign", "elu", "logsumexp", "one_hot")
    assert all(f"{name}(" in ported["equations"] for name in functions)


def test_keys_of_a_jitted_dict_keep_their_inputs(tmp_path: Path) -> None:
    inputs = ("second=batch,time,6", "first=batch,time,6")
    ported = port(tmp_path, "models_jax.py:jitted:operators_params", *inputs)
    assert ported["proved"] is True
    assert ported["equations"].strip() == "y = second * scale_0 - first"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "lengths"), [("selections", "batch,time,6"), ("windows", "batch,5,6,4")]
)
def test_primitives_are_decomposed_or_have_rules(tmp_path: Path, name: str, lengths: str) -> None:
    ported = port(tmp_path, f"models_jax.py:{name}:{name}_params", f"x={lengths}")
    assert ported["proved"] is True
    assert ported["against"]["float64"] > 13


def test_operators_without_a_rule_are_named_with_their_line(tmp_path: Path) -> None:
    refused = port(tmp_path, "models_jax.py:refused:mlp_params", "x=batch,12", code=2)
    assert "models_jax.py:28: fft" in refused["error"]
    assert "models_jax.py:29: while" in refused["error"]


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_over_stacked_weights_is_a_row_of_layers(reverse: bool) -> None:
    jax = pytest.importorskip("jax")
    from harness.backends.jax.jaxprs import JaxprReader, Value, unrolled

    def layers(weights: Any, x: Any) -> Any:
        def layer(h: Any, row: Any) -> Any:
            h = jax.numpy.tanh(h @ row)
            return h, h.sum()

        return jax.lax.scan(layer, x, weights, reverse=reverse)

    weights, x = jax.numpy.arange(48.0).reshape(3, 4, 4) / 48, jax.numpy.ones((2, 4))
    jaxpr = jax.make_jaxpr(layers)(weights, x).jaxpr
    (scan,) = jaxpr.eqns
    for one, other in zip(unrolled(scan.params)(x, weights), layers(weights, x), strict=True):
        assert abs(one - other).max() < 1e-6
    reader = JaxprReader(lambda source: "")
    arguments = [
        Value(op, (), {"name": op}, v.aval.shape, v.aval.dtype)
        for op, v in zip(("weight", "input"), jaxpr.invars, strict=True)
    ]
    reader.read(jaxpr, [], arguments)
    order = range(3)[::-1] if reverse else range(3)
    products = [v.modules for v in reader.values if v.op == "dot_general"]
    assert products == [((f"layer.{n}", "layer"),) for n in order]


def test_outputs_of_a_scan_are_computed_after_the_shipped_layer(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_jax.py:rnn:rnn_params", "x=batch,time,5")
    assert ported["proved"] is True
    assert names_of(ported) == ["simple_rnn", "dense"]
    assert ported["equations"].splitlines()[0] == "h = simple_rnn(x)"
    assert ported["outputs"] == ["mean_output", "rows"]


@pytest.mark.parametrize("name", ["dropping", "multiplying"])
def test_dropout_of_functions_with_a_key_is_proved_in_training_mode(
    tmp_path: Path, name: str
) -> None:
    ported = port(tmp_path, f"models_jax.py:{name}:dropping_params", "x=batch,time,6")
    assert ported["proved"] is True
    assert ported["layers"]["dropout"]["keep"] == 0.8
    assert len(ported["layers"]) == 3
    assert proves_training(tmp_path)


def test_other_random_numbers_of_training_mode_are_named(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_jax.py:noisy:dropping_params", "x=batch,time,6")
    assert ported["proved"] is True
    assert not proves_training(tmp_path)
    (remark,) = ported["remarks"]
    assert "models_jax.py:212: random numbers" in remark


def test_function_that_draws_in_evaluation_mode_is_refused(tmp_path: Path) -> None:
    model = "models_jax.py:always:dropping_params"
    error = port(tmp_path, model, "x=batch,time,6", code=2)["error"]
    assert "models_jax.py:207: " in error
    assert "jax.random.bernoulli" in error
    assert "key=None" in error


@needs_flax
def test_dropout_of_a_linen_block_is_proved_in_training_mode(tmp_path: Path) -> None:
    model = "models_flax_linen.py:dropping:dropping_variables"
    ported = port(tmp_path, model, "x=batch,time,8")
    assert ported["proved"] is True
    keeps = [layer["keep"] for layer in ported["layers"].values() if "keep" in layer]
    assert keeps == [0.9, 0.8, 0.7]
    assert proves_training(tmp_path)
    assert ITEMS["statistics"] in (tmp_path / "port" / "README.md").read_text()


@needs_flax
def test_random_numbers_that_heads_share_are_proved_in_training_mode(tmp_path: Path) -> None:
    model = "models_flax_linen.py:sharing:dropping_variables"
    ported = port(tmp_path, model, "x=batch,time,8")
    assert ported["proved"] is True
    assert proves_training(tmp_path)
    assert "dropout(h_4[:1][:, :1] * 0 + 1)" in ported["equations"]


@needs_flax
def test_linen_images_are_layers(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_flax.py:cnn:cnn_variables", "x=batch,12,12,3")
    assert ported["proved"] is True
    layers = ["conv2d", "batch_norm", "max_pool_first", "conv2d", "avg_pool", "dense"]
    assert names_of(ported) == layers
    norm = next(v for v in ported["layers"].values() if v["layer"] == "batch_norm")
    assert norm["momentum"] == 0.9


@needs_flax
def test_linen_attention_with_a_causal_mask(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_flax.py:block:block_variables", "x=batch,time,8")
    assert ported["proved"] is True
    names = ["layer_norm", "causal_attention", "layer_norm", "dense", "dense"]
    assert names_of(ported) == names


@needs_flax
def test_function_makes_a_linen_decoder_whose_memory_has_another_length(tmp_path: Path) -> None:
    model = "models_flax_linen.py:make_decoder:decoder_variables"
    ported = port(tmp_path, model, "x=batch,5,8", "memory=batch,time,8")
    assert ported["proved"] is True
    assert ported["layers"] == {"Block_0": {"layer": "block", "repeat": 2}}


@needs_flax
def test_linen_module_without_variables_is_refused(tmp_path: Path) -> None:
    refused = port(tmp_path, "models_flax.py:cnn", "x=batch,12,12,3", code=2)
    assert "models_flax.py:cnn:VARIABLES" in refused["error"]


@needs_flax
def test_nnx_module_needs_no_parameters(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_flax.py:Mlp", "x=batch,time,3")
    assert ported["proved"] is True
    assert names_of(ported) == ["dense", "layer_norm", "batch_norm", "dropout", "dense"]
    assert ported["layers"]["scaled"]["momentum"] == 0.95
    assert "evaluation" not in ported["summary"]
    assert proves_training(tmp_path)


@needs_flax
def test_linen_lstms_are_the_shipped_layer(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_flax.py:lstm:lstm_variables", "x=batch,time,3")
    assert ported["proved"] is True
    assert names_of(ported) == ["lstm", "lstm", "dense"]


@needs_flax
def test_nnx_gru_is_a_loop_of_its_own(tmp_path: Path) -> None:
    ported = port(tmp_path, "models_flax.py:Gru", "x=batch,time,3")
    assert ported["proved"] is True
    assert ported["layers"]["cell"] == {"layer": "rnn"}
    assert ported["definitions"] == ["rnn"]


@needs_flax
@pytest.mark.parametrize(
    ("model", "lengths"),
    [
        ("models_flax_linen.py:frozen:norm_variables", "batch,8"),
        ("models_flax.py:Frozen", "batch,3"),
    ],
)
def test_frozen_batch_norms_are_proved_in_training_mode(
    tmp_path: Path, model: str, lengths: str
) -> None:
    ported = port(tmp_path, model, f"x={lengths}")
    assert ported["proved"] is True
    assert len(ported["constants"]) == 2
    assert proves_training(tmp_path)


@needs_flax
def test_random_numbers_after_a_batch_norm_are_not_compared(tmp_path: Path) -> None:
    model = "models_flax_linen.py:shaken:norm_variables"
    assert port(tmp_path, model, "x=batch,8")["proved"] is True
    proof = (tmp_path / "port" / "README.md").read_text().replace("\\", "")
    lines = Path(__file__).with_name("models_flax_linen.py").read_text().splitlines()
    number = next(n for n, text in enumerate(lines, 1) if "random.normal" in text)
    assert f"training mode (models_flax_linen.py:{number}: " in proof
    assert not proves_training(tmp_path)
