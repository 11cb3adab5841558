"""What is exported for torch: run alone it gives the oracle's outputs, read back the same bits."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from exporting import (
    SYSTEMS,
    Caller,
    assert_same_bytes,
    assert_strange_numbers_come_back,
    case_of,
    exported,
    running,
    same_bits,
)
from wording import Wording

from harness.convert.source.vetting import run_file

torch = pytest.importorskip("torch")
WORDS = pytest.importorskip("harness.backends.torch.primitives_export").WORDS


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with running("torch") as found:
        yield found


@pytest.mark.parametrize("name", SYSTEMS, ids=lambda name: Path(name).stem)
def test_outputs_are_the_oracle_s_and_weights_come_back(
    name: str, caller: Caller, tmp_path: Path
) -> None:
    case = case_of(name)
    for dtype in ("float64", "float32"):
        given = exported(case, dtype)
        path = tmp_path / "model.pt"
        assert caller.write(given, path) == [path, tmp_path / "model.py"]
        for batch, time in ((3, 5), (2, 2)):
            found = caller.deviations(path, case, dtype, batch, time)
            assert len(found) >= 3
            assert [str(d) for d in found if not d.agrees] == []
            assert dtype == "float32" or max(d.error for d in found) < 1e-12
        assert same_bits(caller.read(path, case), given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt", "model.py"]


def test_strange_numbers_come_back_to_the_bit(caller: Caller, tmp_path: Path) -> None:
    assert_strange_numbers_come_back(caller, tmp_path / "model.pt", "float32")


def test_the_same_weights_give_the_same_bytes(caller: Caller, tmp_path: Path) -> None:
    assert_same_bytes(caller, tmp_path / "a.pt")


def test_the_file_uses_modules_of_torch_and_imports_nothing_else(
    caller: Caller, tmp_path: Path, wording: Wording
) -> None:
    caller.write(exported(case_of("lesson6/sequence_rnn"), "float32"), tmp_path / "m.pt")
    source = (tmp_path / "m.py").read_text()
    wording(re.findall(r"^(?:import|from) .*", source, re.M), "torch ... torch")
    for module in (
        "nn.Embedding(86, 42, dtype=dtype)",
        'nn.RNN(42, 16, nonlinearity="relu", batch_first=True, dtype=dtype)',
        "nn.Linear(16, 86, dtype=dtype)",
    ):
        assert module in source
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    assert list(state) == [
        *("embed.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0"),
        *("rnn.bias_hh_l0", "out.weight", "out.bias"),
    ]


def test_used_from_plain_torch_without_the_harness(caller: Caller, tmp_path: Path) -> None:
    caller.write(exported(case_of("lesson6/stateful_lstm"), "float32"), tmp_path / "m.pt")
    script = (
        "import sys, torch\n"
        "from m import VOCABULARY, StatefulLstm\n"
        "model = StatefulLstm()\n"
        "model.load_state_dict(torch.load('m.pt', weights_only=True))\n"
        "model.eval()\n"
        "outputs, state = model(torch.zeros(2, 3, dtype=torch.int64))\n"
        "outputs, state = model(torch.zeros(2, 1, dtype=torch.int64), state)\n"
        "assert outputs['logits'].shape == (2, 1, 86), outputs['logits'].shape\n"
        "assert [ord(c) for c in VOCABULARY[:4]] == [0, 10, 32, 39], VOCABULARY\n"
        "assert ascii(VOCABULARY[4:]) == ascii('\"\\\\a\\xe9\\u20ac\\U0001f600')\n"
        "assert not any(name.startswith('harness') for name in sys.modules)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr


def module_of(path: Path) -> tuple[ModuleType, Any]:
    """The file beside a state_dict, and its model with the weights."""
    file = run_file(path.with_suffix(".py"), WORDS)
    model = [c for c in vars(file).values() if isinstance(c, type)][-1]()
    model.load_state_dict(torch.load(path, weights_only=True))
    return file, model


def test_training_mode_is_the_spec_s_training_phase(caller: Caller, tmp_path: Path) -> None:
    """Batch statistics, and moving ones that move as the oracle's do."""
    case = case_of("lesson6/stateful_lstm")
    caller.write(exported(case, "float64"), tmp_path / "m.pt")
    _, model = module_of(tmp_path / "m.pt")
    model.train()
    material = case.material
    expected = case.forward("training", material, "training").values
    state = {n: torch.from_numpy(a) for n, a in material.state.items()}
    outputs, _ = model(torch.from_numpy(material.inputs["chars"]), state)
    moved = {f"statistics.norm.{n}": b for n, b in model.norm.named_buffers()}
    found = {f"output.{n}": t for n, t in outputs.items()} | moved
    assert len(moved) == 2
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.detach().numpy(), expected[name], 1e-11, 1e-12, name)
    outputs["logits"].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_bias_that_the_layer_has_not_is_not_trained(caller: Caller, tmp_path: Path) -> None:
    caller.write(exported(case_of("lesson6/sequence_rnn"), "float32"), tmp_path / "m.pt")
    _, model = module_of(tmp_path / "m.pt")
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["rnn.bias_hh_l0"]


@pytest.mark.parametrize(
    ("source", "one", "other"),
    [("lesson6/stateful_lstm", "W_i", "W_f"), ("lesson6/keras_gru", "U_z", "U_r")],
)
def test_two_gates_that_traded_places_are_seen(
    source: str, one: str, other: str, caller: Caller, tmp_path: Path
) -> None:
    """In the weights, and in the source."""
    case = case_of(source)
    path = tmp_path / "m.pt"
    layer = source.rpartition("_")[2]
    caller.write(exported(case, "float64"), path)
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    a, b = f"{layer}.{one}", f"{layer}.{other}"
    state[a], state[b] = state[b], state[a]
    torch.save(state, path)
    assert not all(d.agrees for d in caller.deviations(path, case, "float64"))
    path.write_bytes(whole)
    assert all(d.agrees for d in caller.deviations(path, case, "float64"))
    module = path.with_suffix(".py")
    source_text = module.read_text()
    swapped = re.sub(
        rf"@ self\.({one}|{other})\b",
        lambda m: f"@ self.{other if m[1] == one else one}",
        source_text,
    )
    assert swapped != source_text
    module.write_text(swapped)
    assert not all(d.agrees for d in caller.deviations(path, case, "float64"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("out.bias"), "out.bias"),
        (lambda s: s.update(extra=s["out.bias"]), ""),
        (lambda s: s.update({"out.biass": s.pop("out.bias")}), "out.bias"),
        (
            lambda s: s.update({"out.bias": s["out.bias"][1:]}),
            "out.bias ... [86] ... [85] ... --size",
        ),
        (lambda s: s.update({"out.bias": s["out.bias"].half()}), "out.bias ... float16"),
        (lambda s: s.update({"out.bias": s["out.bias"].bfloat16()}), "torch.bfloat16"),
        (lambda s: s.update({"out.bias": s["out.bias"].double()}), "float32 ... float64"),
        (
            lambda s: s["rnn.bias_hh_l0"].fill_(1.0),
            "rnn.bias_hh_l0 ... lesson6/sequence_rnn",
        ),
        (lambda s: s.update(note="text"), ""),
    ],
)
def test_a_state_dict_of_another_model_is_refused_in_words(
    change: Any, words: str, caller: Caller, tmp_path: Path, wording: Wording
) -> None:
    case, path = case_of("lesson6/sequence_rnn"), tmp_path / "m.pt"
    caller.write(exported(case, "float32"), path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    wording.line(caller.refusal(path, case), words)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04cut off"])
def test_a_file_that_is_no_state_dict_is_refused(
    content: bytes, caller: Caller, tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    told = caller.refusal(path, case_of("lesson6/sequence_rnn"))
    wording.line(told, "state_dict")
    assert "torch.save(model.state_dict(), FILE)" in told


def test_a_file_with_code_in_it_is_not_run(
    caller: Caller, tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    wording.line(caller.refusal(path, case_of("lesson6/three_char")), "state_dict")
