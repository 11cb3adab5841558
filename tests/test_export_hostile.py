"""Text of strangers in generated code: it stays text, and nothing of it is run."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from format_cases import Case, everything
from hostile import PAYLOADS, SENTINEL, TEXTS, kinds, renamed, structure
from hypothesis import event, given, settings
from hypothesis import strategies as st

from harness import weights
from harness.cli import cli
from harness.convert.generated import run_file
from harness.convert.vetting import vetted
from harness.errors import HarnessError, UsageError
from harness.formats import Exported
from harness.material import draw
from harness.spec.lower import load_spec
from harness.weights import Weights

torch_module = pytest.importorskip("harness.backends.torch_module")
jax_module = pytest.importorskip("harness.backends.jax_module")

from harness.backends import (  # noqa: E402
    jax_source,
    keras_custom,
    keras_format,
    torch_source,
)

FILES = st.one_of(st.sampled_from(PAYLOADS), TEXTS).map(
    lambda t: t.replace("/", "").replace("\0", "")
)
SUFFIXES = {"torch": "pt", "jax": "npz", "keras": "keras", "onnx": "onnx"}
VOCABULARIES = st.lists(st.characters(), min_size=1, max_size=8).map(tuple)


def torch_text(exported: Exported, file: str = "model.py") -> str:
    return vetted(torch_module.Writer(exported, file).source(), torch_source.WORDS, file)


def jax_text(exported: Exported, file: str = "model.py") -> str:
    return vetted(jax_module.Writer(exported, file).source(), jax_source.WORDS, file)


def keras_text(exported: Exported, file: str = "model.py") -> str:
    """Every layer as one that Keras does not have."""
    program, texts = exported.inference, {}
    for number, call in enumerate(program.calls):
        constants = [n for n in program.nodes if n.op in ("constant", "broadcast_to")]
        made = keras_custom.custom(program, call, constants, {"name", "build"})
        texts[f"Layer{number}"] = keras_custom.class_text(f"Layer{number}", [made])
    return keras_format._module_text(Path(file).with_suffix(".keras"), texts)


WRITERS = {"torch": torch_text, "jax": jax_text, "keras": keras_text}


@cache
def plain() -> Exported:
    """A model with all forms of the language, with characters."""
    with TemporaryDirectory() as folder:
        return Case.of(everything(Path(folder)), "float32").exported


@cache
def plainly(name: str) -> tuple[str, set[str]]:
    """What the source of the plain model does, and the kinds of nodes in that of other names."""
    source = WRITERS[name]
    others = renamed(plain(), lambda old: f"{old}_q")
    return class_less(structure(source(plain()))), kinds(source(others))


def class_less(structure: str) -> str:
    """Without the names of classes: one is the model's own, as an identifier."""
    return re.sub(r"\b[A-Z][A-Za-z0-9]*\b", "Class", structure)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, deadline=None)
@given(spec=TEXTS, file=FILES, vocabulary=VOCABULARIES, history=TEXTS)
def test_prose_and_data_change_nothing_of_what_a_source_does(
    name: str, spec: str, file: str, vocabulary: tuple[str, ...], history: str
) -> None:
    changed = replace(plain(), spec=spec, vocabulary=vocabulary, metadata={history: [history]})
    source = WRITERS[name](changed, f"m{file}.py")
    assert class_less(structure(source)) == plainly(name)[0]
    assert source.isascii()


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None)
@given(hostile=TEXTS)
def test_names_that_no_spec_can_have_are_names_or_literals(name: str, hostile: str) -> None:
    ending = re.sub("[./#]", "", hostile)
    # With something behind them, names are none of those that a framework has layers for.
    source = WRITERS[name](renamed(plain(), lambda old: f"{old}_{ending}"))
    assert kinds(source) <= plainly(name)[1]
    assert source.isascii()


NAMED = """model: {model}
summary: Names that Python and the frameworks have.
source: none
sizes: {{self: 3, phase: 4, kwargs: 5}}
inputs:
  torch: {{shape: [batch, time, self]}}
  zip: {{shape: [batch, time, phase]}}
  len: {{shape: [batch], index: kwargs}}
state:
  steps: {{shape: [batch, phase]}}
  carry: {{shape: [batch, phase]}}
layers:
  list: {{layer: lambda_, units: phase}}
  nn: {{layer: none, units: phase}}
  jax: {{layer: dense, units: phase}}
  keras: {{layer: embedding, rows: kwargs, units: phase}}
  train: {{layer: dense, units: phase}}
  train_: {{layer: dense, units: phase}}
  forward: {{layer: super, units: phase}}
equations: |
  float, steps, carry = list(torch, zip, steps=steps, carry=carry)
  reversed = nn(float)
  np = jax(reversed) + nn(zip)
  jnp = mean(train(np) - train_(np), axis=1)
  ops = forward(jnp) + keras(len)
  self_ = mean(float, axis=1) * ops
  math = np[:, -1] + self_
  _ = math * 2
  state = _ + math
  outputs = where(state < 0, 0, state)
  params = outputs + mean(zip, axis=1)
  batch_2 = one_hot(len, kwargs)
targets:
  dtype: {{shape: [batch, phase]}}
loss: mean(squared_error(params, dtype))
optimizer: {{optimizer: sgd}}
"""
DEFINITIONS = {
    "layers/lambda_": """layer: lambda_
summary: Two states, whose names the loops have.
source: none
inputs:
  slices: [batch, time, features]
  sequence: [batch, time, units]
attributes: {units: size}
parameters:
  name: {shape: [features, units], init: glorot_uniform}
  weight_name: {shape: [units], init: zeros}
  forward_2: {shape: [units], init: ones}
  call: {shape: [units], init: ones}
state:
  steps: {shape: [batch, units]}
  carry: {shape: [batch, units]}
scan:
  over: {training: slices, mask: sequence}
  step: |
    stacked = tanh(training @ name + weight_name) * forward_2
    steps = steps + 0.1 * (stacked - carry) * call
    carry = carry * 0.5 + mask * stacked
    each = steps * carry
  output: each
""",
    "layers/none": """layer: none
summary: Called with sequences of two kinds.
source: none
inputs:
  inputs: [..., features]
attributes: {units: size}
parameters:
  zip: {shape: [features, units], init: glorot_uniform}
equations: |
  torch = inputs @ zip
  super = tanh(torch)
output: super
""",
    "layers/super": """layer: super
summary: Its class would be Python's.
source: none
inputs:
  form: [..., features]
attributes: {units: size}
parameters:
  training: {shape: [features, units], init: glorot_uniform}
equations: form_1 = form @ training
output: form_1
""",
}


def run_harness(*arguments: object) -> Result:
    found = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert "Traceback" not in found.output, found.output
    return found


def weighted(folder: Path, file: str, text: str) -> Any:
    """A spec in a file, and drawn weights of it."""
    (folder / file).write_text(text, encoding="utf-8")
    for name, definition in DEFINITIONS.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(definition)
    spec = load_spec(str(folder / file), [folder])
    drawn = draw(spec.program(), 1, 1, 3)
    arrays = [
        {n: a.astype(np.float32) for n, a in every.items()}
        for every in (drawn.parameters, drawn.statistics)
    ]
    made = Weights(spec.name, weights.fingerprint(spec), dict(spec.program().sizes), *arrays)
    weights.save(folder / "w.st", made)
    return spec


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "jax", "keras", "onnx"])
def test_names_of_python_and_of_frameworks_are_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime" if name == "onnx" else name)
    monkeypatch.chdir(tmp_path)
    weighted(tmp_path, "spec.yaml", NAMED.format(model="none"))
    command = ("spec.yaml", "--specs", tmp_path, "--weights", "w.st")
    found = run_harness("export", *command, "--to", name, "--output", f"m.{SUFFIXES[name]}")
    assert found.exit_code == 0, found.output
    arguments = ("spec.yaml", f"m.{SUFFIXES[name]}", "--from", name, "--weights", "b.st")
    back = run_harness("import", *arguments, "--specs", tmp_path)
    assert back.exit_code == 0, back.output
    given_, found_ = weights.load(tmp_path / "w.st"), weights.load(tmp_path / "b.st")
    assert given_.parameters.keys() == found_.parameters.keys()
    for key, array in given_.parameters.items():
        np.testing.assert_array_equal(found_.parameters[key], array)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("none", "NoneModel"),
        ('"true"', "TrueModel"),
        ("INPUTS", "INPUTSModel"),
        ("tensor", "TensorModel"),
        ("exception", "ExceptionModel"),
        ("3-d/2_-x", "Model2X"),
        ("lambda", "Lambda"),
    ],
)
def test_a_class_has_no_name_of_python_s(model: str, name: str, tmp_path: Path) -> None:
    spec = weighted(tmp_path, "spec.yaml", NAMED.format(model=model))
    drawn = draw(spec.program(), 1, 1, 3)
    both = spec.program("training"), spec.program("inference")
    exported = Exported(spec.name, *both, drawn.parameters, drawn.statistics)
    assert f"\nclass {name}(nn.Module):" in torch_text(exported)
    jax_text(exported)
    keras_text(exported)


@pytest.mark.parametrize(
    "model", [*PAYLOADS, "a" * 61, "-x", "a//b", "/a", "a/", "a/b/c/d/e", "../x"]
)
def test_a_model_s_name_is_told_when_it_is_wrong(model: str, tmp_path: Path) -> None:
    spec = {**yaml.safe_load(NAMED.format(model="none")), "model": model}
    text = yaml.safe_dump(spec, allow_unicode=False)
    if "\udcff" in model:
        text = text.replace("\udcff", "\\uDCFF")
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(HarnessError) as raised:
        load_spec(str(tmp_path / "spec.yaml"))
    assert "spec.yaml:" in str(raised.value)


@pytest.mark.parametrize("model", ["true", "null", "3", "[a]", "2020-01-01x:"])
def test_a_model_s_name_is_text(model: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(NAMED.format(model=model))
    with pytest.raises(HarnessError, match=r"spec.yaml:1:\d+: "):
        load_spec(str(tmp_path / "spec.yaml"))


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], bool]]:
    """Every text of a document: its path, and whether it is a key."""
    found: list[tuple[tuple[Any, ...], bool]] = []
    if isinstance(data, dict):
        for key, value in data.items():
            found += [((*path, key), True), *places(value, (*path, key))]
    elif isinstance(data, list):
        for number, value in enumerate(data):
            found += places(value, (*path, number))
    else:
        found.append((path, False))
    return found


DOCUMENT = yaml.safe_load(NAMED.format(model="none"))


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(places(DOCUMENT)), hostile=TEXTS)
def test_hostile_text_in_any_field_is_refused_or_stays_text(
    place: tuple[tuple[Any, ...], bool], hostile: str
) -> None:
    path, is_key = place
    document = deepcopy(DOCUMENT)
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    if is_key:
        holder[hostile] = holder.pop(path[-1])
    else:
        holder[path[-1]] = hostile
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, definition in DEFINITIONS.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / f"{file}.yaml").write_text(definition)
        (folder / "spec.yaml").write_bytes(yaml.safe_dump(document).encode("utf-8", "replace"))
        try:
            spec = load_spec(str(folder / "spec.yaml"), [folder])
        except HarnessError:
            return
    drawn = draw(spec.program(), 1, 1, 3)
    both = spec.program("training"), spec.program("inference")
    exported = Exported(spec.name, *both, drawn.parameters, drawn.statistics)
    event(f"loads with {path[0]}")
    for write in WRITERS.values():
        write(exported)


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "from os import system",
        "import torch as t",
        "x = __import__('os')",
        "x = eval('1')",
        "torch.load('m.pt')",
        "y = torch",
        "y = torch.nn",
        "y = torch.hub.load('a', 'b')",
        "y = nn.Module.__subclasses__()",
        "y = (1).__class__",
        "torch = 1",
        "zip = 1",
        "def zip(a): return a",
        "def f(torch): return torch",
        "class A(nn.Module, metaclass=B): pass",
        "@torch.compile\ndef f(): return 1",
        "lambda: 1",
        "f'{1}'",
        "x = [a for a in ()]; x[0]()",
        "global x",
        "del x",
        "x: int = 1",
        "def f(x): x.numpy().tofile('a')",
        "def f(self): self.share_memory()",
        "def f(x): x.to(memory_format=1)",
        "while 1: pass",
        "if 1: x = 'a'",
        "x = 1 if 2 else 3",
        "print",
        "async def f(): pass",
        "x = b'bytes'",
        "x = y = torch.zeros(3)",
    ],
)
def test_what_no_export_writes_is_not_run(line: str, tmp_path: Path) -> None:
    good = torch_text(plain())
    assert vetted(good, torch_source.WORDS, "m.py") == good
    (tmp_path / "m.py").write_text(f"{good}\n{line}\nOS = 'run'\n")
    with pytest.raises(UsageError, match=r"m.py.*an export writes no .*nothing was run"):
        run_file(tmp_path / "m.py", torch_source.WORDS)


@pytest.mark.parametrize("source", ["def", "x = " + "(" * 5000, "x = " + "-" * 200000 + "1", "\0"])
def test_what_is_no_source_is_told(source: str, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(source)
    with pytest.raises(UsageError, match=r"m\.py is no source that can be run"):
        run_file(tmp_path / "m.py", torch_source.WORDS)


def test_one_quote_that_gets_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second door holds where the first one is open."""
    monkeypatch.setattr("harness.convert.document.prose", str)
    changed = replace(plain(), spec=PAYLOADS[0])
    monkeypatch.setattr(torch_module, "told", str)
    with pytest.raises(UsageError, match="an export writes no expression outside"):
        torch_text(changed)


@pytest.mark.slow
@pytest.mark.parametrize("payload", PAYLOADS[:8])
def test_nothing_of_a_file_s_name_is_run(
    payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weighted(tmp_path, "spec.yaml", NAMED.format(model="none"))
    file = f"{payload.replace('/', '')}.pt"
    command = ("export", "spec.yaml", "--specs", tmp_path, "--weights", "w.st", "--to", "torch")
    found = run_harness(*command, "--output", file)
    assert found.exit_code == 0, found.output
    assert (tmp_path / file).is_file()
    assert "import os" not in structure((tmp_path / file).with_suffix(".py").read_text())
    assert not list(tmp_path.rglob(SENTINEL))
