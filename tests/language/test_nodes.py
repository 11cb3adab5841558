"""Strict YAML: what is refused, where, and that no file does harm or takes long."""

import random

import pytest
import yaml
from time_limits import computed_within
from wording import Wording

from harness.errors import SpecError
from harness.language import document
from harness.language.document import MAX_BYTES, parse


def error_of(text):
    """Return the SpecError of reading `text`, or None; any other exception escapes."""
    try:
        parse(text, "m.yaml")
    except SpecError as error:
        return error
    return None


REFUSED = [
    ("a: 1\nb: yes", "2:4"),
    ("on: 1", "1:1"),
    ("a: 1e999", "1:4"),
    ("a: null", "1:4 ... 'null'"),
    ("a: ~", "1:4"),
    ("a:\nb: 1", "1:3"),
    ("a: {b, c}", "1:6"),
    ("a: {b: (c, d)}", "1:14 ... [batch, time]"),
    (
        "a: {b: minimum(t, 2 * t), c: 1}",
        "1:25 ... 'minimum(t'",
    ),
    ("a: !!python/object/apply:os.system [x]", "1:4"),
    ("a: !x 1", "1:4 ... '!x'"),
    ("a: &b 1", "1:4 ... '&b'"),
    ("a: *b", "1:4 ... '*b'"),
    ("<<: {a: 1}", "1:1"),
    ("a: 1\nb: {c: 1, c: 2}", "2:11 ... 'c' ... m.yaml:2:5"),
    ("a: {1: 2}", "1:5 ... must ... 1"),
    ("? [a]\n: 1", "1:3 ... must"),
    ("?\n: 1", "1:2"),
    ("a: 1\n---\nb: 1", "2:1"),
    ("%YAML 1.1\n---\na: 1", "1:1"),
    ("a:\n\t- b", "2:1 ... YAML"),
    ("a: b: c", "1:5 ... YAML"),
    ("", "1:1"),
    ("# only this\n", "1:1"),
    ("---\n", "2:1"),
    ("a: x\x00", "1:5 ... U+0000"),
    ("a: é\nb: \u2028", "2:4 ... U+2028"),
    ('a: "\\0"', "1:4 ... U+0000"),
    ("a: \ud800", "1:4 ... U+D800"),
    ("[" * 31 + "]" * 31, "1:31 ... 30"),
    ("a: [" + "x," * 20_000 + "]", "1:39999 ... 20,000"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_what_is_not_strict_yaml_is_refused_at_its_place(text, message, wording: Wording):
    wording(error_of(text), f"m.yaml:{message}")


def test_a_file_that_is_too_long_is_refused_as_a_whole(wording: Wording):
    wording.line(error_of("x" * (MAX_BYTES + 1)), "m.yaml: ... 1,048,577")


BOMBS = {
    "laughs": "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(50)),
    "flow": "a: " + "[" * 20_000,
    "flow mappings": "{a: " * 20_000,
    "block": "\n".join(" " * i + "a:" for i in range(1_400)),
    "block lists": "- " * 20_000,
    "complex keys": "? " * 20_000,
    "many keys": "".join(f"k{i}: 1\n" for i in range(100_000)),
    "long word": "a: " + "x" * 1_000_000,
    "many lines": "a: |\n" + " x\n" * 300_000,
    "unclosed quote": "a: '" + "x\n " * 300_000,
    "comments": "#\n" * 500_000,
    "digits": "a: " + "9" * 1_000_000,
    "underscores": "a: 1" + "_" * 1_000_000 + "x",
    "colons": "a: 1" + ":1" * 500_000 + "x",
    "zeros": "a: 0" + "0" * 1_000_000 + "x",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_are_over_quickly(bomb):
    with computed_within(2.0):
        error_of(bomb)


def test_nothing_is_executed(tmp_path, wording: Wording):
    planted = tmp_path / "planted"
    attack = f"a: !!python/object/apply:os.system ['touch {planted}']"
    wording(error_of(attack))
    assert not planted.exists()
    yaml.unsafe_load(attack)  # The attack works elsewhere: the check above can fail.
    assert planted.exists()


SEED = """\
model: tiny
sizes: {hidden: 256, rate: 1e-3}
layers: [{kind: gru, hidden: 512}, [1, 'x', "y"]]
text: |
  h = rnn(x)
"""
SPLINTERS = [
    *"\n\t\r\x00 \\:-?,[]{}#&*!|>%@`'\"0_x~\u00e9\u2028\ud800\ufeff",
    "<<: ",
    "---\n",
    "...\n",
]
SPLINTERS += [
    "\n  ",
    ": ",
    "- ",
    "? ",
    "!!",
    '"\\U99999999"',
    "%YAML 9.9\n",
    "9" * 5000,
    "&a ",
    "*a ",
]


@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
def test_mutated_files_give_data_or_spec_errors(parser, monkeypatch):
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, parser))
    source = random.Random(0)
    accepted = 0
    for _ in range(2_000):
        text = SEED
        for _ in range(source.randint(1, 4)):
            start = source.randrange(len(text))
            end = start + source.choice([0, 0, 1, 5])
            text = text[:start] + source.choice(SPLINTERS) + text[end:]
        error = error_of(text)
        accepted += error is None
        assert error is None or error.place.line <= len(text) + 1
    assert 100 < accepted < 1_900  # Otherwise the mutations test one side only.
