"""No backend runs its own layer for a definition that means something else, whatever its name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed_definitions import OTHER, changed, shipped
from golden.tiny import tiny

import harness
from harness.language.library import FOLDERS, Library
from harness.language.lower_optimizer import lower_update
from harness.program.ir import Phase
from harness.program.updates import UpdateRule
from harness.worker.launch import Launch
from harness.worker.remote import Remote
from harness.worker.worker import Worker

Overrides = dict[tuple[str, str], str]
BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")
OWN = ("layer", "loss", "optimizer")
PHASES: tuple[Phase, ...] = ("training", "inference")
# Attributes that name functions; what has no layers with any of them.
GATED = {"dense": ("activation",), "lstm": ("gate",)}
NONE = ("numpy", "jax")


PLANTED = [("layer", "dense"), ("layer", "batch_norm"), ("layer", "embedding")]
PLANTED += [("function", "sigmoid"), ("loss", "sparse_cross_entropy"), ("optimizer", "adam")]
# Functions that need more than what they are of.
NO_ACTIVATION = ("rotary", "rotary_interleaved")
HARNESS = Path(sys.executable).with_name("harness")
MINE = """\
model: mine
summary: Of layers that ship, and of a folder's own in place of them.
source: none
sizes: {vocab: 7, units: 5}
inputs: {i: {shape: [batch, time], index: vocab}}
layers:
  table: {layer: embedding, rows: vocab, units: units}
  cell: {layer: lstm, units: units}
  scaled: {layer: batch_norm}
  out: {layer: dense, units: vocab}
equations: |
  y = out(scaled(cell(table(i))))
targets: {target: {shape: [batch, time], index: vocab}}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {optimizer: adam, learning_rate: 0.0078125}
"""


@pytest.fixture(scope="module", params=BACKENDS)
def remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    with Worker(Launch(request.param)) as worker:
        yield Remote(worker, 600.0)


def runs(
    remote: Remote,
    kind: str,
    name: str,
    overrides: Overrides | None = None,
    attributes: dict[str, str] | None = None,
) -> str:
    """What runs one call of a layer or a loss, or an optimizer."""
    rule: UpdateRule | None = None
    if kind == "optimizer":
        rule = lower_update(Library((), dict(overrides or {})), name, {}, None)
        kind, name, overrides = "layer", "dense", {}
    training, inference = (
        tiny(kind, name, attributes, phase, overrides).program for phase in PHASES
    )
    paths = remote.open(training, inference, rule, "native", "float32", "cpu")
    return paths["optimizer"] if rule else next(path for key, path in paths.items())


def test_a_definition_of_another_meaning_runs_as_its_equations(remote: Remote) -> None:
    found = {
        (kind, name, new): runs(remote, kind, name, {(kind, name): changed(kind, name, old, new)})
        for kind, name, old, new in OTHER
        # The parts of a layer that is made of layers are claimed by themselves.
        if kind in OWN and not getattr(Library().find(kind, name).content, "layers", {})
    }
    assert {case: path for case, path in found.items() if path != "equations"} == {}


def test_a_layer_with_a_function_of_another_meaning_runs_as_its_equations(remote: Remote) -> None:
    """The layer ships, and so does the name of its activation or gate."""
    native = 0
    for _, name, old, new in (case for case in OTHER if case[0] == "function"):
        if name in NO_ACTIVATION:
            continue
        other = {("function", name): changed("function", name, old, new)}
        for layer, attributes in GATED.items():
            for attribute in attributes:
                plain = runs(remote, "layer", layer, {}, {attribute: name})
                assert runs(remote, "layer", layer, other, {attribute: name}) == "equations"
                native += plain != "equations"
    assert native > 0 or remote.worker.launch.backend in NONE


def test_a_copy_under_another_name_runs_as_what_it_copies(remote: Remote) -> None:
    native = 0
    for kind in OWN:
        for name in Library().names(kind):
            copy = shipped(kind, name).replace(f"{kind}: {name}\n", f"{kind}: copy\n")
            plain = runs(remote, kind, name)
            assert runs(remote, kind, "copy", {(kind, "copy"): copy}) == plain
            native += plain != "equations"
    assert native > 2 or remote.worker.launch.backend in NONE


@pytest.mark.slow
def test_a_folder_of_other_meanings_agrees_with_the_oracle_everywhere(tmp_path: Path) -> None:
    """The command says what runs, and every value is that of the folder's equations."""
    for kind, name in PLANTED:
        _, _, old, new = next(case for case in OTHER if case[:2] == (kind, name))
        path = tmp_path / FOLDERS[kind] / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(changed(kind, name, old, new))
    (tmp_path / "mine.yaml").write_text(MINE)
    options = ["check", str(tmp_path / "mine.yaml"), "--specs", str(tmp_path), "--verbose"]
    for backend in ("numpy", "torch", "jax", "keras"):
        options += ["--backend", backend]
    for check in ("values", "gradients", "training", "pipeline"):
        options += ["--check", check]
    run = subprocess.run([HARNESS, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    told = [line for line in run.stdout.splitlines() if "cell: " in line]
    assert len(told) == 8, run.stdout
    for line in told:
        layers = line[line.index("(") + 1 : line.rindex(")")].partition("; ")[2]
        assert {part.rpartition(": ")[2] for part in layers.split(", ")} == {"equations"}, line
    for kind, name in PLANTED:
        assert f"{kind} {name!r} comes from" in run.stderr
    assert run.stderr.count("differs: no backend") == len(PLANTED)


@pytest.mark.parametrize("backend", ["torch", "keras", "jax"])
def test_layers_that_share_parameters_are_claimed_only_if_they_are_alike(backend: str) -> None:
    """Each ran as the first of them: relu as tanh, strides of 3 as of 1; the spec was blamed."""
    model = Path(__file__).parents[1] / "support" / "odd_models" / "tied_otherwise.yaml"
    report = harness.check(str(model), backend, checks=["values", "training", "cotangents"])
    assert report.exit_code == 0, str(report)
    for result in report.results:
        shared = {result.layers[name] for name in ("kernel", "norm", "curved", "embed")}
        assert shared == {"equations"}
    assert {r.layers["widen"] for r in report.results} != {"equations"} or backend == "jax"
