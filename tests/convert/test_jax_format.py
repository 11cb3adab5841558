"""What is exported for JAX: run alone it gives the oracle's outputs, read back the same bits."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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
from needed import need
from sampling import sampled
from wording import Wording

need("jax")
# One with a table of rows, one with state and statistics, one that no framework has a layer for.
KEPT = ("lesson6/three_char", "lesson6/stateful_lstm", SYSTEMS[-1])


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with running("jax") as found:
        yield found


@pytest.mark.parametrize("name", sampled(SYSTEMS, KEPT), ids=lambda name: Path(name).stem)
def test_outputs_are_the_oracle_s_and_weights_come_back(
    name: str, caller: Caller, tmp_path: Path
) -> None:
    case = case_of(name)
    path = tmp_path / "model.npz"
    for dtype, (batch, time) in (("float64", (3, 5)), ("float32", (2, 2))):
        given = exported(case, dtype)
        assert caller.write(given, path) == [path, tmp_path / "model.py"]
        found = caller.deviations(path, case, dtype, batch, time)
        assert len(found) >= 3
        assert [str(d) for d in found if not d.agrees] == []
        assert dtype == "float32" or max(d.error for d in found) < 1e-12
        assert same_bits(caller.read(path, case), given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.npz", "model.py"]


def test_strange_numbers_come_back_to_the_bit(caller: Caller, tmp_path: Path) -> None:
    assert_strange_numbers_come_back(caller, tmp_path / "model.npz", "float64")


def test_the_same_weights_give_the_same_bytes(caller: Caller, tmp_path: Path) -> None:
    assert_same_bytes(caller, tmp_path / "a.npz")


def test_arrays_have_the_paths_of_the_pytree(
    caller: Caller, tmp_path: Path, wording: Wording
) -> None:
    caller.write(exported(case_of("lesson6/sequence_rnn"), "float32"), tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as arrays:
        assert arrays.files == ["embed/table", "rnn/W", "rnn/U", "rnn/b", "out/W", "out/b"]
    source = (tmp_path / "m.py").read_text()
    wording(re.findall(r"^(?:import|from) .*", source, re.M), "jax ... jax.numpy ... numpy")
    assert "jax.lax.scan(step, h, jnp.swapaxes(x, 0, 1))" in source


def test_used_from_plain_jax_without_the_harness(caller: Caller, tmp_path: Path) -> None:
    """Compiled, differentiated, and with its state carried."""
    caller.write(exported(case_of("lesson6/stateful_lstm"), "float32"), tmp_path / "m.npz")
    script = (
        "import sys, jax, jax.numpy as jnp\n"
        "import m\n"
        "params, constants = m.load('m.npz')\n"
        "apply = jax.jit(m.apply)\n"
        "outputs, state = apply(params, constants, jnp.zeros((2, 3), int))\n"
        "outputs, state = apply(params, constants, jnp.zeros((2, 1), int), state)\n"
        "assert outputs['logits'].shape == (2, 1, 86), outputs['logits'].shape\n"
        "def loss(params):\n"
        "    return m.apply(params, constants, jnp.zeros((2, 3), int))[0]['logits'].sum()\n"
        "gradient = jax.grad(loss)(params)\n"
        "assert all(abs(g).max() > 0 for g in gradient['lstm'].values())\n"
        "assert m.VOCABULARY[1] == chr(10) and len(m.VOCABULARY) == 10\n"
        "assert not any(name.startswith('harness') for name in sys.modules)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr


def test_two_gates_that_traded_places_are_seen(caller: Caller, tmp_path: Path) -> None:
    """In the weights, and in the source."""
    case, path = case_of("lesson6/theano_gru"), tmp_path / "m.npz"
    caller.write(exported(case, "float32"), path)
    assert all(d.agrees for d in caller.deviations(path, case, "float32"))
    whole = path.read_bytes()
    with np.load(path) as arrays:
        held = dict(arrays)
    held["gru/W_z"], held["gru/W_r"] = held["gru/W_r"], held["gru/W_z"]
    np.savez(path, **held)
    assert not all(d.agrees for d in caller.deviations(path, case, "float32"))
    path.write_bytes(whole)
    module = path.with_suffix(".py")
    source = module.read_text()
    assert source.count("h = z * h + (1.0 - z) * n") == 1
    module.write_text(source.replace("h = z * h + (1.0 - z) * n", "h = r * h + (1.0 - r) * n"))
    assert not all(d.agrees for d in caller.deviations(path, case, "float32"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("out/b"), "out/b"),
        (lambda s: s.update({"out/c": s["out/b"]}), "out/c"),
        (
            lambda s: s.update({"out/b": s["out/b"][1:]}),
            "out/b ... [86] ... [85] ... --size",
        ),
        (lambda s: s.update({"out/b": s["out/b"].astype(int)}), "out/b ... int64"),
        (lambda s: s.update({"out/b": s["out/b"].astype("f8")}), "float32 ... float64"),
    ],
)
def test_arrays_of_another_model_are_refused_in_words(
    change: Any, words: str, caller: Caller, tmp_path: Path, wording: Wording
) -> None:
    case, path = case_of("lesson6/sequence_rnn"), tmp_path / "m.npz"
    caller.write(exported(case, "float32"), path)
    with np.load(path) as arrays:
        held = dict(arrays)
    change(held)
    np.savez(path, **held)
    wording.line(caller.refusal(path, case), words)


def test_a_file_that_is_no_npz_is_refused(caller: Caller, tmp_path: Path, wording: Wording) -> None:
    case, path = case_of("lesson6/sequence_rnn"), tmp_path / "m.npz"
    for content in (b"", b"text", b"PK\x03\x04cut off"):
        path.write_bytes(content)
        wording(caller.refusal(path, case))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").replace(path)
    wording(caller.refusal(path, case))
    np.savez(path, **{"out/b": np.array([{}])})
    wording(caller.refusal(path, case))
