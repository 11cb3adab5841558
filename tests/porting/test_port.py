"""Ports of torch modules: the spec, its proof, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from harness.commands import cli
from harness.porting.proof import ITEMS


def port(
    folder: Path, name: str, *options: str, code: int = 0, file: str = "models_torch.py"
) -> dict[str, object]:
    """Port a model of the tests; return what the command prints with ``--json``."""
    model = Path(__file__).with_name(file)
    arguments = ["port", f"{model}:{name}", "-o", str(folder / "port"), "--check-on", "numpy"]
    done = CliRunner().invoke(cli, [*arguments, "--json", *options])
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout)) if code < 2 else {"error": done.stderr}


def spec_of(folder: Path, name: str) -> dict[str, object]:
    return dict(yaml.safe_load((folder / "port" / f"{name}.yaml").read_text()))


def test_mlp_is_ported_with_proof_and_code(tmp_path: Path) -> None:
    ported = port(tmp_path, "Mlp", "--input", "x=batch,6", "--to", "torch")
    assert ported["proved"] is True
    assert ported["against"]["float64"] > 13  # type: ignore[index]
    assert ported["gradients"]["torch"] > 5  # type: ignore[index]
    spec = spec_of(tmp_path, "mlp_port")
    assert spec["layers"] == {
        "up": {"layer": "dense", "units": 8},
        "drop": {"layer": "dropout", "keep": 0.9},
        "down": {"layer": "dense", "units": 5},
    }
    assert spec["equations"].strip() == "y = down(drop(relu(up(x))))"  # type: ignore[attr-defined]
    assert (tmp_path / "port" / "mlp_port_torch.py").exists()
    assert "port of torch.nn.Module Mlp" in (tmp_path / "port" / "README.md").read_text()


def test_attention_with_filled_scores_is_a_shipped_layer(tmp_path: Path) -> None:
    assert port(tmp_path, "Handwritten", "--input", "x=batch,time,8")["proved"] is True
    kinds = [layer["layer"] for layer in spec_of(tmp_path, "handwritten")["layers"].values()]  # type: ignore[attr-defined]
    assert kinds == ["causal_attention"]


def test_rotary_positions_of_pairs_are_ported(tmp_path: Path) -> None:
    assert port(tmp_path, "Interleaved", "--input", "x=batch,time,8")["proved"] is True
    equations = str(spec_of(tmp_path, "interleaved")["equations"])
    assert "astype(arange(time)[:, None]) * speeds" in equations
    assert "x[:, :, 1::2]" in equations


def test_no_cache_of_keys_and_values_is_returned(tmp_path: Path) -> None:
    assert port(tmp_path, "Cached", "--input", "x=batch,6")["proved"] is True
    assert spec_of(tmp_path, "cached")["equations"] == "y = out(x)"


def test_everyday_operators_are_decomposed_or_have_rules(tmp_path: Path) -> None:
    ported = port(tmp_path, "Everyday", "--input", "x=batch,9,6")
    assert ported["proved"] is True
    assert ported["against"]["float64"] > 12  # type: ignore[index]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "lengths"),
    [("Sequence", "batch,time,6"), ("Curves", "batch,6"), ("Images", "batch,4,5,6")],
)
def test_further_operators_are_ported_with_proof(tmp_path: Path, name: str, lengths: str) -> None:
    ported = port(tmp_path, name, "--input", f"x={lengths}", file="models_torch_operators.py")
    assert ported["proved"] is True
    assert ported["against"]["float64"] > 14  # type: ignore[index]


def test_equal_blocks_are_one_definition(tmp_path: Path) -> None:
    ported = port(tmp_path, "encoder", "--input", "src=batch,time,8")
    assert ported["proved"] is True
    assert ported["definitions"] == ["transformer_encoder_layer"]
    layers = spec_of(tmp_path, "encoder")["layers"]
    assert layers == {"layers": {"layer": "transformer_encoder_layer", "repeat": 2}}


def test_recurrent_layers_are_a_chain_of_shipped_layers(tmp_path: Path) -> None:
    assert port(tmp_path, "Tagger", "--input", "chars=batch,time:9")["proved"] is True
    layers = spec_of(tmp_path, "tagger")["layers"]
    kinds = [entry["layer"] for entry in layers.values()]  # type: ignore[attr-defined]
    assert kinds == ["embedding", "bidirectional_lstm", "bidirectional_lstm", "dense"]


def test_final_states_are_the_last_steps(tmp_path: Path) -> None:
    assert port(tmp_path, "Classifier", "--input", "x=batch,time,4")["proved"] is True
    equations = str(spec_of(tmp_path, "classifier")["equations"])
    assert "[:, -1]" in equations
    assert "[:, 0]" in equations


def test_batch_norm_moves_as_in_torch_and_a_clamp_is_no_relu(tmp_path: Path) -> None:
    ported = port(tmp_path, "Image", "--input", "Picture=rows_of_images,3,6,6")
    assert ported["proved"] is True
    spec = spec_of(tmp_path, "image")
    assert spec["sizes"] == {"rows_of_images": 11}
    assert spec["layers"]["norm"] == {"layer": "sample_batch_norm"}  # type: ignore[index]
    assert "minimum(" in str(spec["equations"])


def test_positions_masks_tied_heads_and_functions_are_recognised(tmp_path: Path) -> None:
    ported = port(tmp_path, "Decoder", "--input", "chars=batch,time:9")
    assert ported["proved"] is True
    spec = spec_of(tmp_path, "decoder")
    assert spec["outputs"] == ["logits"]
    assert spec["layers"]["place"] == {"layer": "learned_positions", "context": 20}  # type: ignore[index]
    assert spec["layers"]["head"]["shares"] == "embed"  # type: ignore[index]
    assert spec["layers"]["queries"]["layer"] == "causal_attention"  # type: ignore[index]
    assert "gelu_tanh(" in str(spec["equations"])


def test_attention_with_rotary_positions_is_a_shipped_layer(tmp_path: Path) -> None:
    assert port(tmp_path, "Llama", "--input", "x=batch,time,16")["proved"] is True
    spec = spec_of(tmp_path, "llama_port")
    kinds = [entry["layer"] for entry in spec["layers"].values()]  # type: ignore[attr-defined]
    assert kinds == ["rms_norm", "grouped_attention"]
    assert "parameters" not in spec


def test_random_numbers_in_training_are_left_out_and_named(tmp_path: Path) -> None:
    ported = port(tmp_path, "Stochastic", "--input", "x=batch,6")
    assert ported["proved"] is True
    assert len(ported["remarks"]) == 1  # type: ignore[arg-type]
    assert "## Not ported" in (tmp_path / "port" / "README.md").read_text()


def test_operators_without_a_rule_are_named_with_their_line(tmp_path: Path) -> None:
    refused = port(tmp_path, "Counting", "--input", "x=batch,6", code=2)
    assert "models_torch.py:140: aten.histc" in str(refused["error"])
    assert not (tmp_path / "port").exists()


def test_an_interpreter_may_name_the_framework_of_the_model(tmp_path: Path) -> None:
    options = ("--input", "x=batch,6", "--python")
    assert "'/no/python'" in str(port(tmp_path, "Mlp", *options, "torch=/no/python", code=3))
    assert "'jax'" in str(port(tmp_path, "Mlp", *options, "jax=/no/python", code=2))
    (tmp_path / "net.py").write_text("import jax\nimport flax.linen\n")
    for name in ("jax", "flax"):
        words = ["port", str(tmp_path / "net.py:net"), *options, f"{name}=/no/python"]
        assert CliRunner().invoke(cli, words).exit_code == 3


@pytest.mark.parametrize(
    "text", ["x", "x=", "x=batch,-1", "x=batch:a", "1=batch", "x=batch:0", "x=batch:", "x=if,2"]
)
def test_malformed_inputs_are_refused(text: str) -> None:
    from harness.errors import UsageError
    from harness.porting.inputs import InputDeclaration

    with pytest.raises(UsageError, match="--input takes"):
        InputDeclaration.of(text)


def test_frozen_batch_norms_are_proved_in_training_mode(tmp_path: Path) -> None:
    assert port(tmp_path, "Frozen", "--input", "x=batch,6")["proved"] is True
    spec = spec_of(tmp_path, "frozen")
    constants = {name: "init" in entry for name, entry in spec["constants"].items()}  # type: ignore[attr-defined]
    assert constants == {"running_mean": False, "running_var": True}
    assert f"| float64 | {ITEMS['outputs']} |" in (tmp_path / "port" / "README.md").read_text()


@pytest.mark.parametrize("loss", [(), ("--loss", "sparse_cross_entropy")])
def test_other_random_numbers_of_training_mode_are_not_compared(
    tmp_path: Path, loss: tuple[str, ...]
) -> None:
    assert port(tmp_path, "Shaken", "--input", "x=batch,6", *loss)["proved"] is True
    proof = (tmp_path / "port" / "README.md").read_text().replace("\\", "")
    line = Path(__file__).with_name("models_torch.py").read_text().splitlines()
    number = next(n for n, text in enumerate(line, 1) if "randn_like" in text)
    assert f"training mode (models_torch.py:{number}: " in proof
    assert "randn_like" in proof
    assert ITEMS["training-sgd"] not in proof
