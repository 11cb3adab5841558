"""Text of strangers in generated code: it stays text, and nothing of it is run."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from click.testing import CliRunner, Result
from format_cases import Case, everything
from hostile import NAMED, PAYLOADS, SENTINEL, TEXTS, kinds, renamed, structure, weighted
from hypothesis import given, settings
from hypothesis import strategies as st
from needed import need
from sampling import sampled
from sources import WRITERS, torch_source, torch_text
from wording import Wording

from harness.cli import cli
from harness.convert import weights
from harness.convert.formats import Exported
from harness.convert.source.vetting import run_file, vetted
from harness.errors import UsageError

FILES = st.one_of(st.sampled_from(PAYLOADS), TEXTS).map(
    lambda t: t.replace("/", "").replace("\0", "")
)
SUFFIXES = {"torch": "pt", "jax": "npz", "keras": "keras", "onnx": "onnx"}
VOCABULARIES = st.lists(st.characters(), min_size=1, max_size=8).map(tuple)


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


def run_harness(*arguments: object) -> Result:
    found = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert "Traceback" not in found.output, found.output
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "jax", "keras", "onnx"])
def test_names_of_python_and_of_frameworks_are_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnxruntime" if name == "onnx" else name)
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
def test_what_no_export_writes_is_not_run(line: str, tmp_path: Path, wording: Wording) -> None:
    good = torch_text(plain())
    assert vetted(good, torch_source.WORDS, "m.py") == good
    (tmp_path / "m.py").write_text(f"{good}\n{line}\nOS = 'run'\n")
    with wording.raises(UsageError, "m.py"):
        run_file(tmp_path / "m.py", torch_source.WORDS)


@pytest.mark.parametrize("source", ["def", "x = " + "(" * 5000, "x = " + "-" * 200000 + "1", "\0"])
def test_what_is_no_source_is_told(source: str, tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "m.py").write_text(source)
    with wording.raises(UsageError, "m.py"):
        run_file(tmp_path / "m.py", torch_source.WORDS)


def test_one_quote_that_gets_out_is_seen(monkeypatch: pytest.MonkeyPatch, wording: Wording) -> None:
    """The second door holds where the first one is open."""
    monkeypatch.setattr("harness.convert.source.document.prose", str)
    changed = replace(plain(), spec=PAYLOADS[0])
    monkeypatch.setattr("harness.convert.source.literals.name_text", str)
    with wording.raises(UsageError):
        torch_text(changed)


@pytest.mark.slow
@pytest.mark.parametrize("payload", sampled(PAYLOADS[:8], PAYLOADS[:2]))
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
