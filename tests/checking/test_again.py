"""The command that runs a cell once more, as a report and the terminal show it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
from users_models import GRU, NET, model_file
from wording import Wording

from harness.checking.history import rerun_command
from harness.checking.request import Request
from harness.checking.runner import CellRunner
from harness.given.files import gather_for
from harness.given.make_request import apply_own_model


def shown(request: Request) -> str:
    """The command of the first cell of a request."""
    with CellRunner(request) as runner:
        return shlex.join(rerun_command(runner.cells()[0], runner.new_head()))


def test_a_spec_in_a_file_is_asked_for_by_its_file(tmp_path: Path) -> None:
    spec = model_file(tmp_path, GRU, "my gru.yaml")
    found = shown(Request(specs=(str(spec),), backends=("numpy",), dtypes=("float32",)))
    assert found == f"harness check '{spec}' --backend numpy --dtype float32"
    ships = shown(Request(specs=("lesson6/simple_rnn",), backends=("numpy",)))
    assert ships == "harness check lesson6/simple_rnn --backend numpy --dtype float64"


def test_a_model_of_a_users_own_is_asked_for_as_it_was(tmp_path: Path, wording: Wording) -> None:
    spec, file = model_file(tmp_path, GRU, "gru_lm.yaml"), model_file(tmp_path, NET)
    rules = model_file(tmp_path, "embed = emb\nrnn=gru\n", "rules.map")
    given = {
        "against": f"{file}:Net",
        "maps": (str(rules), "out=fc"),
        "takes": ("chars",),
        "returns": ("logits",),
    }
    request = apply_own_model(Request(specs=(str(spec),), dtypes=("float32",)), given)
    found = shown(request)
    wording(
        found,
        f"check {spec} --backend torch --dtype float32 --against {file}:Net --map 'embed"
        " ... emb' --map rnn=gru --map out=fc --takes ... --returns",
    )
    # It asks for what the first run asked for.
    words = shlex.split(found)
    maps = tuple(words[n + 1] for n, word in enumerate(words) if word == "--map")
    repeated = apply_own_model(replace(request, against=None), {**given, "maps": maps})
    assert repeated.against == request.against


def test_checks_that_were_asked_for_are_asked_for_again() -> None:
    request = Request(specs=("mlp",), backends=("numpy",), checks=("loss", "grad*"))
    found = shown(request)
    assert found.endswith(" --check loss --check 'grad*'")
    with CellRunner(request) as runner:
        words = rerun_command(runner.cells()[0], runner.new_head(), ("outputs",))
    assert words[-2:] == ["--check", "outputs"]
    assert "loss" not in words


def test_limits_that_are_not_the_usual_ones_are_asked_for_again() -> None:
    request = Request(specs=("mlp",), backends=("numpy",), timeout=0.5, memory_limit=2**30)
    assert shown(request).endswith(" --timeout 0.5 --memory 1024")
    assert "--timeout" not in shown(replace(request, timeout=120.0))


def test_given_numbers_are_given_again(tmp_path: Path) -> None:
    spec, inputs = model_file(tmp_path, GRU, "gru_lm.yaml"), tmp_path / "batch.npz"
    np.savez(inputs, chars=np.zeros((2, 3), int))
    given = gather_for((str(spec),), (), {}, inputs=inputs)
    found = shown(Request(specs=(str(spec),), backends=("numpy",), given=given))
    assert f" --inputs {inputs}" in found
