"""What is wrong with layers in layers is told with its place, and soon."""

from __future__ import annotations

import re
from time import process_time

import pytest
from nested_specs import BLOCK, CHAIN, PAIR, model, refused, renamed


@pytest.mark.parametrize(
    ("text", "definitions", "wanted"),
    [
        (
            model("a: {layer: one, wide: wide}", "y = a(x)"),
            {
                "one": renamed("one", "simple_rnn, units", "two, wide"),
                "two": renamed("two", "simple_rnn, units", "one, wide"),
            },
            r"<layers/two.yaml>:7:16: a layer cannot hold itself: "
            r"one \(<models/nested.yaml>:8:14\) -> two \(<layers/one.yaml>:7:16\) -> "
            r"one \(<layers/two.yaml>:7:16\)",
        ),
        (
            model("blocks: {layer: dense, repeat: 10001, units: width}"),
            {},
            "the layers come to more than 10,000",
        ),
        (
            model("blocks: {layer: dense, repeat: time, units: width}"),
            {},
            r"8:34: repeat is time, and time is decided by the arrays",
        ),
        (
            model("blocks: {layer: dense, repeat: width - 4, units: width}"),
            {},
            r"repeat is width - 4 = 0: a chain has 1 layer or more|a chain has 1",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("y = h + down(up(h))", "y = h + down(h)")},
            r"<layers/block.yaml>:8:3: layer 'up' is declared but never called",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace(", activation: activation}", "}")},
            r"attribute 'activation' is declared but never used",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("activation: activation", "activation: wide")},
            r"attribute 'activation' names a function, found 'wide'",
        ),
        (
            model("blocks: {layer: block, repeat: depth, wide: wide, init: {W: zeros}}"),
            {},
            r"block has no parameters but those of its layers: give 'init' under 'layers'",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("  up: {", "  relu: {")},
            "'relu' is taken: it is a function",
        ),
        (
            model("both: {layer: shape, units: 7}", "a = both(x)\ny = both(a[:, :, 1:])"),
            {"shape": PAIR.replace("layer: pair", "layer: shape")
             .replace("wide: size", "units: size")
             .replace("layer: block, wide: wide", "layer: block, wide: units")
             .replace("wide: 3", "wide: features")},
            r"both.again is shared: wide is width since an earlier call, width - 1 here",
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
            "blocks_0 and blocks.0 have one name in files of frameworks",
        ),
        (
            model(CHAIN),
            {"block": BLOCK.replace("down(up(h))", "down(dense(h))")},
            r"'dense' is a layer: name it under 'layers', as in 'dense_1: \{layer: dense, "
            r"units: \.\.\.\}', and call that name",
        ),
        (
            model("blocks: {layer: dense, repeat: 2, units: width}", "y, h = blocks(x)"),
            {},
            "blocks gives 1 result",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    text: str, definitions: dict[str, str], wanted: str
) -> None:
    found = refused(text, **definitions)
    assert re.search(wanted, found), found
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
    assert "the layers come to more than 10,000" in found or "20,000 values" in found
    assert process_time() - start < 20
