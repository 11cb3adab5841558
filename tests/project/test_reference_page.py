"""docs/spec-reference.md is what docs/spec_reference.py writes, and its examples have a meaning."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from places import DOCS

from harness.language.model import load_spec
from harness.language.schema import KINDS

language = SimpleNamespace(**runpy.run_path(str(DOCS / "spec_reference.py")))
EXAMPLE = """model: example
summary: An example of the reference.
source: A test.
sizes: {{half: 2, vocab: 7}}
inputs:
  x: {{shape: [batch, time, 2 * half]}}
  i: {{shape: [batch, time], index: vocab}}
  mask: {{shape: [batch, time], boolean: true}}
parameters:
  W: {{shape: [2 * half, 3], init: {1}}}
  table: {{shape: [vocab, 3], init: zeros}}
equations: |
  {0}
  used = sum(x) + sum(W) + sum(table) + sum(astype(i)) + sum(astype(mask))
"""


def test_the_page_is_what_the_script_writes() -> None:
    assert language.PAGE.read_text(encoding="utf-8") == language.page(), (
        "run docs/spec_reference.py"
    )


@pytest.mark.parametrize("name", [*language.OPERATORS, *language.FUNCTIONS])
def test_examples_of_operators_and_functions_are_evaluated(tmp_path: Path, name: str) -> None:
    _, example = {**language.OPERATORS, **language.FUNCTIONS}[name]
    whole = "y, place = " if name == "top_k" else "y = "
    (tmp_path / "models").mkdir()
    text = EXAMPLE.format(whole + example, "zeros")
    (tmp_path / "models/example.yaml").write_text(text, encoding="utf-8")
    spec = load_spec("example", [tmp_path])
    assert [port.name for port in spec.program().parameters] == ["own.W", "own.table"]


@pytest.mark.parametrize("name", language.initializers.names())
def test_examples_of_initial_values_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    shown = language.called(name, language.initializers.argument_names(name))
    text = EXAMPLE.format("y = x", shown.replace("features", "3"))
    (tmp_path / "models/example.yaml").write_text(text, encoding="utf-8")
    assert load_spec("example", [tmp_path]).program().parameters


def test_every_key_has_a_text_and_an_example_of_its_type() -> None:
    shown = {form for forms in language.PARTS.values() for form in forms.values()}
    assert shown >= set(KINDS.values())
    for form in shown:
        for name, field in form.model_fields.items():
            assert field.description, (form, name)
            (example,) = field.examples or ()
            assert yaml.safe_load(language.flow(example)) == example
