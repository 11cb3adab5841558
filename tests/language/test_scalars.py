"""Unquoted words: what they mean, and the spellings that are refused."""

import pytest
from wording import Wording

from harness.language.document import plain_value

OR_QUOTE = "or put it in quotes if it is text"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("9223372036854775807", 2**63 - 1),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("0.001", 0.001),
    ],
)
def test_values_keep_their_type(text, value):
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["y", "n", "relu", "1.0.0", "2 * x", "-x", "x_1", "1e", "e5", "a:b", "noon", "nan", "_1"],
)
def test_text_stays_text(text):
    assert plain_value(text) == text


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["", "~", "null", "Null", "NULL"], ""),
        (["True", "FALSE"], f"{OR_QUOTE}"),
        (["yes", "No", "ON", "off"], f"YAML ... {OR_QUOTE}"),
        ([".inf", "-.INF", ".NaN", "-.nan"], ""),
        (["0x1F", "-0o17", "0b11", "0x1_F"], f"{OR_QUOTE}"),
        (["010", "-007", "00", "01.5", "08e1"], f"{OR_QUOTE}"),
        (["1:30", "1:30:00", "-1:30.5"], f"{OR_QUOTE}"),
        (["1_000", "1_0.5", "-1.0_1", "1_0e3", "1__"], f"'_', {OR_QUOTE}"),
        (["2020-01-01", "2020-1-1", "2020-01-01T10:00:00Z"], ""),
        (["9223372036854775808", "-9223372036854775808", "9" * 5000], ""),
        (["1e999", "-1e999"], "64-bit"),
    ],
)
def test_ambiguous_spellings_are_refused_with_what_to_write(texts, message, wording: Wording):
    for text in texts:
        with pytest.raises(ValueError) as caught:
            plain_value(text)
        wording.line(caught.value, message)
