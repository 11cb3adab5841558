"""The page that ``harness explain --html`` writes: its boxes, and that no text becomes markup."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path

import pytest
from click.testing import CliRunner
from places import SUPPORT
from report_pages import HOSTILE, Tags
from wording import Wording

from harness.checking.model_boxes import Box, draw_boxes
from harness.commands import cli
from harness.language.model import load_spec

SHAPE = "[batch, time, head*heads]"
CHAIN = """model: chain
summary: {summary}
source: A test.
inputs:
  x: {{shape: [batch, 4]}}
layers:
  first: {{layer: pair}}
  all: {{layer: dense, units: 4, repeat: 3}}
  end: {{layer: pair}}
equations: |
  y = end(all(relu(first(x)) + x))
definitions:
  - layer: pair
    summary: Two layers.
    source: A test.
    inputs: {{x: [batch, features]}}
    layers:
      a: {{layer: dense, units: features}}
      b: {{layer: layer_norm}}
    equations: y = x + b(a(x))
    output: y
"""


def by_name(boxes: Iterable[Box]) -> dict[str, Box]:
    return {box.name or box.title: box for box in boxes}


def test_the_boxes_of_gpt() -> None:
    spec = load_spec("gpt")
    drawn = draw_boxes(spec, spec.program(), {"torch": {"blocks.0.up": "linear"}, "jax": "lost"})
    named = by_name(drawn)
    assert [*named][:5] == ["embed", "place", "blocks", "norm", "embed#2"]
    assert named["embed"].parameters == ("table [86, 32]",)
    # The blocks differ in the code that runs them, so they are drawn apart, the second one folded.
    first, second = named["blocks"].inner
    assert (first.code, by_name(first.inner)["up"].code) == ({}, {"torch": "linear"})
    assert (first.opened, second.opened) == (True, False)
    (blocks,) = (b for b in draw_boxes(spec, spec.program(), {}) if b.name == "blocks")
    assert (blocks.kind, blocks.title, blocks.repeated) == ("definition", "gpt_block", ("0", "1"))
    assert (blocks.outputs, blocks.count) == ((SHAPE,), 25_408)
    assert [(b.name, b.title, b.inputs) for b in blocks.inner] == [
        ("norm_1", "layer_norm", ()),
        ("attend", "causal_attention", ()),
        ("", "add", ("input", "attend")),
        ("norm_2", "layer_norm", ()),
        ("up", "dense", ()),
        ("down", "dense", ()),
        ("", "add", ("h", "down")),
    ]
    assert named["embed#2"].parameters == ("embed.table [86, 32], shared",)
    assert sum(box.count for box in drawn) == 30_272


def test_values_without_a_name_belong_to_their_definition(tmp_path: Path) -> None:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(summary="A test."), encoding="utf-8")
    spec = load_spec(str(path))
    drawn = draw_boxes(spec, spec.program(), {})
    assert [(b.name, b.title, b.inputs, len(b.inner), b.opened) for b in drawn] == [
        ("first", "pair", ("x",), 3, True),
        ("", "relu, add", ("x", "first"), 0, True),
        ("all", "dense", (), 1, True),  # a chain of equal layers is drawn once
        ("end", "pair", (), 3, False),
    ]
    assert drawn[2].repeated == ("0", "1", "2")
    assert drawn[3].outputs == ("y [batch, 4]",)


def test_a_definition_that_is_called_twice_is_one_box() -> None:
    spec = load_spec(str(SUPPORT / "odd_specs/nested.yaml"), [SUPPORT / "odd_specs"])
    both = by_name(draw_boxes(spec, spec.program(), {}))["both"]
    assert [(box.name, box.title) for box in both.inner] == [
        ("first", "small_block"),
        ("again", "small_block"),
    ]
    layers = [box.name for box in both.inner[1].inner if box.name]
    assert layers == ["mix", "scale", "up", "down", "mix#2", "scale#2", "up#2", "down#2"]


@pytest.mark.parametrize("name", ["bert", "resnet", "seq2seq_attention", "vae"])
def test_each_parameter_is_drawn_once(name: str) -> None:
    spec = load_spec(name)
    program = spec.program()
    drawn = draw_boxes(spec, program, {})
    ports = (*program.parameters, *program.statistics)
    assert sum(box.count for box in drawn) == sum(prod(program.shape(port)) for port in ports)


def test_a_page_shows_arrays_that_belong_to_no_layer(tmp_path: Path) -> None:
    text = CHAIN.format(summary="Own arrays.").replace(
        "layers:", "parameters:\n  scale: {shape: [4], init: ones}\nlayers:", 1
    )
    (tmp_path / "chain.yaml").write_text(text.replace("first(x)", "scale * first(x)"))
    page = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["explain", str(tmp_path / "chain.yaml"), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "own.scale [4]" in page.read_text() or "scale [4]" in page.read_text()


def test_a_page_shows_the_model_and_escapes_every_text(tmp_path: Path, wording: Wording) -> None:
    path, page = tmp_path / "chain.yaml", tmp_path / "page.html"
    path.write_text(CHAIN.format(summary=json.dumps(HOSTILE.replace("\x1b", ""))), encoding="utf-8")
    found = CliRunner().invoke(cli, ["explain", str(path), "--html", str(page)])
    assert found.exit_code == 0, found.output
    text = page.read_text("utf-8")
    tags = Tags(text)
    assert not tags.open
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "img", "link", "iframe"}
    assert not [a for _, attributes in tags.seen for a in attributes if a.startswith("on")]
    assert "{{ 7 * 7 }}" in text
    assert "default-src 'none'" in text
    assert text.count('<div class="box definition">') == 3
    assert "<b>× 3</b>" in text  # noqa: RUF001
    # A page may be replaced, but no other file, and only models are drawn.
    assert CliRunner().invoke(cli, ["explain", "gpt", "--html", str(page)]).exit_code == 0
    assert "embed.table [86, 32], shared" in page.read_text("utf-8")
    for arguments in ([str(path), "--html", str(path)], ["adam", "--html", str(page)]):
        wrong = CliRunner().invoke(cli, ["explain", *arguments])
        assert wrong.exit_code == 2
        wording.line(wrong.output, "--html" if arguments[0] == "adam" else "chain.yaml")
