"""Who is at fault: the other paths of the backend are run by themselves, and told of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from installed_plugins import install_plugin
from wording import Wording

from harness.cli import cli
from harness.results.file import read_records

MODEL = "lesson6/simple_rnn"
PLUGIN = '''
"""Right but for what a backend's name says."""

import os

import numpy as np

from harness.runtime import plugins
from harness.runtime.hookspecs import hookimpl
from harness.runtime.native import Native
from harness.runtime.packing import Packing, Part


def claims(label, wrong):
    def claim(layer):
        if layer.definition != "dense":
            return None
        run = lambda given, packed: [given["x"] @ packed["W"] + wrong * packed["b"]]
        return Native(label, run, Packing({name: Part(name) for name in layer.shapes}))
    return claim


@hookimpl
def harness_backend(name):
    of_torch = name in ("blame-gradient", "blame-optimizer")
    backend = plugins.load("torch" if of_torch else "numpy")
    backend.name = name
    table, right = dict(backend.primitives), backend.value_and_gradient
    if name.startswith("blame-layer"):
        backend.claim = claims(name.removeprefix("blame-"), 1.01)
    elif name == "blame-other":
        backend.claim = claims("other", 1.02)
    elif name == "blame-table":
        backend.claim = claims("fine", 1.0)
        table["add"] = lambda a, b: np.add(a, b) + np.asarray(1e-3, np.result_type(a, b))
    elif name == "blame-compiler":
        def compiled(function):
            def wrong(*given):
                made = function(*given)
                return {n: 1.01 * t for n, t in made.items()} if isinstance(made, dict) else made
            return wrong
        backend.compile = compiled
    elif name == "blame-gradient":
        def value_and_gradient(function):
            made = right(function)
            def wrong(*given):
                results, gradients = made(*given)
                return results, {n: g * 1.001 for n, g in gradients.items()}
            return wrong
        backend.value_and_gradient = value_and_gradient
    elif name == "blame-optimizer":
        claim_optimizer = backend.claim_optimizer
        def claimed(rule):
            made = claim_optimizer(rule)
            def wrong(state, variables, gradients, learning_rate, donate=False):
                return type(made).update(
                    made, state, variables, gradients, 1.01 * learning_rate, donate
                )
            object.__setattr__(made, "update", wrong)
            return made
        backend.claim_optimizer = claimed
    elif name == "blame-crash":
        backend.claim = claims("rnn", 1.01)
        backend.session = lambda *_, path, **__: os._exit(7) if path == "equations" else None
    if not of_torch:
        backend.primitives = table
    return backend
'''
NAMES = ("layer-1", "layer-2", "other", "table", "gradient", "optimizer", "crash", "compiler")


@pytest.fixture
def checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, dict[str, Any]]]:
    """Check backends of the plugin; the output, and the ends of all cells by backend."""
    names = [f"blame-{name}" for name in NAMES]
    install_plugin(monkeypatch, tmp_path / "plugin", "harness_blame", PLUGIN, *names)

    def check(*backends: str, check: str = "inference", path: str = "native") -> Any:
        records = tmp_path / "run.jsonl"
        command = ["check", MODEL, "--dtype", "float64", "--path", path]
        for name in check.split():
            command += ["--check", name]
        command += ["--records", str(records), "--size", "hidden=5"]
        for backend in backends:
            command += ["--backend", f"blame-{backend}"]
        run = CliRunner().invoke(cli, command)
        lines = [json.loads(line) for line in records.read_text().splitlines()]
        ends = {line["backend"]: line["blame"] for line in lines if line["kind"] == "end"}
        assert ends, run.output
        return run.output, ends

    return check


def test_a_layer_that_the_equations_do_without_is_at_fault(checked: Any, wording: Wording) -> None:
    shown, ends = checked("layer-1")
    blame = ends["blame-layer-1"]
    assert blame["who"] == "layer"
    wording(blame["words"])
    assert "layer-1 (layer out)" in blame["words"]
    assert f"  at fault: layer. {blame['words']}" in shown


def test_what_is_wrong_on_every_path_is_the_plugins(checked: Any) -> None:
    _, ends = checked("table")
    assert ends["blame-table"]["who"] == "plugin"


def test_what_is_right_without_compilation_is_the_compilers(checked: Any, wording: Wording) -> None:
    _, ends = checked("compiler")
    assert ends["blame-compiler"]["who"] == "compiler"
    wording(ends["blame-compiler"]["words"])


def test_a_gradient_that_the_derived_one_does_without_is_at_fault(checked: Any) -> None:
    _, ends = checked("gradient", check="values", path="equations")
    assert ends["blame-gradient"]["who"] == "gradient"


def test_an_optimizer_that_the_equations_do_without_is_at_fault(
    checked: Any, wording: Wording
) -> None:
    """Not one of the layers, though whole steps differ too."""
    shown, ends = checked("optimizer", check="training pipeline")
    assert "pipeline-training: differ" in shown
    blame = ends["blame-optimizer"]
    assert blame["who"] == "layer"
    wording.line(blame["words"], "torch.optim.Adam")


def test_layers_that_agree_with_each_other_put_the_fault_on_the_spec(
    checked: Any, tmp_path: Path, wording: Wording
) -> None:
    """Two frameworks say the same, and the equations say something else."""
    shown, ends = checked("layer-1", "other", "layer-2")
    whos = [blame["who"] for blame in ends.values()]
    assert sorted(whos) == ["layer", "layer", "spec"]
    (spec,) = (blame for blame in ends.values() if blame["who"] == "spec")
    wording.line(spec["words"], "agree")
    assert "other" not in spec["words"].partition(" agree ")[0].split()
    # What is kept says the same of the cell that had ended before.
    kept = read_records(tmp_path / "run.jsonl").ended
    whos = {cell.backend: r.blame.who for cell, r in kept.items() if r.blame is not None}
    assert whos == {"blame-layer-1": "spec", "blame-layer-2": "spec", "blame-other": "layer"}
    assert shown.count("at fault: spec") == 2
    page = CliRunner().invoke(
        cli, ["report", str(tmp_path / "run.jsonl"), "-o", str(tmp_path / "out.html")]
    )
    assert page.exit_code == 0, page.output
    assert (tmp_path / "out.html").read_text().count("The spec is at fault.") == 2


def test_another_path_that_crashes_is_told_and_costs_no_finding(checked: Any) -> None:
    shown, ends = checked("crash")
    assert ends["blame-crash"]["who"] == "unknown"
    assert "exit code 7" in ends["blame-crash"]["words"]
    assert "inference: differ" in shown


def test_nobody_is_at_fault_where_all_agrees(checked: Any) -> None:
    shown, ends = checked("layer-1", path="equations")
    assert ends == {"blame-layer-1": None}
    assert "at fault" not in shown


def test_two_backends_are_held_against_each_other(checked: Any, wording: Wording) -> None:
    command = ["localise", MODEL, "--backend", "blame-layer-1", "--against", "numpy"]
    run = CliRunner().invoke(cli, [*command, "--size", "hidden=5"])
    assert run.exit_code == 1, run.output
    wording.line(run.output, f"{MODEL} ... blame-layer-1, float32, native ... numpy: differs")
    wording.line(run.output, "forward ... layer out")
    wording.line(run.output, "numpy ... agrees")
