"""A small spec is soon read, and says little: shapes that equations make have limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from time_limits import computed_within

from harness.checking.explain import explain
from harness.errors import HarnessError
from harness.language.model import load_spec

# Processor time and characters of output that a spec of at most 1,500 bytes may come to.
SECONDS, CHARACTERS = 2.0, 150_000
MODEL = """\
model: grow
summary: Grows.
source: Made for a test.
sizes: {SIZES}
inputs:
  x: {shape: [AXIS]}
equations: |
  a0 = x + 1
"""
SQUARE = "merge(A[:, None] + A[None, :], axes=[0, 1])"
LETTERS = "abcdefghijklmnopqrst"


def model(sizes: str, number: int, axis: str, bodies: list[str]) -> str:
    """A model whose input has one axis; ``A`` in a body is what the body before has made."""
    text = MODEL.replace("SIZES", ", ".join(f"{name}: {number}" for name in sizes))
    lines = [f"  a{i + 1} = {b.replace('A', f'a{i}')}\n" for i, b in enumerate(bodies)]
    return text.replace("AXIS", axis) + "".join(lines)


def said(text: str, folder: Path) -> str:
    """What ``harness explain`` says of a spec: its text, or why it is refused."""
    assert len(text) <= 1500
    path = folder / "grow.yaml"
    path.write_text(text, encoding="utf-8")
    with computed_within(SECONDS):
        try:
            found = explain(str(path), (), {}).text()
        except HarnessError as error:
            found = str(error)
    assert len(found) <= CHARACTERS
    return found


GROWING = {
    "squares of the largest size": (model("n", 2147483647, "n", [SQUARE] * 10), 12, "8 sizes"),
    "squares of a number": (model("n", 3, "n + 9 - n", [SQUARE] * 10), 13, "9,223,372"),
    "eighteen squares": (model("n", 3, "n", [SQUARE] * 18), 12, "8 sizes"),
    "a sum of 20 sizes": (model(LETTERS, 2, " + ".join(LETTERS), [SQUARE] * 3), 9, "32 products"),
    "a sum of 3 sizes": (model("abc", 2, "a + b + c", [SQUARE] * 6), 11, "100 times"),
    "a sum of 2 sizes": (model("ab", 2, "a + b", [SQUARE] * 12), 12, "100 times"),
    "the largest sizes": (model("n", 2147483647, "n", [SQUARE] * 3), 10, "9,223,372"),
    "70 axes": (model("n", 3, "n", [f"A[{', '.join(['None'] * 70)}]"]), 9, "32 axes"),
    "sums in all axes": (
        model(
            LETTERS, 2, " + ".join(LETTERS), ["A[:, None] + A"] + ["A[:, :, None, None] + A"] * 2
        ),
        11,
        "at most 100 times",
    ),
    "copies of copies": (
        model("n", 2147483647, "n", ["concat([A, A, A, A, A, A, A, A], axis=0)"] * 22),
        29,
        "9,223,372",
    ),
}


@pytest.mark.parametrize("case", GROWING)
def test_a_shape_that_grows_is_refused_where_it_is_too_large(case: str, tmp_path: Path) -> None:
    text, line, message = GROWING[case]
    found = said(text, tmp_path)
    assert f"grow.yaml:{line}:" in found
    assert message in found
    assert len(found) < 2000


def test_links_of_a_chain_that_are_alike_are_said_once(tmp_path: Path) -> None:
    """A shape of 32 products of long names is cut, and 150 layers of it are two and a line."""
    names = [letter * 60 for letter in "abcde"]
    axis = "*".join(f"({name} + 1)" for name in names)
    text = MODEL.partition("equations")[0].replace("AXIS", axis)
    text = text.replace("SIZES", ", ".join(f"{name}: 2" for name in names))
    text += "layers: {l: {layer: layer_norm, repeat: 150}}\nequations: y = l(x)\n"
    found = said(text, tmp_path)
    assert found.count("\n  l.2 to l.149: same as l.1\n") == 1
    assert "\n  l.1: layer_norm\n" in found
    assert "72,900 trained" in found
    assert max(map(len, found.splitlines())) < 1000
    few = said(text.replace("150", "4"), tmp_path)
    assert "\n  l.3: layer_norm\n" in few


def test_many_errors_are_counted(tmp_path: Path) -> None:
    (path := tmp_path / "keys.yaml").write_text(
        "model: keys\n" + "".join(f"k{i}: 1\n" for i in range(3000))
    )
    with computed_within(SECONDS), pytest.raises(HarnessError) as caught:
        load_spec(str(path))
    text = str(caught.value)
    assert "keys.yaml:2:1: unknown key 'k0'" in text
    assert "and 2,984 more" in text
    assert len(text) < 10_000


# Each fits a value of one axis or more.
BODIES = (
    SQUARE,
    "A[:, None] + A[None, :]",
    "A[None, ...]",
    "A[..., None, None, None]",
    "merge(A[None], axes=[0, 1])",
    "merge(A[..., None] + astype(arange(n + m)), axes=[-2, -1])",
    "A[..., None] + astype(arange(n * m))",
    "A[..., None] + one_hot(arange(n * n), n * n)[0]",
    "concat([A, A, A], axis=0)",
    "concat([A, A[:1]], axis=-1)",
    "A[::-1]",
    "A[-1:]",
    "softmax(A)",
    "A - mean(A)",
    "mean(A[..., None], axis=-1)",
    "A[:, None] @ A[..., None, None]",
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(st.sampled_from(BODIES), min_size=1, max_size=14),
    st.sampled_from(["n + m", "n * m", "n * m + n + m + 1"]),
    st.sampled_from([1, 3, 4096, 2147483647]),
)
def test_random_small_specs_are_soon_read_and_say_little(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[str], axis: str, number: int
) -> None:
    assert said(model("nm", number, axis, bodies)[:1500], tmp_path_factory.getbasetemp())
