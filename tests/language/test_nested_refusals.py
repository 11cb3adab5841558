"""What is wrong with layers in layers is told with its place, and soon."""

from __future__ import annotations

import re
from time import process_time

import pytest
from nested_specs import BLOCK, CHAIN, PAIR, model, refused, renamed
from wording import Wording


@pytest.mark.parametrize(
    ("text", "definitions", "wanted"),
    [
        (
            model("a: {layer: one, wide: wide}", "y = a(x)"),
            {
                "one": renamed("one", "simple_rnn, units", "two, wide"),
                "two": renamed("two", "simple_rnn, units", "one, wide"),
            },
            ("<layers/two.yaml>:7:16 ... <models/nested.yaml>:8:14) ->"
" ... <layers/one.yaml>:7:16) -> ... <layers/two.yaml>:7:16"),
        ),
        (
            model("blocks: {layer: dense, repeat: 10001, units: width}"),
            {},
            "10,000",
        ),
        (
            model("blocks: {layer: dense, repeat: time, units: width}"),
            {},
            "8:34",
        ),
        (
            model("blocks: {layer: dense, repeat: width - 4, units: width}"),
            {},
            "repeat ... 0 ... 1",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("y = h + down(up(h))", "y = h + down(h)")},
            "<layers/block.yaml>:8:3 ... layer 'up'",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace(", activation: activation}", "}")},
            "'activation'",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("activation: activation", "activation: wide")},
            "'activation' ... 'wide'",
        ),
        (
            model("blocks: {layer: block, repeat: depth, wide: wide, init: {W: zeros}}"),
            {},
            "'init' ... 'layers'",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("  up: {", "  relu: {")},
            "'relu'",
        ),
        (
            model("both: {layer: shape, units: 7}", "a = both(x)\ny = both(a[:, :, 1:])"),
            {"shape": PAIR.replace("layer: pair", "layer: shape")
             .replace("wide: size", "units: size")
             .replace("layer: block, wide: wide", "layer: block, wide: units")
             .replace("wide: 3", "wide: features")},
            "both.again ... 1",
        ),
        (
            model("a.b: {layer: dense, units: width}", "y = x"),
            {},
            "a.b",
        ),
        (
            model("blocks_0: {layer: dense, units: width}\n  blocks: {layer: dense, repeat: 1, "
                  "units: width}", "y = blocks_0(blocks(x))"),
            {},
            "blocks_0 ... blocks.0",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("down(up(h))", "down(dense(h))")},
            "'dense' ... 'layers' ... dense_1: {layer",
        ),
        (
            model("blocks: {layer: dense, repeat: 2, units: width}", "y, h = blocks(x)"),
            {},
            "1",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    text: str, definitions: dict[str, str], wanted: str, wording: Wording
) -> None:
    found = refused(text, **definitions)
    wording(found, wanted)
    assert re.search(r"<\w+/\w+\.yaml>:\d+:\d+: ", found), found


def test_doubling_ends() -> None:
    """Each holds two of the next: 2 ** 15 layers from 15 short files."""
    texts = {}
    for number in range(15):
        inner = f"d{number + 1}" if number < 14 else "dense, units: features"
        texts[f"d{number}"] = (
            f"layer: d{number}\nsummary: Two.\nsource: Test.\ninputs: {{x: [..., features]}}\n"
            f"layers:\n  a: {{layer: {inner}}}\n  b: {{layer: {inner}}}\n"
            "equations: y = a(b(x))\noutput: y\n"
        )
    start = process_time()
    found = refused(model("a: {layer: d0}", "y = a(x)"), **texts)
    assert "10,000" in found or "20,000" in found
    assert process_time() - start < 20
