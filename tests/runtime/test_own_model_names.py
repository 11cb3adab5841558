"""A user's model by name: rules of ``--map``, places in a call, results, and what a file names."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from wording import Wording

from harness.errors import UsageError
from harness.language.model import load_spec
from harness.runtime.own_model.contract import ModelFile, Placing, made, names_taken, reshaped
from harness.runtime.own_model.names import Results, placing
from harness.runtime.own_model.renames import Rename, fits, renamed, split_sum, view_of, views_of


@pytest.mark.parametrize(
    ("name", "rules", "wanted"),
    [
        ("rnn.W", ["rnn=gru"], "gru.W"),
        ("rnn.W", ["rnn.W=gru.kernel[0:3].T"], "gru.kernel[0:3].T"),
        ("blocks.3.up.W", ["blocks=h"], "h.3.up.W"),
        ("blocks.3.up.W", ["blocks=h", "blocks.*.up=h.*.fc"], "h.3.fc.W"),
        ("blocks.3.up.W", ["blocks.*.up=h.*.fc", "blocks.3.up=last"], "last.W"),
        ("a.1.b.2", ["a.*.b.*=x.*.y.*"], "x.1.y.2"),
        ("blocks_2.W", ["blocks=h"], "blocks_2.W"),
        ("top.weight_ih_l0", ["top.*_l0=rnn.*_l1"], "rnn.weight_ih_l1"),
        ("top.bias_l0_reverse", ["top.*_l0*=rnn.*_l2*"], "rnn.bias_l2_reverse"),
        ("top.bias_l1", ["top.*_l0=rnn.*_l1"], "top.bias_l1"),
        ("out.W", [], "out.W"),
        ("b.1.b", ["b.*.b=h.*.ih + h.*.hh[0:n + 1]"], "h.1.ih + h.1.hh[0:n + 1]"),
        ("b.1.b", ["b.*.b=all.b[*, 2 * n:n*3]"], "all.b[1, 2 * n:n*3]"),
        ("rnn.b", ["rnn=low + high"], "low.b + high.b"),
    ],
)
def test_the_rule_that_says_most_of_a_name_holds(name: str, rules: list[str], wanted: str) -> None:
    assert renamed(name, [Rename.of(text) for text in rules])[0] == wanted


def test_a_pattern_is_what_a_regular_expression_makes_of_it() -> None:
    parts = ["".join(letters) for n in range(5) for letters in product("ab", repeat=n)]
    names = [*parts, *(f"{one}.{other}" for one in parts for other in parts[:8])]
    for pattern in ("*", "*a", "a*", "a*a", "**", "*b*", "*a*b*", "a*.*b", "*.a", "ab", "*aa*a"):
        wanted = re.escape(pattern).replace(r"\*", "([^.]*)") + r"(\..*)?"
        rule = Rename.of(f"{pattern}={'*/' * pattern.count('*')}x")
        for name in names:
            match = re.fullmatch(wanted, name)
            *stars, rest = match.groups() if match else ("",)
            text = "".join(f"{star}/" for star in stars) + f"x{rest or ''}"
            assert rule.renamed(name) == (text if match else None), (pattern, name)


def test_a_pattern_of_many_stars_takes_linear_time() -> None:
    """Backtracking would take longer than anybody waits."""
    rule = Rename.of(f"{'*' * 200}_x=a")
    assert rule.renamed("a" * 10_000) is None
    assert rule.renamed("b" * 10_000 + "_x.W") == "a.W"


@pytest.mark.parametrize("text", ["rnn", "=gru", "rnn=", "rnn=a.*.b"])
def test_a_rule_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--map"):
        Rename.of(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("w", lambda a: a),
        ("w.T", lambda a: a.T),
        ("w[1]", lambda a: a[1]),
        ("w[:, 1:3].T", lambda a: a[:, 1:3].T),
        ("w[0, ::2].transpose(1, 0)", lambda a: a[0, ::2].transpose(1, 0)),
        ("w[-1, 0, 2]", lambda a: a[-1, 0, 2]),
        ("w[:inner, -rank:]", lambda a: a[:1, -2:]),
        ("w[inner:, :, rank - inner:2 * rank].T", lambda a: a[1:, :, 1:4].T),
    ],
)
def test_a_part_is_what_numpy_makes_of_it_and_can_be_written_to(text: str, wanted) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    part = view_of(text, {"w": 0, "w.b": 0}, {"inner": 1, "rank": 2})
    assert part is not None
    np.testing.assert_array_equal(part.of(array), wanted(array))
    assert part.shape(array.shape) == wanted(array).shape
    part.of(array)[...] = -1.0
    assert np.all(wanted(array) == -1.0)


def test_a_name_may_itself_end_as_a_part_does(wording: Wording) -> None:
    found = view_of("w.T", {"w.T": 0, "w": 0}, {})
    assert found is not None
    assert found.key == "w.T"
    assert view_of("onnx::GRU_1[0, 0:7].T", {"onnx::GRU_1": 0}, {}) is not None
    assert view_of("v.T", {"w": 0}, {}) is None
    with wording.raises(UsageError):
        view_of("w[a]", {"w": 0}, {"aa": 1})
    with wording.raises(UsageError):
        view_of("w[1 2]", {"w": 0}, {"aa": 1})


def test_summands_are_exact_and_each_is_needed() -> None:
    whole = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32).astype(np.float64)
    shares = list(split_sum(whole, 3))
    np.testing.assert_array_equal(sum(shares), whole)
    for share in shares:
        np.testing.assert_array_equal(share.astype(np.float32), share)
        assert (np.abs(share) > 0.05 * np.abs(whole)).all()


def test_sums_are_cut_outside_of_brackets_only() -> None:
    sizes = {"n": 2}
    assert views_of("w[n + 1:] + v", {"w": 0}, sizes) is None
    parts = views_of("w[n + 1:] + v + x + y.T", {"w": 0, "v": 0, "x + y": 0, "x": 0, "y": 0}, sizes)
    assert [part.key for part in parts or ()] == ["w", "v", "x", "y"]
    assert [p.key for p in views_of("x + y", {"x + y": 0}, sizes) or ()] == ["x + y"]


@pytest.mark.parametrize(
    ("found", "wanted", "fit"),
    [
        ((4, 6), (4, 6), True),
        ((4, 6), (4, 2, 3), True),
        ((4, 2, 3), (4, 6), True),
        ((1, 4, 6), (4, 6), True),
        ((6, 4), (4, 6), False),
        ((2, 6), (3, 4), False),
        ((4, 3, 2), (4, 2, 3), False),
        ((5,), (6,), False),
    ],
)
def test_shapes_fit_by_cutting_and_joining_only(found, wanted, fit: bool) -> None:
    assert fits(found, wanted) is fit


def test_where_inputs_and_state_go(wording: Wording) -> None:
    program = load_spec("lesson6/stateful_lstm", ()).programs["inference"]
    chars, h, c = "input.chars", "state.h", "state.c"
    assert placing(program, ("x",), ()) == Placing((chars,))
    assert placing(program, None, ()) == Placing((chars,))
    assert placing(program, ("chars", "mask"), ()) == Placing((), {"chars": chars})
    by_name = placing(program, ("x", "h", "c"), ())
    assert by_name == Placing((chars,), {"h": h, "c": c})
    assert placing(program, ("chars", "state"), ()).names == (chars, h, c)
    assert placing(program, ("x",), ("state.c", "chars")) == Placing((c, chars))
    with wording.raises(UsageError, "--takes ... 'char' ... 'chars'"):
        placing(program, None, ("char",))
    with pytest.raises(UsageError, match="has 1 inputs"):
        placing(program, (), ())


@pytest.mark.parametrize(
    ("noise", "takes", "where"),
    [
        (("sample.unit",), ("x", "unit"), {"unit": "sample.unit"}),
        (("sample.unit",), ("x", "sample_unit"), {"sample_unit": "sample.unit"}),
        (("sample.unit",), ("x", "noise"), {"noise": "sample.unit"}),
        (("sample.unit",), ("x", "other"), {}),
        ((), ("x", "noise"), {}),
        (("a.kept", "b.kept"), ("x", "kept"), {}),
        (("a.kept", "b.kept"), ("x", "b_kept"), {"b_kept": "b.kept"}),
        (("a.kept", "b.kept"), ("x", "noise"), {"noise": ("a.kept", "b.kept")}),
    ],
)
def test_where_noise_goes(noise, takes, where) -> None:
    program = load_spec("vae", ()).programs["inference"]
    expected = {
        name: f"input.{one}" if isinstance(one, str) else {each: f"input.{each}" for each in one}
        for name, one in where.items()
    }
    assert placing(program, takes, (), noise) == Placing((), {"x": "input.x", **expected})
    in_order = placing(program, None, ("x", *noise), noise)
    assert in_order.positional == ("input.x", *(f"input.{name}" for name in noise))


def tensor(*shape: int) -> SimpleNamespace:
    return SimpleNamespace(shape=shape)


def test_what_is_returned_has_names(wording: Wording) -> None:
    spec = load_spec("lesson6/stateful_lstm", ())
    results = Results(spec.programs["training"], spec.programs["inference"])
    y, h, c = tensor(1), tensor(2), tensor(3)
    logits = "output.logits"
    assert results.named(y) == {logits: y}
    assert results.named([y, (h, c)]) == {logits: y, "state.h": h, "state.c": c}
    assert results.named({"logits": y, "cache": h}) == {logits: y}
    assert results.named(({"logits": y}, {"h": h, "c": c})) == {
        logits: y, "state.h": h, "state.c": c
    }  # fmt: skip
    asked = Results(spec.programs["training"], spec.programs["inference"], ("state.c", "logits"))
    assert asked.named((c, y)) == {"state.c": c, logits: y}
    for wrong, words in (
        ([y, h], "returns 2 tensors"),
        ({"x": y}, "returns 'x', but none"),
        ("text", "returns str instead of a tensor"),
    ):
        with pytest.raises(UsageError, match=words):
            results.named(wrong)
    with wording.raises(UsageError, "1 ... --returns ... 2 outputs"):
        asked.named(y)


def test_an_output_may_have_a_suffix_that_the_key_lacks(tmp_path: Path) -> None:
    file, y = tmp_path / "net.yaml", tensor(1)
    text = "summary: s\nsource: s\ninputs: {x: {shape: [batch, 3]}}\nequations: mean_output = 2 * x"
    file.write_text(f"model: net\n{text}\n")
    spec = load_spec(str(file))
    results = Results(spec.programs["training"], spec.programs["inference"])
    assert results.named({"mean": y}) == {"output.mean_output": y}


def test_a_state_may_have_more_axes_of_length_1_and_an_output_may_not(wording: Wording) -> None:
    array = np.zeros((1, 3, 7))
    assert reshaped("state.h", array, (3, 7), np.reshape).shape == (3, 7)
    with wording.raises(UsageError, "[3, 7]"):
        reshaped("output.y", array, (3, 7), np.reshape)


def test_names_of_calls() -> None:
    assert names_taken(lambda params, x, *, training=False: 0, skip=1) == ("x", "training")
    assert names_taken(lambda *arguments: 0) is None
    assert names_taken(lambda x, **more: 0) == ("x",)


def test_a_module_sees_those_beside_it_but_hides_none(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("VALUE = 5\n")
    (tmp_path / "json.py").write_text("raise ValueError('hidden')\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "import json\nfrom beside_it import VALUE\n\n\ndef make(size):\n    return size\n"
    )
    file = ModelFile(path, "make")
    found, parameters = file.load()
    assert parameters is None
    assert made(file, "make", found, {"size": 3, "other": 4}) == 3
