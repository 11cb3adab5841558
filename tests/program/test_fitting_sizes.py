"""The batch and the length that a model can have, where slices and windows ask for some."""

from __future__ import annotations

import pytest
from small_models import sized
from wording import Wording

from harness.checking.request import Request, case_sizes
from harness.errors import UsageError
from harness.language.model import load_spec
from harness.program.signature import fits, nearest_sizes


@pytest.mark.parametrize(
    ("equation", "wanted", "found"),
    [
        ("place(x)", (2, 1), (2, 1)),
        ("place(x)", (3, 7), (3, 6)),
        ("place(x[:, 1:] - x[:, :-1])", (2, 1), (2, 2)),
        ("place(x[:, 1:] - x[:, :-1])", (2, 9), (2, 7)),
        ("place(x)[2:]", (1, 8), (3, 6)),
        ("place(sum(windows(x, axes=[1], size=5, dilation=3), axis=2))", (2, 1), (2, 13)),
        ("place(x)[:, : batch]", (9, 4), (4, 4)),
        ("place(x)[:2]", (1, 1), (2, 1)),
    ],
)
def test_the_nearest_sizes_are_found(
    equation: str, wanted: tuple[int, int], found: tuple[int, int]
) -> None:
    program = sized(equation, 6).program("training")
    assert nearest_sizes(program, *wanted) == found
    assert fits(program, *found)
    assert fits(program, *wanted) == (wanted == found)


@pytest.mark.parametrize("equation", ["place(x[:, 8:])[:, 7:]", "place(x)[5000:]"])
def test_a_model_that_can_have_none_says_what_is_lacking(equation: str, wording: Wording) -> None:
    with wording.raises(UsageError, "other"):
        nearest_sizes(sized(equation, 6).program("training"), 3, 7)


IMAGE = """\
model: image
summary: Made for a test.
source: Made for a test.
sizes: {side: 28, channels: 9, kernel: 5}
inputs:
  x: {shape: [batch, side, side, 1]}
layers:
  first: {layer: conv2d, units: channels, kernel: kernel}
  second: {layer: conv2d, units: channels, kernel: kernel}
equations: y = second(first(x))
"""


def test_sizes_that_cannot_be_small_stay_as_they_are() -> None:
    spec = load_spec("image", overrides={("model", "image"): IMAGE})
    sizes, batch, time = case_sizes(spec, Request(("image",), ("numpy",)), own=False)
    assert (sizes, batch, time) == ({"side": 28, "channels": 8, "kernel": 5}, 3, 4)
